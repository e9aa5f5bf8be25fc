"""`steer-asr-train evaluate`: how good a dictionary is, on frames that hear audio.

    report = quality(windows, features).report
    report["all"]["explained_variance"], report["l0"]["mean"], report["alive_share"]

Explained variance is 1 - FVU, and FVU is the squared error over all frames and dimensions, over the squared distance
of all frames from their own mean. Squaring before averaging, as some libraries did, counts the mean as variance: a
dictionary of nothing but the mean then seems to explain a lot (jbloomAus/SAELens issue 443).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from steer_asr._progress import Progress
from steer_asr.sae import SaeFeatures
from steer_asr_training.analysis.activations import BLOCK_NUMBERS, blocks, unit_rows
from steer_asr_training.analysis.inputs import Windows
from steer_asr_training.analysis.stability import CoFiring

DENSITY_EDGES = tuple(float(edge) for edge in np.linspace(-6, 0, 25))
"""Logarithms (base 10) of the firing frequencies that part the bins of the histogram."""
L0_QUANTILES = (0.05, 0.5, 0.95)
DUPLICATE_COSINE = 0.9
DUPLICATE_IOU = 0.5
CONTROL_FRAMES = 4096
CONTROL = "random unit decoder rows, tied encoder on centred frames, one threshold for the same L0, one best gain"


class Moments:
    """Mean and squared distance from it of frames seen piece by piece (Chan, Golub, LeVeque 1983), in float64."""

    def __init__(self, d_in: int) -> None:
        self.n, self.mean, self.scatter = 0, np.zeros(d_in), 0.0

    def add(self, x: np.ndarray) -> None:
        """`x` is [frame, d_in]."""
        mean = x.mean(axis=0, dtype=np.float64)
        self.merge(len(x), mean, float(np.square(x - mean).sum()))

    def merge(self, n: int, mean: np.ndarray, scatter: float) -> None:
        if n:
            apart, both = mean - self.mean, self.n + n
            self.scatter += scatter + float(apart @ apart) * self.n * n / both
            self.mean = self.mean + apart * (n / both)
            self.n = both


@dataclass
class Reconstruction:
    """What is left of some frames after they went through a dictionary."""

    moments: Moments
    error: float = 0.0
    fired: int = 0

    def add(self, x: np.ndarray, reconstructed: np.ndarray, fired: int) -> None:
        self.moments.add(x)
        self.error += float(np.square(x - reconstructed, dtype=np.float64).sum())
        self.fired += fired

    @property
    def explained_variance(self) -> float | None:
        """1 - FVU; None when the frames do not vary."""
        return None if self.moments.scatter <= 0 else 1 - self.error / self.moments.scatter

    def to_json(self) -> dict[str, Any]:
        n, explained = self.moments.n, self.explained_variance
        return {
            "frames": n,
            "explained_variance": explained,
            "fvu": None if explained is None else 1 - explained,
            "mse_per_frame": self.error / n if n else None,
            "l0": self.fired / n if n else None,
        }


@dataclass
class Measured:
    """Sums of one pass over the windows."""

    d_in: int
    n_features: int
    parts: dict[str, Reconstruction] = field(default_factory=dict)
    l0_counts: np.ndarray = field(init=False)
    fired: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.l0_counts = np.zeros(self.n_features + 1, np.int64)
        self.fired = np.zeros(self.n_features, np.int64)

    def add(self, names: Iterable[str], x: np.ndarray, features: SaeFeatures, within: CoFiring) -> None:
        for block in blocks(x, self.n_features):
            z = features.encode(block)
            mask = z > 0
            per_frame = mask.sum(axis=1)
            self.l0_counts += np.bincount(per_frame, minlength=self.n_features + 1)
            self.fired += mask.sum(axis=0)
            within.add_dense(mask)
            reconstructed = z @ features.W_dec + features.b_dec
            for name in names:
                part = self.parts.setdefault(name, Reconstruction(Moments(self.d_in)))
                part.add(block, reconstructed, int(per_frame.sum()))


@dataclass(frozen=True, eq=False)
class Quality:
    """What `evaluate` reports without a model, and the random dictionary that it was compared with."""

    report: dict[str, Any]
    """JSON values; see docs/features.md."""
    control: SaeFeatures | None


def quality(windows: Windows, features: SaeFeatures, *, control_seed: int | None = 0) -> Quality:
    """Measures a dictionary on all frames of the windows.

    Two passes over the windows, the second one for the random dictionary; none with `control_seed` None. Memory: a
    block of activations, one float64 [n_features, n_features] piece at a time, and 12 bytes per pair of features that
    ever fire together.
    """
    measured, within = Measured(features.d_in, features.n_features), CoFiring(features.n_features, features.n_features)
    with Progress(total=len(windows), unit="window", label="evaluate") as progress:
        for i in range(len(windows)):
            labels = windows.labels[i]
            names = ["all", f"kind:{labels.kind}", *([f"domain:{labels.domain}"] if labels.domain else [])]
            measured.add(names, windows.frames(i), features, within)
            progress.advance()
    everything = measured.parts["all"]
    n, alive = everything.moments.n, measured.fired > 0
    control, compared = None, None
    if control_seed is not None:
        control, compared = random_control(windows, features, everything, np.random.default_rng(control_seed))
    report = {
        "windows": len(windows),
        "n_features": features.n_features,
        "d_in": features.d_in,
        "all": everything.to_json(),
        "parts": {name: part.to_json() for name, part in sorted(measured.parts.items()) if name != "all"},
        "l0": {"mean": everything.fired / n} | _quantiles(measured.l0_counts),
        "alive": int(alive.sum()),
        "alive_share": float(alive.mean()),
        "density": density_histogram(measured.fired, n),
        "duplicates": duplicates(features, within, alive),
        "random_sae": compared,
    }
    return Quality(report, control)


def density_histogram(fired: np.ndarray, n_frames: int) -> dict[str, Any]:
    """How many features fire how often: counts between the edges, in log10 of the share of frames."""
    share = fired[fired > 0] / n_frames
    counts, _ = np.histogram(np.log10(np.clip(share, 10.0 ** DENSITY_EDGES[0], 1.0)), bins=DENSITY_EDGES)
    return {
        "log10_edges": list(DENSITY_EDGES),
        "counts": counts.tolist(),
        "never": int((fired == 0).sum()),
        "on_over_10_percent": int((share > 0.1).sum()),
    }


def duplicates(features: SaeFeatures, within: CoFiring, alive: np.ndarray) -> dict[str, Any]:
    """Features that have a twin: by direction of their decoder rows, and by when they fire (alive ones only)."""
    rows = unit_rows(features.W_dec)
    step = max(1, BLOCK_NUMBERS // max(1, len(rows)))
    has_twin, pairs = np.zeros(len(rows), bool), 0
    for start in range(0, len(rows), step):
        close = rows[start : start + step] @ rows.T > DUPLICATE_COSINE
        close[np.arange(len(close)), np.arange(start, start + len(close))] = False
        has_twin[start : start + step] = close.any(axis=1)
        pairs += int(close.sum())
    a, b, _ = within.pairs_over(DUPLICATE_IOU)
    apart = a < b
    return {
        "decoder_cosine": {"over": DUPLICATE_COSINE, "features": int(has_twin.sum()), "pairs": pairs // 2},
        "iou": {
            "over": DUPLICATE_IOU,
            "features": len(np.union1d(a[apart], b[apart])),
            "pairs": int(apart.sum()),
            "of_alive": int(alive.sum()),
        },
    }


def random_control(
    windows: Windows, features: SaeFeatures, original: Reconstruction, rng: np.random.Generator
) -> tuple[SaeFeatures, dict[str, Any]]:
    """A dictionary that has learned nothing, of the same size and L0, and how good it is.

    Decoder: random unit rows. Encoder: its transpose, on frames minus their mean. One threshold for all features, set
    so that as many fire per frame, on a sample of frames. What it writes is scaled by the one factor that suits the
    frames best, since many random rows overlap; so its explained variance cannot fall below 0.
    """
    n, mean = original.moments.n, original.moments.mean
    random = random_dictionary(windows, features.W_dec.shape, original, rng)
    along = length = 0.0
    fired = 0
    with Progress(total=len(windows), unit="window", label="random SAE") as progress:
        for i in range(len(windows)):
            for block in blocks(windows.frames(i), features.n_features):
                z = random.encode(block)
                fired += int(np.count_nonzero(z))
                written = z @ random.W_dec
                along += float(np.sum((block - mean) * written))
                length += float(np.square(written, dtype=np.float64).sum())
            progress.advance()
    scatter = original.moments.scatter
    gain = along / length if length else 0.0
    return replace(random, W_dec=random.W_dec * np.float32(gain)), {
        "made": CONTROL,
        "explained_variance": None if scatter <= 0 else gain * along / scatter,
        "l0": fired / n,
        "gain": gain,
    }


def random_dictionary(
    windows: Windows, shape: tuple[int, ...], original: Reconstruction, rng: np.random.Generator
) -> SaeFeatures:
    """Random unit rows, `shape` being [n_features, d_in], that fire as often as `original`; `b_dec` is the mean."""
    n_frames, mean = original.moments.n, original.moments.mean
    rows = unit_rows(rng.standard_normal(shape)).astype(np.float32)
    bias = -(rows @ mean).astype(np.float32)
    wanted = min(CONTROL_FRAMES, max(1, BLOCK_NUMBERS // len(rows)))
    hidden = sample_frames(windows, n_frames, wanted, rng) @ rows.T + bias
    n_kept = min(hidden.size - 1, round(original.fired / n_frames * len(hidden)))
    threshold = np.partition(hidden, hidden.size - 1 - n_kept, axis=None)[hidden.size - 1 - n_kept]
    return SaeFeatures(
        W_enc=rows.T.copy(),
        b_enc=bias,
        threshold=np.full(len(rows), max(0.0, float(threshold)), np.float32),
        W_dec=rows,
        b_dec=mean.astype(np.float32),
    )


def sample_frames(windows: Windows, n_frames: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """At most `n` of all `n_frames` frames, evenly chosen: float32 [frame, d_in]."""
    positions = np.sort(rng.choice(n_frames, min(n, n_frames), replace=False))
    parts, start = [], 0
    for i in range(len(windows)):
        x = windows.frames(i)
        inside = positions[(positions >= start) & (positions < start + len(x))]
        parts.append(x[inside - start])
        start += len(x)
    return np.concatenate(parts)


def _quantiles(counts: np.ndarray) -> dict[str, int]:
    """Of the number of features per frame, from how many frames had how many."""
    below = np.cumsum(counts)
    return {f"p{100 * q:.0f}": int(np.searchsorted(below, q * below[-1])) for q in L0_QUANTILES}
