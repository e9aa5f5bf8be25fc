"""What a foreign dictionary leaves open, decided by how well it reconstructs activations.

    features, report = check(load_foreign("layer_6"), frames)       # frames: float32 [frame, d_in], real ones only

Three inputs are tried where the source does not say: raw; all frames scaled by one number (root mean square norm 1, as
dictionary_learning does it; mean norm the root of d_in, as SAELens does it); each frame divided by its own length. The
one that reconstructs best is what the dictionary was trained on. The first three can be folded into ours; the last
cannot, and is refused. So is a dictionary that reconstructs nothing well: it belongs to another layer or model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from steer_asr.errors import SteerOptionError, WeightsError
from steer_asr.sae import SaeFeatures
from steer_asr_training.analysis.quality import Moments, Reconstruction
from steer_asr_training.batches import stored_points
from steer_asr_training.foreign.sae import ForeignSae
from steer_asr_training.store import ActivationStore

MAX_FVU = 0.3
"""A dictionary that leaves more of the variance unexplained than this is not one of these activations."""
CLEARLY = 0.75
"""Raw inputs are preferred to scaled ones, and those to what cannot be folded, unless the other leaves less than this
share of the error: a small change of scale moves a few features over their thresholds, which proves nothing."""
BATCH = 2500
"""Frames in a batch: AudioSAE's, so that thresholds mean what its moving average would (arXiv 2412.06410)."""
MAX_FRAMES = 20_000
PER_FRAME = "each frame divided by its length"

Scaling = Callable[[np.ndarray], float]
SCALINGS: Mapping[str, Scaling] = {
    "none": lambda x: 1.0,  # noqa: ARG005
    "root mean square norm 1": lambda x: 1.0 / float(np.sqrt(np.square(x, dtype=np.float64).sum(axis=1).mean())),
    "mean norm sqrt(d_in)": lambda x: x.shape[1] ** 0.5 / float(np.linalg.norm(x, axis=1).mean()),
}
STATED = {"none": ("none",), "expected_average_only_in": ("mean norm sqrt(d_in)",), "unknown": tuple(SCALINGS)}


def check(sae: ForeignSae, frames: np.ndarray, *, max_fvu: float = MAX_FVU) -> tuple[SaeFeatures, dict[str, Any]]:
    """Ours for it, and what was found on the second half of `frames`; the first half is for thresholds and scales.

    The report has `fvu` and `l0` of what is exported, `fvu_as_trained` with the source's own rule (k of each frame, or
    k * n of a batch), `inputs` (which scaling), `scale`, `threshold` (stored or calibrated), and `tried` (FVU of each).
    Raises `WeightsError` when the best is not below `max_fvu`, or is one that cannot be folded; `SteerOptionError` for
    activations of another width, or too few of them.
    """
    if frames.shape[1] != sae.d_in:
        raise SteerOptionError(
            f"{sae.where} is {sae.d_in} wide, the activations {frames.shape[1]}: another model or layer"
        )
    fitting, held_out = frames[: len(frames) // 2], frames[len(frames) // 2 :]
    if len(fitting) < 2:
        raise SteerOptionError(f"{len(frames)} frames are too few to check a dictionary on")
    candidates = {name: _candidate(sae, SCALINGS[name](fitting), fitting) for name in STATED[sae.normalization]}
    measured = {name: _measure(features, held_out) for name, (features, _) in candidates.items()}
    tried = {name: reconstruction.fvu for name, reconstruction in measured.items()}
    best = _preferred(tried)
    if sae.normalization == "unknown":
        tried[PER_FRAME] = _fvu_per_frame(sae, fitting, held_out)
    told = ", ".join(f"{name}: {fvu:.3f}" for name, fvu in tried.items())
    if tried.get(PER_FRAME, np.inf) < CLEARLY * tried[best]:
        raise WeightsError(
            f"{sae.where}: reconstructs best with {PER_FRAME}, which a JumpReLU on raw activations cannot express "
            f"(FVU by inputs: {told})"
        )
    if not tried[best] <= max_fvu:
        raise WeightsError(
            f"{sae.where}: leaves {tried[best]:.0%} of the variance unexplained at best (FVU by inputs: {told}); "
            f"it is for another layer or model, or broken. At most {max_fvu:.0%} is accepted"
        )
    (features, scale), found = candidates[best], measured[best]
    report = {
        "frames": len(held_out),
        "fvu": tried[best],
        "l0": found.l0,
        "fvu_as_trained": _fvu_as_trained(sae, held_out, scale),
        "inputs": best,
        "scale": scale,
        "threshold": "stored" if sae.threshold is not None else "calibrated",
        "tried": tried,
    }
    return features, report


def other_layers(features: SaeFeatures, store: ActivationStore, hook_point: str) -> dict[str, float]:
    """FVU at every hook point of the store that is as wide, `hook_point` included, on some 5000 frames of each.

    Neighbouring layers are much alike, so that only a comparison tells which one a dictionary is for.
    """
    found = {}
    for point in stored_points(store):
        frames = stored_frames(store, point, MAX_FRAMES // 4)
        if frames.shape[1] == features.d_in:
            found[point] = _measure(features, frames).fvu
    if hook_point not in found:
        raise SteerOptionError(f"{store.folder} has no {hook_point!r} that is {features.d_in} wide")
    return found


def _preferred(tried: Mapping[str, float]) -> str:
    """The first, unless another is clearly better; of those, the best."""
    first = next(iter(tried))
    better = [name for name, fvu in tried.items() if fvu < CLEARLY * tried[first]]
    return min(better, key=lambda name: tried[name], default=first)


def stored_frames(store: ActivationStore, hook_point: str, limit: int = MAX_FRAMES) -> np.ndarray:
    """Up to `limit` real frames, float32 [frame, d_in], from windows all over the store.

    Raises `SteerOptionError` when the store has no such hook point.
    """
    if hook_point not in (points := stored_points(store)):
        raise SteerOptionError(f"{store.folder} has no {hook_point!r}, but {', '.join(points)}; --hook-point chooses")
    order = np.random.default_rng(0).permutation(len(store))
    found, n = [], 0
    for i in order:
        found.append(store.window(int(i), hook_point)[: store.n_real_frames(int(i))])
        n += len(found[-1])
        if n >= limit:
            break
    return np.concatenate(found)[:limit].astype(np.float32)


class _Measured(Reconstruction):
    @property
    def fvu(self) -> float:
        explained = self.explained_variance
        return float("nan") if explained is None else 1 - explained

    @property
    def l0(self) -> float:
        return self.fired / max(1, self.moments.n)


def _blocks(x: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(x), BATCH):
        yield x[start : start + BATCH]


def _candidate(sae: ForeignSae, scale: float, x: np.ndarray) -> tuple[SaeFeatures, float]:
    settled = sae if sae.threshold is not None else sae.with_threshold(calibrate(sae, x * np.float32(scale)))
    return settled.features(scale), scale


def calibrate(sae: ForeignSae, x: np.ndarray) -> float:
    """One threshold at which k features fire per frame on average, on scaled `x`: the mean over batches of the smallest
    of the k * n largest activations."""
    assert sae.k, "checked when it was read"
    smallest = []
    for block in _blocks(x):
        hidden, n_kept = sae.hidden(block).ravel(), sae.k * len(block)
        smallest.append(float(np.partition(hidden, hidden.size - n_kept)[hidden.size - n_kept]))
    return float(np.mean(smallest))


def _measure(features: SaeFeatures, x: np.ndarray) -> _Measured:
    found = _Measured(Moments(features.d_in))
    for block in _blocks(x):
        z = features.encode(block)
        found.add(block, z @ features.W_dec + features.b_dec, int((z > 0).sum()))
    return found


def _fvu_per_frame(sae: ForeignSae, fitting: np.ndarray, x: np.ndarray) -> float:
    """With inputs of length 1, and what comes out scaled back."""
    settled = sae if sae.threshold is not None else sae.with_threshold(calibrate(sae, fitting / _lengths(fitting)))
    features, found = settled.features(), _Measured(Moments(sae.d_in))
    for block in _blocks(x):
        z = features.encode(block / _lengths(block))
        found.add(block, (z @ features.W_dec + features.b_dec) * _lengths(block), int((z > 0).sum()))
    return found.fvu


def _lengths(x: np.ndarray) -> np.ndarray:
    return np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def _fvu_as_trained(sae: ForeignSae, x: np.ndarray, scale: float) -> float | None:
    """With the source's own rule; None where that is a threshold."""
    if not sae.k or sae.kind not in ("topk", "batch_topk"):
        return None
    found = _Measured(Moments(sae.d_in))
    for block in _blocks(x):
        hidden = sae.hidden(block * np.float32(scale))
        rows = hidden if sae.kind == "topk" else hidden.reshape(1, -1)
        n_kept = sae.k if sae.kind == "topk" else sae.k * len(block)
        smallest = np.partition(rows, rows.shape[1] - n_kept, axis=1)[:, rows.shape[1] - n_kept, None]
        z = np.where(rows >= smallest, rows, 0).reshape(hidden.shape)
        found.add(block, (z @ sae.W_dec + sae.b_dec) / np.float32(scale), int((z > 0).sum()))
    return found.fvu
