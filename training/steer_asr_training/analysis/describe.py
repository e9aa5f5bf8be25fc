"""A line of plain words per feature, from the labels that it goes with and the sound of its strongest moments.

    tags = best_tags(Peaks.of(table), labels)
    describe(40, rates, names, tags, None)      # "fires on 2.1 % of frames, almost only on non-speech; rain (F1 0.81)"

No model writes these: each part is a statistic with a threshold, and the statistic stands beside it in the report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from steer_asr_training.analysis.acoustics import Acoustics
from steer_asr_training.analysis.labels import WindowLabels, all_tags, with_tag
from steer_asr_training.analysis.search import Peaks, best_thresholds, halves, scores_at

N_BEST = 3
NAMED_F1 = 0.5
"""AudioSAE names a feature after a label from this F1 on."""
NAMED_GROUPS = 8
"""Labels of fewer recordings fit too many features by chance to name one after."""
NAMED_LIFT = 3.0
"""A category in which the feature fires so many times as often as on average is worth a word."""
ALMOST_ONLY, MOSTLY = 0.95, 0.8


@dataclass(frozen=True, eq=False)
class BestTags:
    """The tags that each feature tells best: arrays [N_BEST, n_features], the best first."""

    names: tuple[str, ...]
    index: np.ndarray
    """Into `names`; -1 for none."""
    f1: np.ndarray
    """On recordings that the choice did not see."""
    always: np.ndarray
    """F1 of calling every window positive."""

    def of(self, j: int) -> list[dict[str, Any]]:
        """As JSON values."""
        return [
            {"label": self.names[self.index[r, j]], "f1": float(self.f1[r, j]), "always": float(self.always[r, j])}
            for r in range(len(self.index))
            if self.index[r, j] >= 0
        ]


def best_tags(peaks: Peaks, labels: Sequence[WindowLabels]) -> BestTags:
    """Ranks tags by how much of the way from "always" to a perfect F1 the feature goes, on the half that chooses.

    A rare label with F1 0.6 says more than "speech" with the 0.7 that calling everything speech has. Ties go to the
    more frequent tag.
    """
    names, gains, held_f1, always = [], [], [], []
    for tag in all_tags(labels):
        positive = with_tag(labels, tag)
        held = halves(labels, positive, NAMED_GROUPS)
        if held is None:
            continue
        f1, threshold = best_thresholds(peaks, positive, ~held)
        base = _f1_of_always(positive[~held])
        names.append(tag)
        gains.append(((f1 - base) / max(1e-9, 1 - base)).astype(np.float32))
        held_f1.append(scores_at(peaks, threshold, positive, held)[2].astype(np.float32))
        always.append(_f1_of_always(positive[held]))
    n = min(N_BEST, len(names))
    if not n:
        return BestTags((), *(np.zeros((0, peaks.n_features), dtype) for dtype in (np.int64, np.float32, np.float32)))
    gain = np.stack(gains)
    order = np.argsort(-gain, axis=0, kind="stable")[:n]
    useful = np.take_along_axis(gain, order, axis=0) > 0
    f1 = np.take_along_axis(np.stack(held_f1), order, axis=0)
    return BestTags(tuple(names), np.where(useful, order, -1), f1, np.array(always)[order])


def describe(
    j: int,
    rates: np.ndarray,
    names: Sequence[str],
    tags: BestTags,
    sounds: Acoustics | None,
    phone: tuple[str, float] | None = None,
) -> str:
    """One line on feature `j`; `rates` are shares of frames, [group, n_features], of the groups in `names`.

    `phone` is the phone that the feature carries, and on which share of its frames (`phones_of_features`).
    """
    rate = dict(zip(names, rates[:, j].tolist(), strict=True))
    if not rate["all"]:
        return "never fires here"
    parts = [f"fires on {_percent(rate['all'])} of frames{_side(rate)}"]
    named = [best for best in tags.of(j) if best["f1"] >= NAMED_F1 and best["f1"] > best["always"]]
    named = [best for best in named if not best["label"].startswith("kind:")]
    parts += [f"{_bare(best['label'])} (F1 {best['f1']:.2f})" for best in named[:2]]
    if phone is not None:
        parts.append(f"phone {phone[0]} on {100 * phone[1]:.0f} % of its aligned frames")
    if not named and phone is None and (found := _preferred(rate)):
        parts.append(found)
    if sounds is not None and sounds.words:
        parts.append(", ".join(sounds.words))
    return "; ".join(parts)


def _side(rate: dict[str, float]) -> str:
    speech, quiet = rate.get("kind:speech"), rate.get("kind:nonspeech")
    if speech is None or quiet is None or not speech + quiet:
        return ""
    share = speech / (speech + quiet)
    side = "speech" if share >= 0.5 else "non-speech"
    share = max(share, 1 - share)
    if share < MOSTLY:
        return ", speech or not"
    return f", {'almost only' if share >= ALMOST_ONLY else 'mostly'} on {side}"


def _preferred(rate: dict[str, float]) -> str:
    """The category or generator in which it fires most often for its average; single labels are too few windows."""
    lifts = [
        (value / rate["all"], name)
        for name, value in rate.items()
        if name.startswith(("category:", "generator:")) and value >= NAMED_LIFT * rate["all"]
    ]
    if not lifts:
        return ""
    lift, name = max(lifts, key=lambda pair: (pair[0], pair[1]))
    return f"{lift:.0f} times as often in {_bare(name)}"


def _bare(tag: str) -> str:
    namespace, _, name = tag.partition(":")
    return name if namespace == "label" else f"{namespace} {name}"


def _f1_of_always(positive: np.ndarray) -> float:
    share = float(positive.mean())
    return 2 * share / (1 + share)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.001 else "under 0.1 %"
