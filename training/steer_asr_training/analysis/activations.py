"""Feature activations as sparse matrices, and one table of what fired where: every other number is read from it.

    table = clip_table(windows, features)
    table.frames_fired[17, 40]          # on how many frames of window 17 feature 40 fired

A dictionary fires a few dozen of its thousands of features on a frame, so nothing here is kept densely per frame: the
table takes 20 bytes per feature and window in which it fired at least once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from steer_asr._progress import Progress
from steer_asr.sae import SaeFeatures
from steer_asr_training.analysis.inputs import Windows

Sparse = Any
"""scipy.sparse.csr_array; what a type checker infers of its operators is wrong as often as not."""
BLOCK_NUMBERS = 1 << 24
"""Dense activations held at a time: 64 MB."""


def rows_at_a_time(n_features: int) -> int:
    """How many frames are encoded together."""
    return max(1, BLOCK_NUMBERS // n_features)


def blocks(x: np.ndarray, n_features: int) -> Iterator[np.ndarray]:
    """`x` in pieces whose activations fit into one block."""
    step = rows_at_a_time(n_features)
    for start in range(0, len(x), step):
        yield x[start : start + step]


def encode_sparse(features: SaeFeatures, x: np.ndarray) -> Sparse:
    """Activations of `x`, float32 [frame, d_in], as a sparse float32 [frame, n_features]."""
    parts = [sparse.csr_array(features.encode(block)) for block in blocks(x, features.n_features)]
    return parts[0] if len(parts) == 1 else sparse.csr_array(sparse.vstack(parts))


@dataclass(frozen=True, eq=False)
class ClipTable:
    """What fired in which window. Sparse arrays [window, n_features] of one and the same pattern."""

    n_frames: np.ndarray
    """int64 [window]: frames that hear audio."""
    frames_fired: Sparse
    """int64: on how many frames the feature fired."""
    total: Sparse
    """float64: sum of its activations."""
    peak: Sparse
    """float32: its largest activation."""
    peak_frame: Sparse
    """int64: the first frame of that activation, plus 1: a stored 0 would be none."""

    @property
    def n_features(self) -> int:
        return self.peak.shape[1]


def clip_table(windows: Windows, features: SaeFeatures, label: str = "features") -> ClipTable:
    """Shows every window to the dictionary once."""
    rows: list[dict[str, np.ndarray]] = []
    n_frames = np.empty(len(windows), np.int64)
    with Progress(total=len(windows), unit="window", label=label) as progress:
        for i in range(len(windows)):
            x = windows.frames(i)
            n_frames[i] = len(x)
            rows.append(_summary(encode_sparse(features, x)))
            progress.advance()
    indptr = np.concatenate([[0], np.cumsum([len(row["feature"]) for row in rows])]).astype(np.int64)
    indices = np.concatenate([row["feature"] for row in rows])
    shape = (len(windows), features.n_features)

    def column(name: str) -> Sparse:
        return sparse.csr_array((np.concatenate([row[name] for row in rows]), indices, indptr), shape=shape)

    return ClipTable(n_frames, *(column(name) for name in ("frames_fired", "total", "peak", "peak_frame")))


def _summary(z: Sparse) -> dict[str, np.ndarray]:
    """Per feature that fired in one window, in order: how often, how much in total, how much at most and when."""
    by_feature = z.tocsc()
    feature = np.flatnonzero(np.diff(by_feature.indptr))
    start = by_feature.indptr[feature]
    count = by_feature.indptr[feature + 1] - start
    values = by_feature.data
    peak = np.maximum.reduceat(values, start)
    at_peak = values == np.repeat(peak, count)
    first = np.minimum.reduceat(np.where(at_peak, by_feature.indices, z.shape[0]), start)
    return {
        "feature": feature.astype(np.int64),
        "frames_fired": count.astype(np.int64),
        "total": np.add.reduceat(values.astype(np.float64), start),
        "peak": peak.astype(np.float32),
        "peak_frame": first.astype(np.int64) + 1,
    }


def unit_rows(matrix: np.ndarray) -> np.ndarray:
    """Rows of length 1; a row of zeros stays."""
    return matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-12)
