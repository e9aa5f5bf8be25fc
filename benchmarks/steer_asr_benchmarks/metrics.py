"""Metrics of one system in one mode, as plain functions of counts. Rates are fractions; None where nothing was counted.

| key | meaning |
| --- | --- |
| `hallucination_rate.r` ... | non-speech clips with text, by the definitions of `scoring`, over all non-speech clips |
| `words_per_min` | words written in non-speech, per minute of it |
| `wer` | (substitutions + deletions + insertions) / reference words, pooled over clips |
| `missed_speech_rate` | speech clips without a word, over all speech clips |
| `newly_empty_rate` | speech clips without a word where the reference system wrote one, over all speech clips |
| `rtf` | seconds of work over seconds of audio |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from math import fsum
from typing import Any

import numpy as np

from steer_asr_benchmarks.scoring import ClipScore, TextCame, WordCounts
from steer_asr_benchmarks.stats import cluster_interval, wilson

DEFINITIONS = tuple(field.name for field in fields(TextCame))


def nonspeech_metrics(scores: Sequence[ClipScore]) -> dict[str, Any]:
    """Text written over `scores`, clips in which nobody speaks."""
    n, minutes = len(scores), fsum(score.duration_s for score in scores) / 60
    words = sum(score.words for score in scores)
    with_text = {name: sum(getattr(score.came, name) for score in scores) for name in DEFINITIONS}
    return {
        "clips": n,
        "groups": len({score.group for score in scores}),
        "minutes": round(minutes, 3),
        "clips_with_text": with_text["r"],
        "hallucination_rate": {name: ratio(count, n) for name, count in with_text.items()},
        "words": words,
        "words_per_min": ratio(words, minutes),
        "ci": {name: wilson(count, n) for name, count in with_text.items()},
    }


def speech_metrics(scores: Sequence[ClipScore], reference: Mapping[str, ClipScore] | None) -> dict[str, Any]:
    """Word errors and lost clips over `scores`, clips of speech; `reference` is the other system's, by clip."""
    n, missed = len(scores), sum(score.words == 0 for score in scores)
    words = word_metrics([score for score in scores if score.in_headline])
    ci = words.pop("ci") | {"missed_speech_rate": wilson(missed, n)}
    lost: dict[str, Any] = {}
    if reference is not None:
        paired = [(score, reference[score.clip]) for score in scores if score.clip in reference]
        count = sum(ours.words == 0 and theirs.words > 0 for ours, theirs in paired)
        lost = {"newly_empty": count, "newly_empty_rate": ratio(count, len(paired))}
        ci |= {"newly_empty_rate": wilson(count, len(paired))}
    return {
        "clips": n,
        "groups": len({score.group for score in scores}),
        **words,
        "missed": missed,
        "missed_speech_rate": ratio(missed, n),
        **lost,
        "ci": ci,
    }


def word_metrics(scores: Sequence[ClipScore]) -> dict[str, Any]:
    """WER and its parts over those of `scores` that have an exact transcript."""
    counted = [(score, score.wer_counts) for score in scores if score.wer_counts is not None]
    total = sum((counts for _, counts in counted), WordCounts())
    interval = cluster_interval(
        [counts.errors for _, counts in counted],
        [counts.words for _, counts in counted],
        [score.group for score, _ in counted],
    )
    return {
        "wer_clips": len(counted),
        "wer_groups": len({score.group for score, _ in counted}),
        "wer_languages": sorted({score.lang for score, _ in counted}),
        "words": total.words,
        "wer": ratio(total.errors, total.words),
        "substitutions": total.substitutions,
        "deletions": total.deletions,
        "insertions": total.insertions,
        "ci": {"wer": interval},
    }


def cost_metrics(scores: Sequence[ClipScore]) -> dict[str, Any]:
    """Wall-clock time of transcribing one clip after the other, audio already decoded."""
    seconds = [score.seconds for score in scores]
    audio_s, work_s = fsum(score.duration_s for score in scores), fsum(seconds)
    p50, p95 = np.quantile(seconds, [0.5, 0.95]).tolist() if seconds else (None, None)
    return {
        "audio_s": round(audio_s, 3),
        "work_s": round(work_s, 3),
        "rtf": ratio(work_s, audio_s),
        "latency_p50_s": p50,
        "latency_p95_s": p95,
    }


def steering_metrics(scores: Sequence[ClipScore]) -> dict[str, Any] | None:
    """Means of what the steering did, by kind of clip; None for a system that does not steer."""
    steered = [score for score in scores if score.edited_share is not None]
    if not steered:
        return None

    def mean_by_kind(value: Callable[[ClipScore], float | None]) -> dict[str, float | None]:
        kinds = sorted({score.kind for score in steered})
        values = {kind: [v for s in steered if s.kind == kind and (v := value(s)) is not None] for kind in kinds}
        return {kind: ratio(fsum(found), len(found)) for kind, found in values.items()}

    return {
        "edited_share": mean_by_kind(lambda score: score.edited_share),
        "nobody_speaks": mean_by_kind(lambda score: score.nobody_speaks),
    }


def difference_metrics(ours: Mapping[str, ClipScore], theirs: Mapping[str, ClipScore]) -> dict[str, Any]:
    """What changes from one system to another on the same clips: ours minus theirs, whole groups drawn again."""
    pairs = [(ours[clip], theirs[clip]) for clip in ours if clip in theirs]
    quiet = [pair for pair in pairs if pair[0].kind == "nonspeech"]
    read = [
        (a.group, a.wer_counts, b.wer_counts)
        for a, b in pairs
        if a.kind == "speech" and a.in_headline and a.wer_counts is not None and b.wer_counts is not None
    ]
    return {
        "clips": len(pairs),
        "changed_texts": sum(a.text != b.text for a, b in pairs),
        "hallucination_rate_r": _difference(
            [int(a.came.r) - int(b.came.r) for a, b in quiet], [1] * len(quiet), [a.group for a, _ in quiet]
        ),
        "wer": _difference(
            [a.errors - b.errors for _, a, b in read], [a.words for _, a, _ in read], [group for group, _, _ in read]
        ),
    }


def _difference(numerators: list[int], denominators: list[int], groups: list[str]) -> dict[str, Any]:
    return {
        "clips": len(numerators),
        "difference": ratio(sum(numerators), sum(denominators)),
        "ci": cluster_interval(numerators, denominators, groups),
    }


def ratio(above: float, below: float) -> float | None:
    """`above / below`, None when there is nothing below."""
    return above / below if below else None
