"""`steer-asr-train boundaries`: features that begin to fire where speech begins, or where it ends.

    report = boundary_report(aligned)
    report["start"]["best"][0]["feature"], report["start"]["best"][0]["f1"]

AudioSAE (arXiv 2602.05027) found two in HuBERT, layer 11: 3249 at the beginning of speech, 3081 at its end. Here a
detection is a rising edge: a frame on which a feature exceeds a threshold that it did not exceed on the frame before.
It is right within a tolerance of the event, and each event can be found once: further edges beside it are false.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from steer_asr.errors import SteerOptionError
from steer_asr_training.analysis.activations import Sparse
from steer_asr_training.analysis.aligned import AlignedFrames, grouped_folds
from steer_asr_training.analysis.inputs import FRAME_S

TOLERANCE_S = 0.1
LEVELS = (0.0, 0.5, 0.75, 0.9)
"""Thresholds tried for each feature: these quantiles of its activations where it fires; 0 is its own threshold."""
EDGE_S = 0.1
"""Events closer to an end of the clip are no events: whatever was before, or comes after, was cut off."""
MIN_EVENTS = 4
"""Events that there have to be in each half."""
EVENTS = ("start", "end")


@dataclass(frozen=True, eq=False)
class Timeline:
    """Windows laid end to end, far enough apart that nothing near the end of one is near the beginning of the next."""

    feature: np.ndarray
    frame: np.ndarray
    """Frame on the line, and feature, of each firing: int64 [firing], sorted by feature and then frame."""
    value: np.ndarray
    first: np.ndarray
    """bool [firing]: on the first frame of its window, where no edge can be seen."""
    n_features: int


def boundary_report(
    aligned: AlignedFrames,
    *,
    tolerance_s: float = TOLERANCE_S,
    n_best: int = 10,
    ids: Sequence[int] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """The best detectors of where speech starts and ends, as JSON values; see docs/features.md.

    Features, with their thresholds, are chosen on half of the speakers and measured on the others. The control moves
    all events of a window by half its length, and chooses again. `best` is None where there are too few events.

    Raises `SteerOptionError` for fewer than two speakers, and for a tolerance that is not positive.
    """
    if not 0 < tolerance_s <= 1:
        raise SteerOptionError(f"tolerance {tolerance_s} s: give more than 0 and at most 1")
    fold = grouped_folds(np.zeros(len(aligned.groups)), np.array(aligned.groups), 2, seed)
    chosen, held = (np.flatnonzero(fold == side) for side in (0, 1))
    line = {side: timeline(aligned, windows) for side, windows in (("chosen", chosen), ("held", held))}
    levels = thresholds(line["chosen"])
    report: dict[str, Any] = {
        "windows": len(aligned.groups),
        "speakers": len(set(aligned.groups)),
        "tolerance_s": tolerance_s,
    }
    for kind in EVENTS:
        sides = {"chosen": chosen, "held": held}
        found = {side: event_frames(aligned, windows, kind) for side, windows in sides.items()}
        report[kind] = {"events": len(found["held"]), "events_where_chosen": len(found["chosen"]), "best": None}
        if min(len(found["held"]), len(found["chosen"])) < MIN_EVENTS:
            continue
        best = best_detectors(line["chosen"], line["held"], found["chosen"], found["held"], levels, tolerance_s)
        away = {side: event_frames(aligned, windows, kind, shifted=True) for side, windows in sides.items()}
        control = best_detectors(line["chosen"], line["held"], away["chosen"], away["held"], levels, tolerance_s)
        report[kind]["best"] = [
            row | {"feature": row["feature"] if ids is None else int(ids[row["feature"]])} for row in best[:n_best]
        ]
        report[kind]["control_f1"] = control[0]["f1"] if control else 0.0
    return report


def best_detectors(
    chosen: Timeline,
    held: Timeline,
    events: np.ndarray,
    held_events: np.ndarray,
    levels: np.ndarray,
    tolerance_s: float,
) -> list[dict[str, Any]]:
    """Features by their F1 on `chosen`, the best first and those without a hit left out; the scores are of `held`."""
    f1 = np.stack([edge_scores(chosen, level, events, tolerance_s)[0] for level in levels])
    at = f1.argmax(axis=0)
    best = f1.max(axis=0)
    threshold = levels[at, np.arange(len(at))]
    held_f1, precision, recall, lag = edge_scores(held, threshold, held_events, tolerance_s)
    return [
        {
            "feature": int(j),
            "f1": float(held_f1[j]),
            "precision": float(precision[j]),
            "recall": float(recall[j]),
            "f1_where_chosen": float(best[j]),
            "threshold": float(threshold[j]),
            "lag_s": None if np.isnan(lag[j]) else round(float(lag[j]), 3),
        }
        for j in np.argsort(-best, kind="stable")
        if best[j] > 0
    ]


def edge_scores(
    line: Timeline, threshold: np.ndarray, events: np.ndarray, tolerance_s: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(F1, precision, recall, mean lag in seconds behind the event) of every feature: float64 [n_features] each.

    `events`: float64, sorted, in frames on the line. The lag is that of the hits, NaN without one.
    """
    n = line.n_features
    over = line.value > threshold[line.feature]
    feature, frame, first = line.feature[over], line.frame[over], line.first[over]
    if not len(feature) or not len(events):
        return np.zeros(n), np.zeros(n), np.zeros(n), np.full(n, np.nan)
    follows = np.append(False, (feature[1:] == feature[:-1]) & (frame[1:] == frame[:-1] + 1))
    edge = ~follows & ~first
    feature, frame = feature[edge], frame[edge]
    after = np.searchsorted(events, frame)
    left, right = np.maximum(after - 1, 0), np.minimum(after, len(events) - 1)
    nearest = np.where(np.abs(events[left] - frame) <= np.abs(events[right] - frame), left, right)
    lag = (frame - events[nearest]) * FRAME_S
    near = np.abs(lag) <= tolerance_s + 1e-9
    _, once = np.unique(feature[near] * len(events) + nearest[near], return_index=True)
    n_edges = np.bincount(feature, minlength=n)
    hits = np.bincount(feature[near][once], minlength=n)
    total_lag = np.bincount(feature[near][once], weights=lag[near][once], minlength=n)
    mean_lag = np.divide(total_lag, hits, out=np.full(n, np.nan), where=hits > 0)
    return 2 * hits / (n_edges + len(events)), hits / np.maximum(n_edges, 1), hits / len(events), mean_lag


def timeline(aligned: AlignedFrames, windows: np.ndarray) -> Timeline:
    """What fired on the frames of some windows, those windows end to end."""
    feature, frame, value, first = [], [], [], []
    for i, offset in zip(windows, _offsets(aligned, windows), strict=True):
        z: Sparse = aligned.z[aligned.start[i] : aligned.start[i + 1]].tocoo()
        at, j = z.coords
        feature.append(j.astype(np.int64))
        frame.append(at.astype(np.int64) + offset)
        value.append(z.data)
        first.append(at == 0)
    columns = [np.concatenate(column) for column in (feature, frame, value, first)]
    order = np.lexsort((columns[1], columns[0]))
    feature, frame, value, first = (column[order] for column in columns)
    return Timeline(feature, frame, value, first, aligned.z.shape[1])


def event_frames(aligned: AlignedFrames, windows: np.ndarray, kind: str, *, shifted: bool = False) -> np.ndarray:
    """Starts or ends of speech in some windows, sorted: float64 [event], in frames on their line.

    `shifted` moves them by half a window, in a circle.
    """
    which = EVENTS.index(kind)
    found: list[float] = []
    for i, offset in zip(windows, _offsets(aligned, windows), strict=True):
        length = int(aligned.start[i + 1] - aligned.start[i])
        for stretch in aligned.speech[i]:
            if EDGE_S <= stretch[which] <= length * FRAME_S - EDGE_S:
                frame = (stretch[which] - aligned.centre_s) / FRAME_S
                found.append(offset + ((frame + length / 2) % length if shifted else frame))
    return np.sort(np.array(found, np.float64))


def thresholds(line: Timeline) -> np.ndarray:
    """float64 [level, n_features]: quantiles (`LEVELS`) of each feature's activations where it fires; 0 first."""
    levels = np.zeros((len(LEVELS), line.n_features))
    bounds = np.searchsorted(line.feature, np.arange(line.n_features + 1))
    for j in np.flatnonzero(np.diff(bounds)):
        levels[1:, j] = np.quantile(line.value[bounds[j] : bounds[j + 1]], LEVELS[1:])
    return levels


def _offsets(aligned: AlignedFrames, windows: np.ndarray) -> np.ndarray:
    """Where each window begins on the line: 2 s after the end of the one before."""
    lengths = np.diff(aligned.start)[windows] + round(2 / FRAME_S)
    return np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
