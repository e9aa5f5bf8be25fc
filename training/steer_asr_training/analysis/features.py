"""`steer-asr-train features`: what each feature of a dictionary, or of a pack, responds to and does.

    report = feature_report(windows, dictionary, table, effect=effect, sounds=sounds)
    report["features"][0]["description"]

Statistics are of the frames that hear audio. "Fires" is an activation above the feature's threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import sparse

from steer_asr_training.analysis.acoustics import Acoustics
from steer_asr_training.analysis.activations import ClipTable, Sparse
from steer_asr_training.analysis.describe import best_tags, describe
from steer_asr_training.analysis.end_of_text import EndOfText
from steer_asr_training.analysis.inputs import FRAME_S, Dictionary, Windows
from steer_asr_training.analysis.labels import DOMAINS, WindowLabels, all_tags, with_tag
from steer_asr_training.analysis.search import Peaks

FRAME_TAU = (0.2, 0.1, 0.04)
AUDIO_TAU = (0.5, 0.3)
"""AudioSAE's thresholds on how often a feature fires in a domain, to count as specialised in it."""
WHOLE = ("kind", "source")
"""Namespaces of which every tag is listed for a feature; of the others, those it prefers most."""
PREFERRED = 10


@dataclass(frozen=True, eq=False)
class Rates:
    """How often each feature fires within each group of windows: float64 [group, n_features]."""

    names: tuple[str, ...]
    frames: np.ndarray
    """Share of the group's frames."""
    clips: np.ndarray
    """Share of the group's windows in which it fires at all."""

    def of(self, name: str) -> np.ndarray | None:
        """Share of frames, [n_features]; None without such a window."""
        return self.frames[self.names.index(name)] if name in self.names else None


def firing_rates(table: ClipTable, labels: Sequence[WindowLabels]) -> Rates:
    """Rates within all windows, every tag and every domain that there is."""
    groups = {"all": np.ones(len(labels), bool)} | {tag: with_tag(labels, tag) for tag in all_tags(labels)}
    for domain in DOMAINS:
        members = np.array([window.domain == domain for window in labels])
        if members.any():
            groups[f"domain:{domain}"] = members
    membership = np.stack(list(groups.values())).astype(np.float64)
    n_frames, n_clips = membership @ table.n_frames, membership.sum(axis=1)
    chosen: Sparse = sparse.csr_array(membership)
    present: Sparse = (table.peak > 0).astype(np.float64)
    frames = (chosen @ table.frames_fired.astype(np.float64)).toarray() / n_frames[:, None]
    clips = (chosen @ present).toarray() / n_clips[:, None]
    return Rates(tuple(groups), frames, clips)


def top_windows(table: ClipTable, n: int) -> list[list[tuple[int, int, float]]]:
    """Per feature the `n` windows with its highest peaks: (window, frame, activation), the highest first."""
    peaks, at = table.peak.tocsc(), table.peak_frame.tocsc()
    tops = []
    for j in range(table.n_features):
        part = slice(peaks.indptr[j], peaks.indptr[j + 1])
        values, rows, frames = peaks.data[part], peaks.indices[part], at.data[part] - 1
        order = np.lexsort((rows, -values))[:n]
        tops.append([(int(rows[i]), int(frames[i]), float(values[i])) for i in order])
    return tops


def feature_report(
    windows: Windows,
    dictionary: Dictionary,
    table: ClipTable,
    *,
    n_top: int = 5,
    effect: EndOfText | None = None,
    sounds: Sequence[Acoustics | None] | None = None,
    tops: Sequence[Sequence[tuple[int, int, float]]] | None = None,
    phones: Sequence[tuple[str, float] | None] | None = None,
) -> dict[str, Any]:
    """Statistics, top windows, effect and description of every feature, as JSON values; see docs/features.md."""
    rates = firing_rates(table, windows.labels)
    tops = top_windows(table, n_top) if tops is None else tops
    fired, total = table.frames_fired.sum(axis=0), table.total.sum(axis=0)
    mean = total / np.maximum(fired, 1)
    peak = table.peak.max(axis=0).toarray()
    tags = best_tags(Peaks.of(table), windows.labels)
    rows = []
    for j, feature in enumerate(dictionary.ids):
        heard = None if sounds is None else sounds[j]
        phone = None if phones is None else phones[j]
        row = {
            "feature": feature,
            "fires": {name: _rate(rates, name, j) for name in ("all", "kind:speech", "kind:nonspeech")},
            "mean_when_firing": float(mean[j]) if fired[j] else None,
            "max": float(peak[j]) if fired[j] else None,
            "end_of_text": None if effect is None else _effect(effect, j, mean[j]),
            "edits": _edits(dictionary, feature),
            "description": describe(j, rates.frames, rates.names, tags, heard, phone),
            "phone": None if phone is None else {"phone": phone[0], "share": phone[1]},
            "top": [_top(windows, *top) for top in tops[j]],
            "frame_rates": _listed(rates, j),
            "best_labels": tags.of(j),
            "acoustics": asdict(heard) if heard else None,
        }
        rows.append(row)
    return {
        "dictionary": dictionary.name,
        "hook_point": dictionary.hook_point,
        "windows": len(windows),
        "frames": int(table.n_frames.sum()),
        "alive": int((fired > 0).sum()),
        "end_of_text_windows": None if effect is None else effect.n_windows,
        "audio_heard": sounds is not None,
        "phones_known": phones is not None,
        "specialised": specialised(rates),
        "features": rows,
    }


def specialised(rates: Rates) -> dict[str, Any]:
    """How many features fire more often than tau in one domain and in no other, by domain; None without the domain.

    After AudioSAE, section on domain specialisation, which does not say what it does with features of two domains.
    """
    found: dict[str, Any] = {}
    for level, array, taus in (("frames", rates.frames, FRAME_TAU), ("clips", rates.clips, AUDIO_TAU)):
        rows = {d: array[rates.names.index(f"domain:{d}")] for d in DOMAINS if f"domain:{d}" in rates.names}
        for tau in taus:
            over = {domain: row > tau for domain, row in rows.items()}
            several = sum(mask.astype(int) for mask in over.values()) if over else 0
            found[f"{level}>{tau:g}"] = {
                domain: int((over[domain] & (several == 1)).sum()) if domain in over else None for domain in DOMAINS
            }
    return found


def _rate(rates: Rates, name: str, j: int) -> float | None:
    row = rates.of(name)
    return None if row is None else float(row[j])


def _listed(rates: Rates, j: int) -> dict[str, float]:
    """Share of frames on every kind, source and domain, and on the labels and categories that the feature prefers."""
    listed, others = {}, []
    for name, rate in zip(rates.names, rates.frames[:, j], strict=True):
        if name.partition(":")[0] in (*WHOLE, "domain"):
            listed[name] = round(float(rate), 6)
        elif name != "all" and rate > 0:
            others.append((name, float(rate)))
    others.sort(key=lambda pair: (-pair[1], pair[0]))
    return listed | {name: round(rate, 6) for name, rate in others[:PREFERRED]}


def _effect(effect: EndOfText, j: int, mean: float) -> dict[str, float]:
    per_unit = float(effect.mean[j])
    return {
        "per_unit": per_unit,
        "standard_error": float(effect.standard_error[j]),
        "per_mean_activation": per_unit * float(mean),
    }


def _edits(dictionary: Dictionary, feature: int) -> list[dict[str, Any]] | None:
    if dictionary.pack is None:
        return None
    return [{"op": e.op, "value": e.value} for e in dictionary.pack.edits if e.feature == feature]


def _top(windows: Windows, i: int, frame: int, activation: float) -> dict[str, Any]:
    labels = sorted(tag for tag in windows.labels[i].tags if not tag.startswith(("kind:", "source:")))
    return {
        "window": i,
        "time_s": round(frame * FRAME_S, 2),
        "activation": activation,
        "kind": windows.labels[i].kind,
        "labels": labels,
        "from": windows.describe(i),
    }
