"""What a system wrote, in its own words: the strings it writes most when nobody speaks, and its worst clips."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from steer_asr_benchmarks.scoring import ClipScore, WordCounts

TOP = 20
WORST = 10
MAX_CHARACTERS = 300
"""Longer texts are cut off here; predictions.jsonl has them whole."""


def top_strings(scores: Sequence[ClipScore]) -> list[dict[str, Any]]:
    """The most frequent texts on non-speech, normalised, with the number of clips; at most 20."""
    texts = Counter(score.normalized for score in scores if score.kind == "nonspeech" and score.words)
    ranked = sorted(texts.items(), key=lambda item: (-item[1], item[0]))
    return [{"text": _cut(text), "clips": count} for text, count in ranked[:TOP]]


def worst_clips(scores: Sequence[ClipScore], reference: Mapping[str, ClipScore] | None) -> dict[str, Any]:
    """Non-speech with the most words; speech with the most errors, more than the other system makes if there is one."""
    quiet = [score for score in scores if score.kind == "nonspeech" and score.words]
    read = [(_excess(score, reference), score) for score in scores if score.kind != "nonspeech" and score.in_headline]
    return {
        "nonspeech": [
            {"clip": score.clip, "source": score.source, "words": score.words, "text": _cut(score.text)}
            for score in sorted(quiet, key=lambda score: (-score.words, score.clip))[:WORST]
        ],
        "speech": [
            {
                "clip": score.clip,
                "source": score.source,
                "excess_errors": excess,
                "reference": _cut(score.reference),
                "text": _cut(score.text),
            }
            for excess, score in sorted(read, key=lambda pair: (-pair[0], pair[1].clip))[:WORST]
            if excess > 0
        ],
    }


def _excess(score: ClipScore, reference: Mapping[str, ClipScore] | None) -> int:
    other = reference.get(score.clip) if reference else None
    return _errors(score) - (_errors(other) if other else 0)


def _errors(score: ClipScore) -> int:
    return (score.wer_counts or score.cer_counts or WordCounts()).errors


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else text[: MAX_CHARACTERS - 1] + "\N{HORIZONTAL ELLIPSIS}"
