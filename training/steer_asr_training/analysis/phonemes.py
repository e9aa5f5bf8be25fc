"""`steer-asr-train phonemes`: which features stand for which phone, and how many phones have one.

    report = phoneme_report(aligned)
    report["mean_f1"], report["any_feature"]["held_out"]["spoken"]

Two measures. The paper's (AudioSAE, arXiv 2602.05027, section on phonemes: 0.92 for Whisper-small, 0.89 for HuBERT, at
layer 12): a feature carries the phone that holds on more than half of the frames on which it fires; a frame is right
when any feature that fires on it carries its phone. It is lenient: dozens fire on a frame, and one is enough. The
plain one: the best single feature of each phone, by F1 and by correlation, chosen on some speakers and measured on the
others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from steer_asr._progress import Progress
from steer_asr_training.analysis.activations import Sparse
from steer_asr_training.analysis.aligned import SILENCE, AlignedFrames, grouped_folds
from steer_asr_training.analysis.search import Peaks, best_thresholds

CARRIES_OVER = 0.5
"""Share of a feature's active frames that a phone has to hold on more than, for the feature to carry it (AudioSAE)."""
MIN_FRAMES = 20
"""Frames of a phone that there have to be in each half."""


@dataclass(frozen=True, eq=False)
class PhoneFrames:
    """Frames of known phone, of some speakers."""

    z: Sparse
    """float32 csr [frame, n_features]."""
    phone: np.ndarray
    """int64 [frame]."""

    def indicator(self, n_phones: int) -> Sparse:
        """float64 csr [phone, frame]: 1 where the phone is said."""
        frames = np.arange(len(self.phone))
        return sparse.csr_array((np.ones(len(frames)), (self.phone, frames)), shape=(n_phones, len(frames)))


def phoneme_report(aligned: AlignedFrames, *, ids: Sequence[int] | None = None, seed: int = 0) -> dict[str, Any]:
    """Both measures, each with a control, and the best features of every phone, as JSON values; see docs/features.md.

    Half of the speakers choose, the other half is measured. The control has the phones of half a window away in place
    of the right ones: what base rates and ever-firing features explain. `ids` names the features, one per column.

    Raises `SteerOptionError` for fewer than two speakers.
    """
    held = grouped_folds(np.zeros(aligned.n_frames), aligned.frame_groups, 2, seed) == 1
    names = aligned.names
    chosen_at, held_at = (part & (aligned.phone >= 0) for part in (~held, held))
    away = shifted_phones(aligned)
    chosen, measured = _part(aligned, aligned.phone, chosen_at), _part(aligned, aligned.phone, held_at)
    rows = best_of_phones(names, chosen, measured, ids)
    control = best_of_phones(names, _part(aligned, away, chosen_at), _part(aligned, away, held_at), ids)
    everything = _part(aligned, aligned.phone, aligned.phone >= 0)
    carried, in_sample = carried_phones(chosen, len(names)), carried_phones(everything, len(names))
    silence = names.index(SILENCE) if SILENCE in names else -1
    return {
        "windows": len(aligned.groups),
        "frames": int((aligned.phone >= 0).sum()),
        "frames_measured": int(held_at.sum()),
        "speakers": len(set(aligned.groups)),
        "speakers_measured": len(set(aligned.frame_groups[held])),
        "phones": [row["phone"] for row in rows],
        "left_out": sorted(set(names) - {row["phone"] for row in rows}),
        "any_feature": {
            "as_published": any_feature(in_sample, everything, silence),
            "held_out": any_feature(carried, measured, silence),
            "control": any_feature(
                carried_phones(_part(aligned, away, chosen_at), len(names)), _part(aligned, away, held_at), silence
            ),
            "features_that_carry": int((carried >= 0).sum()),
        },
        "mean_f1": _mean(rows, "f1"),
        "mean_correlation": _mean(rows, "correlation"),
        "control_mean_f1": _mean(control, "f1"),
        "control_mean_correlation": _mean(control, "correlation"),
        "by_phone": [row | {"features_that_carry": int((carried == names.index(row["phone"])).sum())} for row in rows],
    }


def carried_phones(frames: PhoneFrames, n_phones: int) -> np.ndarray:
    """int64 [n_features]: the phone that each feature carries, -1 for none."""
    fires: Sparse = (frames.z > 0).astype(np.float64)
    counts = (frames.indicator(n_phones) @ fires).toarray()
    carried = counts.argmax(axis=0)
    return np.where(counts.max(axis=0) > CARRIES_OVER * counts.sum(axis=0), carried, -1)


def phones_of_features(aligned: AlignedFrames) -> list[tuple[str, float] | None]:
    """For each feature the phone that it carries and the share of its firing frames that have it, over all speakers.

    None for a feature that carries none, or silence, or fires on fewer than `MIN_FRAMES` frames of known phone. Nothing
    is held out here: this describes a feature, it does not measure a dictionary.
    """
    everything = _part(aligned, aligned.phone, aligned.phone >= 0)
    fires: Sparse = (everything.z > 0).astype(np.float64)
    counts = (everything.indicator(len(aligned.names)) @ fires).toarray()
    found: list[tuple[str, float] | None] = []
    for total, best, most in zip(counts.sum(axis=0), counts.argmax(axis=0), counts.max(axis=0), strict=True):
        name = aligned.names[best]
        carries = total >= MIN_FRAMES and most > CARRIES_OVER * total and name != SILENCE
        found.append((name, float(most / total)) if carries else None)
    return found


def any_feature(carried: np.ndarray, frames: PhoneFrames, silence: int = -1) -> dict[str, float | None]:
    """The paper's accuracy: share of frames on which any firing feature carries the phone; all frames, and spoken ones.

    `covered`: spoken frames on which any feature fires that carries a phone at all; `where_covered`: the accuracy
    there, which is another reading of the paper. `agreeing` is stricter than both: of all firings of features that
    carry a phone, on spoken frames, the share that carries the right one.
    """
    rows = np.flatnonzero(carried >= 0)
    n_phones = int(max(carried.max(initial=0), frames.phone.max(initial=0))) + 1
    shape = (len(carried), n_phones)
    votes: Sparse = (frames.z > 0).astype(np.float32) @ sparse.csr_array(
        (np.ones(len(rows), np.float32), (rows, carried[rows])), shape=shape
    )
    right = votes.toarray()[np.arange(len(frames.phone)), frames.phone]
    total, spoken = votes.sum(axis=1), frames.phone != silence

    def share(of: np.ndarray) -> float | None:
        return float((right[of] > 0).mean()) if of.any() else None

    n_votes = float(total[spoken].sum())
    return {
        "all": share(np.ones(len(right), bool)),
        "spoken": share(spoken),
        "covered": float((total[spoken] > 0).mean()) if spoken.any() else None,
        "where_covered": share(spoken & (total > 0)),
        "agreeing": float(right[spoken].sum()) / n_votes if n_votes else None,
    }


def best_of_phones(
    names: Sequence[str], chosen: PhoneFrames, measured: PhoneFrames, ids: Sequence[int] | None = None
) -> list[dict[str, Any]]:
    """Per phone with enough frames, the best feature by F1 (with its threshold) and by correlation.

    Both are chosen on `chosen` and measured on `measured`.
    """
    here, there = np.bincount(chosen.phone, minlength=len(names)), np.bincount(measured.phone, minlength=len(names))
    peaks, everywhere = frame_peaks(chosen.z), np.ones(len(chosen.phone), bool)
    correlation = correlations(chosen, len(names))
    columns = measured.z.tocsc()
    held_correlation = correlations(measured, len(names))
    rows = []
    candidates = [p for p in range(len(names)) if min(here[p], there[p]) >= MIN_FRAMES]
    with Progress(total=len(candidates), unit="phone", label="phones") as progress:
        for p in candidates:
            f1, threshold = best_thresholds(peaks, chosen.phone == p, everywhere)
            by_f1, by_r = int(f1.argmax()), int(correlation[p].argmax())
            row = {
                "phone": names[p],
                "frames": int(there[p]),
                "feature": _id(ids, by_f1),
                "threshold": float(threshold[by_f1]) if f1[by_f1] else None,
                **_scores(columns, by_f1, threshold[by_f1], measured.phone == p),
                "f1_where_chosen": float(f1[by_f1]),
                "feature_by_correlation": _id(ids, by_r),
                "correlation": float(held_correlation[p, by_r]),
            }
            rows.append(row)
            progress.advance()
    return rows


def correlations(frames: PhoneFrames, n_phones: int) -> np.ndarray:
    """Pearson correlation of every feature's activation with every phone's indicator: float64 [phone, n_features].

    0 where one of the two does not vary.
    """
    z: Sparse = frames.z.astype(np.float64)
    n = len(frames.phone)
    mean = z.sum(axis=0) / n
    deviation = np.sqrt(np.maximum((z * z).sum(axis=0) / n - mean**2, 0))
    share = np.bincount(frames.phone, minlength=n_phones) / n
    both = (frames.indicator(n_phones) @ z).toarray() / n
    scale = np.sqrt(share * (1 - share))[:, None] * deviation
    return np.divide(both - share[:, None] * mean, scale, out=np.zeros_like(both), where=scale > 1e-12)


def frame_peaks(z: Sparse) -> Peaks:
    """Frames in the place of windows, for `best_thresholds`."""
    coo = z.tocoo()
    frame, feature = coo.coords
    order = np.lexsort((-coo.data, feature))
    return Peaks(feature[order], frame[order], coo.data[order], z.shape[1])


def shifted_phones(aligned: AlignedFrames) -> np.ndarray:
    """int64 [frame]: the phones half a window later, in a circle; -1 stays where it was."""
    away = aligned.phone.copy()
    for start, end in zip(aligned.start[:-1], aligned.start[1:], strict=True):
        known = np.flatnonzero(aligned.phone[start:end] >= 0) + start
        away[known] = np.roll(aligned.phone[known], len(known) // 2)
    return away


def _part(aligned: AlignedFrames, phone: np.ndarray, at: np.ndarray) -> PhoneFrames:
    return PhoneFrames(aligned.z[np.flatnonzero(at)], phone[at])


def _scores(columns: Sparse, feature: int, threshold: float, positive: np.ndarray) -> dict[str, float]:
    part = slice(columns.indptr[feature], columns.indptr[feature + 1])
    called = columns.indices[part][columns.data[part] >= threshold]
    hits = int(positive[called].sum())
    return {
        "f1": 2 * hits / max(1, len(called) + int(positive.sum())),
        "precision": hits / max(1, len(called)),
        "recall": hits / max(1, int(positive.sum())),
    }


def _id(ids: Sequence[int] | None, column: int) -> int:
    return column if ids is None else int(ids[column])


def _mean(rows: Sequence[dict[str, Any]], key: str) -> float | None:
    """Over phones, silence left out."""
    values = [row[key] for row in rows if row["phone"] != SILENCE]
    return float(np.mean(values)) if values else None
