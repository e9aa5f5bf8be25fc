"""What changes from one system to another on the same clips, as plain functions of pairs of scores.

Intervals of differences draw whole groups again, as the report's do; p is McNemar's exact test on the clips that only
one side has text in, or misses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import fsum
from typing import Any

from steer_asr_benchmarks.metrics import DEFINITIONS, ratio
from steer_asr_benchmarks.scoring import ClipScore
from steer_asr_benchmarks.stats import cluster_interval, mcnemar, wilson

Pair = tuple[ClipScore, ClipScore]
"""One clip's scores: in A, in B."""


def compare_scores(
    a: Mapping[str, ClipScore], b: Mapping[str, ClipScore], same: Iterable[str], *, timed: bool = True
) -> dict[str, Any]:
    """What changes from one system to another in one mode, over those of the clips `same` that both have."""
    both = sorted(a.keys() & b.keys() & set(same))
    pairs = [(a[clip], b[clip]) for clip in both]
    quiet = [pair for pair in pairs if pair[1].kind == "nonspeech"]
    speech = [pair for pair in pairs if pair[1].kind == "speech"]
    return {
        "clips": {
            "both": len(both),
            "only_a": len(a.keys() - b.keys()),
            "only_b": len(b.keys() - a.keys()),
            "described_differently": len(a.keys() & b.keys()) - len(both),
        },
        "changed_texts": sum(one.text != other.text for one, other in pairs),
        "nonspeech": {
            "minutes": fsum(one.duration_s for _, one in quiet) / 60,
            "hallucination_rate": {name: _clips_with(_all_known(quiet, name), _came(name)) for name in DEFINITIONS},
            "words_per_min": _change(quiet, lambda score: score.words, lambda score: score.duration_s / 60),
        },
        "speech": {
            "wer": _wer(speech),
            "missed_speech_rate": _clips_with(speech, lambda score: score.words == 0),
            "newly_empty": _newly_empty(speech),
        },
        "rtf": _rtf(pairs if timed else []),
    }


def _change(
    pairs: Sequence[Pair], above: Callable[[ClipScore], float], below: Callable[[ClipScore], float]
) -> dict[str, Any]:
    """A pooled ratio on both sides and its difference; `below` is the same on both."""
    a, b = [above(one) for one, _ in pairs], [above(other) for _, other in pairs]
    denominators, groups = [below(other) for _, other in pairs], [other.group for _, other in pairs]
    changes = [after - before for before, after in zip(a, b, strict=True)]
    total = fsum(denominators)
    return {
        "a": ratio(fsum(a), total),
        "b": ratio(fsum(b), total),
        "difference": ratio(fsum(changes), total),
        "ci": cluster_interval(changes, denominators, groups),
        "clips": len(pairs),
        "groups": len(set(groups)),
    }


def _clips_with(pairs: Sequence[Pair], counts: Callable[[ClipScore], bool]) -> dict[str, Any]:
    """The share of clips that count, on both sides, and whether the clips that changed sides say anything."""
    only_a = sum(counts(a) and not counts(b) for a, b in pairs)
    only_b = sum(counts(b) and not counts(a) for a, b in pairs)
    return _change(pairs, lambda score: int(counts(score)), lambda _: 1) | {
        "only_a": only_a,
        "only_b": only_b,
        "p": mcnemar(only_a, only_b) if pairs else None,
    }


def _came(definition: str) -> Callable[[ClipScore], bool]:
    return lambda score: getattr(score.came, definition)


def _all_known(pairs: Sequence[Pair], definition: str) -> Sequence[Pair]:
    """The pairs, or none of them when one side has a clip on which it did not tell what the definition asks for."""
    return pairs if all(getattr(score.came, definition) is not None for pair in pairs for score in pair) else []


def _wer(speech: Sequence[Pair]) -> dict[str, Any]:
    """Over clips that have a say in WER on both sides, with the same reference words."""

    def words(score: ClipScore) -> int:
        return score.wer_counts.words if score.in_headline and score.wer_counts else 0

    def errors(score: ClipScore) -> int:
        return score.wer_counts.errors if score.wer_counts else 0

    read = [(a, b) for a, b in speech if words(a) == words(b) > 0]
    return _change(read, errors, words) | {"words": sum(words(b) for _, b in read)}


def _newly_empty(speech: Sequence[Pair]) -> dict[str, Any]:
    """Speech clips in which A wrote a word and B none."""
    n, count = len(speech), sum(a.words > 0 and b.words == 0 for a, b in speech)
    return {"count": count, "rate": ratio(count, n), "ci": wilson(count, n), "clips": n}


def _rtf(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Seconds of work over seconds of audio, and B's over A's."""
    audio_s = fsum(b.duration_s for _, b in pairs)
    a_s, b_s = fsum(a.seconds for a, _ in pairs), fsum(b.seconds for _, b in pairs)
    return {"a": ratio(a_s, audio_s), "b": ratio(b_s, audio_s), "ratio": ratio(b_s, a_s)}
