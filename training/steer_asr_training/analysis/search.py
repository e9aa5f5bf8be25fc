"""`steer-asr-train search`: the features that tell best which windows carry a label.

    report = search_label(table, labels, "label:rain")
    report["best"][0]["feature"], report["best"][0]["f1"]

AudioSAE's label search (arXiv 2602.05027): a window is called positive when a feature's largest activation in it
reaches a threshold, and features are ranked by F1. Here the threshold and the ranking come from one half of the
recordings, and the F1 that is reported from the other: the best of thousands of features looks good by chance.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from steer_asr_training.analysis.activations import ClipTable
from steer_asr_training.analysis.labels import WindowLabels, with_tag

MIN_GROUPS = 4
"""Recordings with the label, and without it, that there have to be: two in each half."""


@dataclass(frozen=True, eq=False)
class Peaks:
    """The peaks of every feature in descending order, features one after the other: arrays [firing window]."""

    feature: np.ndarray
    window: np.ndarray
    value: np.ndarray
    n_features: int

    @classmethod
    def of(cls, table: ClipTable) -> Peaks:
        peak = table.peak.tocoo()
        window, feature = peak.coords
        order = np.lexsort((window, -peak.data, feature))
        return cls(feature[order], window[order], peak.data[order], table.n_features)


def search_label(
    peaks: Peaks, labels: Sequence[WindowLabels], tag: str, *, n_best: int = 10, ids: Sequence[int] | None = None
) -> dict[str, Any]:
    """The `n_best` features for a tag, as JSON values. `best` is None when too few recordings have, or lack, it.

    `ids` names the features, one per column. `f1_of_always` is what calling every window positive would reach.
    """
    positive = with_tag(labels, tag)
    half = halves(labels, positive)
    report: dict[str, Any] = {"label": tag, "windows": int(positive.sum()), "of": len(labels), "best": None}
    if half is None:
        return report
    chosen, held = ~half, half
    f1, threshold = best_thresholds(peaks, positive, chosen)
    order = np.argsort(-f1, kind="stable")[:n_best]
    order = order[f1[order] > 0]
    precision, recall, held_f1 = scores_at(peaks, threshold, positive, held)
    share = positive[held].mean()
    report["f1_of_always"] = float(2 * share / (1 + share))
    report["best"] = [
        {
            "feature": int(ids[j]) if ids is not None else int(j),
            "f1": float(held_f1[j]),
            "precision": float(precision[j]),
            "recall": float(recall[j]),
            "f1_where_chosen": float(f1[j]),
            "threshold": float(threshold[j]),
        }
        for j in order
    ]
    return report


def halves(labels: Sequence[WindowLabels], positive: np.ndarray, min_groups: int = MIN_GROUPS) -> np.ndarray | None:
    """bool [window]: the half that is held out. Whole recordings (groups), those with the label dealt out evenly.

    The order is that of a hash of the groups' names, so the same data are parted the same way. None when the label is
    in fewer than `min_groups` groups, or lacking in fewer.
    """
    has: dict[str, bool] = {}
    for window, carries in zip(labels, positive, strict=True):
        has[window.group] = has.get(window.group, False) or bool(carries)
    dealt: dict[str, bool] = {}
    for sort in (True, False):
        groups = sorted((group for group in has if has[group] is sort), key=_digest)
        if len(groups) < min_groups:
            return None
        dealt |= {group: n % 2 == 1 for n, group in enumerate(groups)}
    return np.array([dealt[window.group] for window in labels], bool)


def best_thresholds(peaks: Peaks, positive: np.ndarray, within: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(best F1, its threshold) of every feature on the windows `within`: float64 [n_features] each.

    A threshold lies halfway between the last peak that counts and the next one below it, or 0. A feature that fires
    in none of these windows has F1 0 and an infinite threshold.
    """
    f1, threshold = np.zeros(peaks.n_features), np.full(peaks.n_features, np.inf)
    kept = within[peaks.window]
    feature, value = peaks.feature[kept], peaks.value[kept].astype(np.float64)
    if not len(feature):
        return f1, threshold
    start = np.searchsorted(feature, feature)
    hits = np.cumsum(positive[peaks.window[kept]])
    hits = hits - np.where(start > 0, hits[start - 1], 0)
    called = np.arange(len(feature)) - start + 1
    scores = 2 * hits / (called + positive[within].sum())
    last = np.append(feature[1:] != feature[:-1], True)
    below = np.where(last, 0.0, np.append(value[1:], 0.0))
    scores = np.where(below == value, -1.0, scores)  # windows with equal peaks are called together
    present, first = np.unique(feature, return_index=True)
    f1[present] = np.maximum.reduceat(scores, first)
    is_best = scores == f1[feature]
    at = np.minimum.reduceat(np.where(is_best, np.arange(len(feature)), len(feature)), first)
    threshold[present] = (value[at] + below[at]) / 2
    return f1, threshold


def scores_at(
    peaks: Peaks, threshold: np.ndarray, positive: np.ndarray, within: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(precision, recall, F1) of every feature at its threshold on the windows `within`; 0 where nothing is called."""
    called = within[peaks.window] & (peaks.value >= threshold[peaks.feature])
    n_called = np.bincount(peaks.feature[called], minlength=peaks.n_features)
    hits = np.bincount(peaks.feature[called], weights=positive[peaks.window[called]], minlength=peaks.n_features)
    n_positive = int(positive[within].sum())
    return (
        hits / np.maximum(n_called, 1),
        hits / max(n_positive, 1),
        2 * hits / np.maximum(n_called + n_positive, 1),
    )


def _digest(group: str) -> str:
    return hashlib.sha256(group.encode()).hexdigest()
