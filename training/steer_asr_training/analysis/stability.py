"""`steer-asr-train stability`: does another seed find the same features?

    report = stability(store, dictionary_a, dictionary_b)
    report["by_domain"]["speech"]["matched_share_of_alive_a"]

Two features match when the sets of frames on which they fire have an intersection over union above 0.5 (AudioSAE,
arXiv 2602.05027, tables 1 and 4). Beside that, by direction: the cosine of decoder rows, best match and optimal
assignment (Paulo and Belrose, arXiv 2501.16615).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from scipy.sparse.csgraph import maximum_bipartite_matching

from steer_asr._progress import Progress
from steer_asr_training.analysis.activations import BLOCK_NUMBERS, Sparse, encode_sparse, unit_rows
from steer_asr_training.analysis.inputs import Dictionary, stored_windows
from steer_asr_training.analysis.labels import DOMAINS
from steer_asr_training.store import ActivationStore

IOU = 0.5
COSINE = 0.7
PENDING_FIRINGS = 1 << 21
"""Firings gathered before they are multiplied: few large sparse products are faster than many small ones."""
MAX_ASSIGNED = 12_288
"""Largest dictionary for which the optimal assignment is sought: a float64 matrix of 1.2 GB."""
ROWS = {
    "all": (*DOMAINS, "other", "mixed"),
    "speech": ("speech",),
    "nonspeech": ("music", "sounds", "other"),
    "music": ("music",),
    "sounds": ("sounds",),
}
"""Rows of the table, and the disjoint sorts of windows that each adds up."""


class CoFiring:
    """On how many frames each feature of A fires, each of B, and both of a pair.

    Pairs are kept sparsely: 8 bytes for each that ever fires together (12 while two counts are being added), whatever
    the number of frames.
    """

    def __init__(self, n_a: int, n_b: int) -> None:
        self.n_frames = 0
        self.a, self.b = np.zeros(n_a, np.int64), np.zeros(n_b, np.int64)
        self._both: Sparse = sparse.csr_array((n_a, n_b), dtype=np.int32)
        self._pending: list[tuple[Sparse, Sparse]] = []
        self._n_pending = 0

    def add(self, a: Sparse, b: Sparse) -> None:
        """Activations of the same frames: sparse [frame, n_a] and [frame, n_b]."""
        self.n_frames += a.shape[0]
        fired = (_mask(a), _mask(b))
        self.a += np.bincount(fired[0].indices, minlength=len(self.a))
        self.b += np.bincount(fired[1].indices, minlength=len(self.b))
        self._pending.append(fired)
        self._n_pending += fired[0].nnz + fired[1].nnz
        if self._n_pending > PENDING_FIRINGS:
            self._flush()

    def add_dense(self, mask: np.ndarray) -> None:
        """bool [frame, n]: for one dictionary against itself."""
        fired = sparse.csr_array(mask)
        self.add(fired, fired)

    def add_counts(self, other: CoFiring) -> None:
        """Everything that `other` has counted, too."""
        self.n_frames += other.n_frames
        self.a += other.a
        self.b += other.b
        self._both = sparse.csr_array(self.both + other.both)

    @property
    def both(self) -> Sparse:
        """int32 [n_a, n_b], sparse."""
        self._flush()
        return self._both

    def pairs_over(self, iou: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(feature of A, feature of B, intersection over union) of every pair above `iou`."""
        both = self.both.tocoo()
        a, b = both.coords
        ratio = both.data / (self.a[a] + self.b[b] - both.data)
        over = ratio > iou
        return a[over], b[over], ratio[over]

    def _flush(self) -> None:
        if self._pending:
            a, b = (sparse.csr_array(sparse.vstack([pair[side] for pair in self._pending])) for side in (0, 1))
            self._both = sparse.csr_array(self._both + a.T @ b)
            self._pending, self._n_pending = [], 0


def stability(store: ActivationStore, a: Dictionary, b: Dictionary) -> dict[str, Any]:
    """Matches of two dictionaries on one store, by domain and by direction, as JSON values; see docs/features.md.

    They may read different hook points of one model. Raises what `stored_windows` raises.
    """
    windows = stored_windows(store, a), stored_windows(store, b)
    size = a.features.n_features, b.features.n_features
    matched, shifted = ({name: CoFiring(*size) for name in ROWS["all"]} for _ in range(2))
    with Progress(total=len(store), unit="window", label="stability") as progress:
        for i in range(len(store)):
            fired_a = encode_sparse(a.features, windows[0].frames(i))
            fired_b = encode_sparse(b.features, windows[1].frames(i))
            sort = _sort(windows[0].labels[i].domain, windows[0].labels[i].kind)
            matched[sort].add(fired_a, fired_b)
            shifted[sort].add(fired_a, _rolled(fired_b))
            progress.advance()
    same_space = a.hook_point == b.hook_point
    everything = _sum(matched, "all", size)
    rows = {"all": _row(everything, _sum(shifted, "all", size))}
    rows |= {name: _row(_sum(matched, name, size), _sum(shifted, name, size)) for name in ROWS if name != "all"}
    return {
        "windows": len(store),
        "a": _described(a),
        "b": _described(b),
        "iou_over": IOU,
        "by_domain": rows,
        "pairs_that_fire_together": everything.both.nnz,
        "decoder": match_directions(a.features.W_dec, b.features.W_dec) if same_space else None,
    }


def _row(counts: CoFiring, shifted: CoFiring) -> dict[str, Any] | None:
    """One row of the table; None without a frame."""
    if not counts.n_frames:
        return None
    a, b, iou = counts.pairs_over(IOU)
    n_a, n_b = len(counts.a), len(counts.b)
    alive_a, alive_b = int((counts.a > 0).sum()), int((counts.b > 0).sum())
    graph = sparse.csr_array((np.ones(len(a), np.int8), (a, b)), shape=(n_a, n_b))
    one_to_one = int((maximum_bipartite_matching(graph, perm_type="column") >= 0).sum())
    matched_a, matched_b = len(np.unique(a)), len(np.unique(b))
    return {
        "frames": counts.n_frames,
        "alive_a": alive_a,
        "alive_b": alive_b,
        "matched_a": matched_a,
        "matched_b": matched_b,
        "one_to_one": one_to_one,
        "matched_share_a": matched_a / n_a,
        "matched_share_b": matched_b / n_b,
        "matched_share_of_alive_a": matched_a / alive_a if alive_a else None,
        "matched_share_of_alive_b": matched_b / alive_b if alive_b else None,
        "mean_iou_of_pairs": float(iou.mean()) if len(iou) else None,
        "matched_a_when_shifted": len(np.unique(shifted.pairs_over(IOU)[0])),
    }


def match_directions(rows_a: np.ndarray, rows_b: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """Cosines of decoder rows, float [n_a, d_in] and [n_b, d_in]: best match of each, optimal assignment, chance.

    Chance is the best match of A's rows among as many random directions as B has rows. The assignment maximises the
    sum of cosines; above `MAX_ASSIGNED` features it is None.
    """
    a, b = unit_rows(rows_a), unit_rows(rows_b)
    random = unit_rows(np.random.default_rng(seed).standard_normal(b.shape).astype(np.float32))
    return {
        "over": COSINE,
        "best_for_a": _summary(_best(a, b)),
        "best_for_b": _summary(_best(b, a)),
        "assigned": _summary(_assigned(a, b)),
        "best_for_a_among_random": _summary(_best(a, random)),
    }


def _assigned(a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    if max(len(a), len(b)) > MAX_ASSIGNED:
        return None
    cosines = a @ b.T
    return cosines[linear_sum_assignment(cosines, maximize=True)]


def _best(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The largest cosine of each row of `a` with any of `b`."""
    step = max(1, BLOCK_NUMBERS // len(b))
    return np.concatenate([(a[start : start + step] @ b.T).max(axis=1) for start in range(0, len(a), step)])


def _summary(cosines: np.ndarray | None) -> dict[str, Any] | None:
    if cosines is None:
        return None
    return {
        "features": len(cosines),
        "mean": float(cosines.mean()),
        "median": float(np.median(cosines)),
        "share_over": float((cosines > COSINE).mean()),
    }


def _sum(counts: dict[str, CoFiring], row: str, size: tuple[int, int]) -> CoFiring:
    total = CoFiring(*size)
    for name in ROWS[row]:
        total.add_counts(counts[name])
    return total


def _sort(domain: str | None, kind: str) -> str:
    return domain or ("other" if kind == "nonspeech" else "mixed")


def _rolled(z: Sparse) -> Sparse:
    """The same activations, half a window later: what fires often still does, but at other times."""
    half = z.shape[0] // 2
    return sparse.csr_array(sparse.vstack([z[half:], z[:half]])) if half else z


def _mask(z: Sparse) -> Sparse:
    return sparse.csr_array((np.ones(z.nnz, np.int32), z.indices, z.indptr), shape=z.shape)


def _described(dictionary: Dictionary) -> dict[str, Any]:
    return {
        "name": dictionary.name,
        "n_features": dictionary.features.n_features,
        "hook_point": dictionary.hook_point,
    }
