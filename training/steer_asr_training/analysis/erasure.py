"""`steer-asr-train erase`: how many features have to go before a concept cannot be told any more, and what else goes.

    report = erasure_report(rows, target="AA")
    report["variants"]["none"]["curve"]                 # MCC of the target and of the others, by features removed

AudioSAE (arXiv 2602.05027, section on concept erasure): vowels, one against the rest; features are ranked by Fisher
score for one vowel and removed in that order; a probe is fitted anew on what is left. The paper needs 19 % of the
features to erase "A", while the others keep an MCC above 0.75 up to 27 %; with L2-regularised probes 3 to 6 %, and one
or two features put back restore high accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np

from steer_asr._progress import Progress
from steer_asr.errors import SteerOptionError, unknown_name
from steer_asr_training.analysis.activations import Sparse
from steer_asr_training.analysis.aligned import grouped_folds
from steer_asr_training.analysis.probes import ProbeRows, fit_probe, ranking, scaled, scores

SHARES = (0.0, 0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.13, 0.16, 0.19, 0.23, 0.27, 0.35, 0.5, 0.7, 0.9)
"""Shares of the dictionary that are removed."""
PENALTIES: tuple[float | None, ...] = (None, 1.0, 0.01)
"""Inverse strength of the probes' L2; None is no penalty. The paper does not state the strength of its variants."""
ERASED_MCC = 0.1
"""A target below this is erased. The paper draws the curve and states no limit."""
KEPT_MCC = 0.75
"""Others above this are kept (AudioSAE)."""
PUT_BACK = (1, 2)


@dataclass(frozen=True, eq=False)
class _Fold:
    """One split: dense scaled activations, columns in the order of the target's ranking."""

    train: np.ndarray
    test: np.ndarray
    held: np.ndarray
    """bool [row]."""
    order: np.ndarray
    """Columns of the dictionary, those that tell the target best first."""


def erasure_report(
    rows: ProbeRows,
    target: str,
    *,
    removed: Sequence[int] | None = None,
    penalties: Sequence[float | None] = PENALTIES,
    n_folds: int = 3,
    ids: Sequence[int] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Curves of MCC against features removed, for every strength of regularisation, as JSON values.

    Each class is told from all others by its own probe, fitted anew after each removal on speakers that it is not
    measured on. Features are ranked for the target on the fitting speakers. Features that never fire are ranked last
    and are counted in the dictionary, as in the paper.

    Raises `SteerOptionError` for an unknown target, or removals that are out of order or more than there are.
    """
    if target not in rows.classes:
        raise SteerOptionError(unknown_name("class", target, rows.classes))
    n = rows.x.shape[1]
    steps = sorted({round(share * n) for share in SHARES}) if removed is None else list(removed)
    if not steps or steps != sorted(set(steps)) or steps[0] < 0 or steps[-1] >= n:
        raise SteerOptionError(f"features removed {steps}: give rising numbers from 0 to {n - 1}")
    if not penalties or any(c is not None and c <= 0 for c in penalties):
        raise SteerOptionError(f"L2 strengths {list(penalties)}: give positive numbers, or none for no penalty")
    folds = _folds(rows, rows.classes.index(target), n_folds, seed)
    variants = {}
    total = len(penalties) * len(steps) * len(rows.classes) * n_folds
    with Progress(total=total, unit="probe", label=f"erase {target}") as progress:
        for c in penalties:
            curve = [_point(rows, target, folds, np.arange(step, n), c, progress) | {"removed": step} for step in steps]
            variants[_penalty_name(c)] = _summary(rows, target, folds, curve, c)
    first = [order if ids is None else np.array(ids)[order] for order in (fold.order[:10] for fold in folds)]
    return {
        "target": target,
        "unit": rows.unit,
        "rows": len(rows.y),
        "groups": len(set(rows.groups)),
        "folds": n_folds,
        "n_features": n,
        "fire": int((abs(rows.x).sum(axis=0) > 0).sum()),
        "classes": {name: int((rows.y == k).sum()) for k, name in enumerate(rows.classes)},
        "erased_below": ERASED_MCC,
        "kept_above": KEPT_MCC,
        "first_removed": [int(j) for j in first[0]],
        "variants": variants,
    }


def _folds(rows: ProbeRows, target: int, n_folds: int, seed: int) -> list[_Fold]:
    fold = grouped_folds(rows.y, rows.groups, n_folds, seed)
    made = []
    for f in range(n_folds):
        held = fold == f
        order = ranking(rows.x[np.flatnonzero(~held)], (rows.y[~held] == target).astype(np.int64))
        ordered: Sparse = rows.x.tocsc()[:, order].tocsr()
        train, test = scaled(ordered[np.flatnonzero(~held)], ordered[np.flatnonzero(held)])
        made.append(_Fold(train, test, held, order))
    return made


def _point(
    rows: ProbeRows, target: str, folds: Sequence[_Fold], kept: np.ndarray, c: float | None, progress: Progress | None
) -> dict[str, Any]:
    """MCC of every class with the features at places `kept` of the target's ranking."""
    mcc = {}
    for k, name in enumerate(rows.classes):
        predicted = np.zeros(len(rows.y), np.int64)
        for fold in folds:
            y = (rows.y[~fold.held] == k).astype(np.int64)
            predicted[fold.held] = _predict(fold, kept, y, c)
            if progress is not None:
                progress.advance()
        mcc[name] = scores((rows.y == k).astype(np.int64), predicted)["mcc"]
    others = [value for name, value in mcc.items() if name != target]
    return {
        "target_mcc": mcc[target],
        "others_mean_mcc": float(np.mean(others)),
        "others_min_mcc": float(np.min(others)),
        "mcc": mcc,
    }


def _predict(fold: _Fold, kept: np.ndarray, y: np.ndarray, c: float | None) -> np.ndarray:
    kept = kept[fold.train[:, kept].any(axis=0)]
    if not len(kept) or len(np.unique(y)) < 2:
        return np.full(len(fold.test), np.bincount(y).argmax())
    return np.asarray(fit_probe(fold.train[:, kept], y, c=c).predict(fold.test[:, kept]))


def _summary(
    rows: ProbeRows, target: str, folds: Sequence[_Fold], curve: list[dict[str, Any]], c: float | None
) -> dict[str, Any]:
    """Where the target is gone and the others begin to go, and what one or two features put back restore."""
    n = rows.x.shape[1]
    told = curve[0]["target_mcc"] >= ERASED_MCC
    gone: int | None = next((point["removed"] for point in curve if told and point["target_mcc"] < ERASED_MCC), None)
    back = {}
    if gone is not None:
        for n_back in PUT_BACK:
            places = np.concatenate([np.arange(min(n_back, gone)), np.arange(gone, n)])
            back[str(n_back)] = _point(rows, target, folds, places, c, None)["target_mcc"]
    return {
        "erased_at": gone,
        "erased_at_share": None if gone is None else gone / n,
        "target_told_at_first": told,
        "all_others_kept_until": _kept_until(curve, "others_min_mcc"),
        "others_kept_on_average_until": _kept_until(curve, "others_mean_mcc"),
        "others_mean_mcc_when_erased": next((p["others_mean_mcc"] for p in curve if p["removed"] == gone), None),
        "target_mcc_after_putting_back": back,
        "curve": curve,
    }


def _kept_until(curve: Sequence[dict[str, Any]], key: str) -> int | None:
    """The most features removed while the others were kept all the way; None when they never were."""
    kept = list(takewhile(lambda point: point[key] > KEPT_MCC, curve))
    return kept[-1]["removed"] if kept else None


def _penalty_name(c: float | None) -> str:
    return "none" if c is None else f"l2, C {c:g}"
