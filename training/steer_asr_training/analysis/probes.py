"""`steer-asr-train probe`: how few features tell a label, by sparse logistic probes.

    rows = clip_rows(table, values, groups)                 # or phone_rows(aligned)
    report = probe_report(rows)
    report["curve"][0]                                      # {"k": 1, "accuracy": 0.81, "mcc": 0.62, ...}

AudioSAE (arXiv 2602.05027, section on probing): features are ranked by Fisher score, and an unregularised logistic
regression (newton-cg) sees the first k of them. Ranking and fitting happen on the same folds, what is reported on the
fold left out, and no speaker is on both sides.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, matthews_corrcoef

from steer_asr._progress import Progress
from steer_asr.errors import SteerOptionError, unknown_name
from steer_asr_training.analysis.activations import ClipTable, Sparse
from steer_asr_training.analysis.aligned import SILENCE, AlignedFrames, grouped_folds

KS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)
MAX_ITER = 10_000
"""AudioSAE's."""
ENOUGH = 0.95
"""`k_enough`: the fewest features with this share of the best MCC of the curve."""
POOLS = ("mean", "max")


@dataclass(frozen=True, eq=False)
class ProbeRows:
    """What a probe sees: one row per clip, phone token or frame."""

    x: Sparse
    """csr [row, n_features]."""
    y: np.ndarray
    """int64 [row]: class."""
    classes: tuple[str, ...]
    groups: np.ndarray
    """str [row]: speaker or recording."""
    unit: str = "clip"


def clip_rows(
    table: ClipTable, values: Sequence[str | None], groups: Sequence[str], *, pool: str = "mean"
) -> ProbeRows:
    """One row per window that has a value: mean activation over its frames, or the largest.

    Raises `SteerOptionError` for an unknown pool, and for fewer than two values.
    """
    check_pool(pool)
    kept = np.flatnonzero([value is not None for value in values])
    return _rows(_pooled(table, pool)[kept], [str(values[i]) for i in kept.tolist()], np.array(groups)[kept], "clip")


def check_pool(pool: str) -> None:
    """Raises `SteerOptionError` unless `clip_rows` knows it."""
    if pool not in POOLS:
        raise SteerOptionError(unknown_name("pool", pool, POOLS))


def phone_rows(aligned: AlignedFrames, *, per: str = "token", silence: bool = False) -> ProbeRows:
    """One row per phone token (mean activation over its frames), or per frame; `SteerOptionError` for another."""
    if per not in ("token", "frame"):
        raise SteerOptionError(unknown_name("row of phones", per, ("token", "frame")))
    known = aligned.phone >= 0
    if not silence and SILENCE in aligned.names:
        known &= aligned.phone != aligned.names.index(SILENCE)
    at = np.flatnonzero(known)
    names = np.array(aligned.names, object)
    if per == "frame":
        return _rows(aligned.z[at], names[aligned.phone[at]].tolist(), aligned.frame_groups[at], "frame")
    _, first, token = np.unique(aligned.token[at], return_index=True, return_inverse=True)
    length = np.bincount(token)
    mean = sparse.csr_array((1 / length[token], (token, np.arange(len(at)))), shape=(len(length), len(at)))
    first = at[first]
    return _rows(mean @ aligned.z[at], names[aligned.phone[first]].tolist(), aligned.frame_groups[first], "token")


def choose_classes(
    rows: ProbeRows, classes: Sequence[str] = (), *, n_folds: int, max_rows: int = 0, seed: int = 0
) -> ProbeRows:
    """The rows of some classes (all that enough speakers have, when none is named), at most `max_rows`, evenly.

    A class has to occur in at least `n_folds` groups. Raises `SteerOptionError` for unknown or too rare classes.
    """
    for name in classes:
        if name not in rows.classes:
            raise SteerOptionError(unknown_name("class", name, rows.classes))
    spread = {name: len(set(rows.groups[rows.y == c])) for c, name in enumerate(rows.classes)}
    if rare := [name for name in classes if spread[name] < n_folds]:
        raise SteerOptionError(
            f"{rare[0]!r} occurs with {spread[rare[0]]} speakers or recordings, which is too few for {n_folds} folds"
        )
    wanted = set(classes) or {name for name in rows.classes if spread[name] >= n_folds}
    if len(wanted) < 2:
        raise SteerOptionError(
            f"{n_folds} folds take two classes of at least {n_folds} speakers or recordings each; there are "
            f"{dict(sorted(spread.items()))}; take fewer folds, or other data"
        )
    kept = np.flatnonzero([rows.classes[c] in wanted for c in rows.y])
    if max_rows and len(kept) > max_rows:
        kept = np.sort(np.random.default_rng(seed).permutation(kept)[:max_rows])
    return _rows(rows.x[kept], [rows.classes[c] for c in rows.y[kept]], rows.groups[kept], rows.unit)


def probe_report(
    rows: ProbeRows, *, ks: Sequence[int] = KS, n_folds: int = 5, ids: Sequence[int] | None = None, seed: int = 0
) -> dict[str, Any]:
    """Scores against the number of features, with a majority and a shuffled-label control, as JSON values.

    Every row is held out once, and scores are of all rows together. `shuffled` is the same with labels dealt out anew
    (whole groups where a group has one label), scored against the true ones. `ids` names the features.

    Raises `SteerOptionError` for fewer groups than folds, or a k below 1.
    """
    if not ks or min(ks) < 1:
        raise SteerOptionError(f"numbers of features {list(ks)}: give at least one, each 1 or more")
    fold = grouped_folds(rows.y, rows.groups, n_folds, seed)
    ks = sorted({min(k, rows.x.shape[1]) for k in ks})
    shuffled = shuffled_labels(rows, seed)
    with Progress(total=2 * n_folds * len(ks), unit="probe", label="probes") as progress:
        predicted, rankings = _predictions(rows.x, rows.y, fold, ks, progress)
        control, _ = _predictions(rows.x, shuffled, fold, ks, progress)
    curve = [{"k": k, **scores(rows.y, predicted[k]), "shuffled": scores(rows.y, control[k])} for k in ks]
    majority = np.empty_like(rows.y)
    for f in range(n_folds):
        majority[fold == f] = np.bincount(rows.y[fold != f]).argmax()
    best = max(point["mcc"] for point in curve)
    return {
        "unit": rows.unit,
        "rows": len(rows.y),
        "groups": len(set(rows.groups)),
        "folds": n_folds,
        "classes": {name: int((rows.y == c).sum()) for c, name in enumerate(rows.classes)},
        "majority": scores(rows.y, majority),
        "curve": curve,
        "best_mcc": best,
        "k_enough": next(point["k"] for point in curve if point["mcc"] >= ENOUGH * best) if best > 0 else None,
        "top_features": _often_first(rankings, ids),
    }


def fisher_scores(x: Sparse, y: np.ndarray) -> np.ndarray:
    """Between-class over within-class variance of every feature: float64 [n_features]. 0 where nothing varies.

    `sum_c n_c (mean_c - mean)^2 / sum_c n_c var_c` (Gu, Li and Han, Generalized Fisher Score, 2012).
    """
    x = sparse.csr_array(x).astype(np.float64)
    n_c = np.bincount(y)
    member = sparse.csr_array((np.ones(len(y)), (y, np.arange(len(y)))), shape=(len(n_c), len(y)))
    mean_c = (member @ x).toarray() / np.maximum(n_c, 1)[:, None]
    mean = x.sum(axis=0) / len(y)
    between = n_c @ (mean_c - mean) ** 2
    within = np.maximum((x * x).sum(axis=0) - n_c @ mean_c**2, 0)
    floor = 1e-12 * np.maximum((x * x).sum(axis=0), 1e-300)
    return between / np.maximum(within, floor)


def ranking(x: Sparse, y: np.ndarray) -> np.ndarray:
    """int64 [n_features]: columns by Fisher score, the highest first, equal ones in their order."""
    return np.argsort(-fisher_scores(x, y), kind="stable")


def fit_probe(x: np.ndarray, y: np.ndarray, *, c: float | None = None) -> LogisticRegression:
    """Logistic regression as in the paper: newton-cg without a penalty, or with L2 of inverse strength `c`."""
    model = LogisticRegression(C=np.inf if c is None else c, solver="newton-cg", max_iter=MAX_ITER)
    with warnings.catch_warnings():
        # classes that k features part perfectly have no best unregularised fit; the one it stopped at parts them
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "Line Search failed")
        return model.fit(x, y)


def scaled(train: Sparse, test: Sparse) -> tuple[np.ndarray, np.ndarray]:
    """Both dense, centred and divided by the deviation on `train`: float64 [row, k] each.

    Without a penalty this only helps the solver; with one it makes it alike for all features.
    """
    a, b = train.toarray().astype(np.float64), test.toarray().astype(np.float64)
    mean, deviation = a.mean(axis=0), a.std(axis=0)
    deviation[deviation < 1e-12] = 1.0
    return (a - mean) / deviation, (b - mean) / deviation


def scores(y: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Accuracy, balanced accuracy, macro F1 and Matthews correlation coefficient (0 for a constant guess)."""
    return {
        "accuracy": float(accuracy_score(y, predicted)),
        "balanced_accuracy": float(balanced_accuracy_score(y, predicted)),
        "f1": float(f1_score(y, predicted, average="macro")),
        "mcc": float(matthews_corrcoef(y, predicted)),
    }


def shuffled_labels(rows: ProbeRows, seed: int) -> np.ndarray:
    """int64 [row]: labels dealt out anew; by whole groups where every group has one label, else by rows."""
    rng = np.random.default_rng(seed)
    names, group = np.unique(rows.groups, return_inverse=True)
    first = np.array([rows.y[group == g][0] for g in range(len(names))])
    if (first[group] == rows.y).all():
        return rng.permutation(first)[group]
    return rng.permutation(rows.y)


def _pooled(table: ClipTable, pool: str) -> Sparse:
    return sparse.csr_array(table.peak if pool == "max" else table.total / np.maximum(table.n_frames, 1)[:, None])


def _predictions(
    x: Sparse, y: np.ndarray, fold: np.ndarray, ks: Sequence[int], progress: Progress
) -> tuple[dict[int, np.ndarray], list[np.ndarray]]:
    """Held-out predictions for every k, int64 [row] each, and the ranking of each fold."""
    predicted = {k: np.empty_like(y) for k in ks}
    rankings = []
    for f in np.unique(fold):
        train, test = np.flatnonzero(fold != f), np.flatnonzero(fold == f)
        order = ranking(x[train], y[train])
        rankings.append(order)
        columns = x.tocsc()[:, order[: max(ks)]].tocsr()
        a, b = scaled(columns[train], columns[test])
        for k in ks:
            constant = len(np.unique(y[train])) < 2
            predicted[k][test] = y[train][0] if constant else fit_probe(a[:, :k], y[train]).predict(b[:, :k])
            progress.advance()
    return predicted, rankings


def _often_first(rankings: Sequence[np.ndarray], ids: Sequence[int] | None, n: int = 10) -> list[int]:
    """Features by their mean rank over the folds, among those that are in the first `n` of one."""
    first = Counter(int(j) for order in rankings for j in order[:n])
    places = {j: float(np.mean([np.flatnonzero(order == j)[0] for order in rankings])) for j in first}
    order = sorted(places, key=lambda j: (places[j], j))[:n]
    return order if ids is None else [int(ids[j]) for j in order]


def _rows(x: Sparse, values: Sequence[str], groups: np.ndarray, unit: str) -> ProbeRows:
    classes, y = np.unique(np.array(values, str), return_inverse=True)
    if len(classes) < 2:
        raise SteerOptionError(f"a probe needs two classes; {len(values)} {unit}s carry {classes.tolist()}")
    return ProbeRows(sparse.csr_array(x), y.astype(np.int64), tuple(classes.tolist()), np.array(groups, str), unit)
