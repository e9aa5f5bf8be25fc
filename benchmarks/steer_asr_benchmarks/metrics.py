"""Metrics of one system in one mode, as plain functions of counts. Rates are fractions; None where nothing was counted.

| key | meaning |
| --- | --- |
| `hallucination_rate.r` ... | non-speech clips with text, by the definitions of `scoring`, over all non-speech clips |
| `words_per_min` | words written in non-speech, per minute of it |
| `loop_rate` | clips whose text repeats a phrase several times in a row (`loops`), over all clips of the kind |
| `wer` | (substitutions + deletions + insertions) / reference words, pooled over clips |
| `cer` | the same in characters, for languages written without spaces, which have no say in `wer` |
| `missed_speech_rate` | speech clips without a word, over all speech clips |
| `newly_empty_rate` | speech clips without a word where the reference system wrote one, over all speech clips |
| `words_outside_per_min` | in mixed recordings: words written where nobody speaks, per minute of that (`mixed`) |
| `c_kappa` | words per minute on non-speech + kappa * deleted words per minute on speech (arXiv 2608.15940) |
| `rtf`, `rtfx` | seconds of work over seconds of audio, and its inverse |
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from math import fsum
from typing import Any

import numpy as np

from steer_asr_benchmarks.scoring import ClipScore, TextCame, WordCounts
from steer_asr_benchmarks.stats import cluster_interval, mcnemar, wilson

DEFINITIONS = tuple(field.name for field in fields(TextCame))
KAPPAS = (1, 2, 5, 10)
"""How many phantom words a lost one is worth; whose recordings they are decides which of these to read."""


def nonspeech_metrics(scores: Sequence[ClipScore]) -> dict[str, Any]:
    """Text written over `scores`, clips in which nobody speaks."""
    n, minutes = len(scores), fsum(score.duration_s for score in scores) / 60
    words = sum(score.words for score in scores)
    with_text = {name: count_known(getattr(score.came, name) for score in scores) for name in DEFINITIONS}
    return {
        "clips": n,
        "groups": len({score.group for score in scores}),
        "minutes": round(minutes, 3),
        "clips_with_text": with_text["r"],
        "hallucination_rate": {name: None if k is None else ratio(k, n) for name, k in with_text.items()},
        "words": words,
        "words_per_min": ratio(words, minutes),
        "loops": sum(score.loops for score in scores),
        "loop_rate": ratio(sum(score.loops for score in scores), n),
        "ci": {name: None if k is None else wilson(k, n) for name, k in with_text.items()},
    }


def count_known(came: Iterable[bool | None]) -> int | None:
    """How many are true; None when one of them is not known, since the known ones are not like the others."""
    counted = 0
    for one in came:
        if one is None:
            return None
        counted += one
    return counted


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
        "loops": sum(score.loops for score in scores),
        "loop_rate": ratio(sum(score.loops for score in scores), n),
        **lost,
        "ci": ci,
    }


def speech_summary(scores: Sequence[ClipScore]) -> dict[str, Any]:
    """Word errors of all of `scores`, whatever language was asked for, and how many were missed."""
    n, missed = len(scores), sum(score.words == 0 for score in scores)
    words = word_metrics(scores)
    ci = words.pop("ci") | {"missed_speech_rate": wilson(missed, n)}
    return {"clips": n, "missed": missed, "missed_speech_rate": ratio(missed, n), **words, "ci": ci}


def mixed_metrics(scores: Sequence[ClipScore]) -> dict[str, Any]:
    """Recordings of speech amid non-speech: word errors, and words written where nobody speaks."""
    placed = [(score, score.outside) for score in scores if score.outside is not None]
    words, minutes = [counts.words for _, counts in placed], [counts.seconds / 60 for _, counts in placed]
    found = word_metrics([score for score in scores if score.in_headline])
    ci = found.pop("ci")
    interval = cluster_interval(words, minutes, [score.group for score, _ in placed]) if sum(minutes) else None
    return {
        "clips": len(scores),
        "groups": len({score.group for score in scores}),
        "nonspeech_minutes": round(fsum(minutes), 3),
        "words_outside": sum(words),
        "words_outside_per_min": ratio(sum(words), fsum(minutes)),
        **found,
        "deletion_rate": ratio(found["deletions"], found["words"]),
        "ci": ci | {"words_outside_per_min": interval},
    }


def cost_of_errors(scores: Sequence[ClipScore]) -> dict[str, Any]:
    """C_kappa of Null Token (arXiv 2608.15940), F + kappa * D, for several kappas; None without either kind of clip."""
    quiet = [score for score in scores if score.kind == "nonspeech"]
    read = [(s, s.wer_counts) for s in scores if s.kind == "speech" and s.in_headline and s.wer_counts is not None]
    fabricated = ratio(sum(score.words for score in quiet), fsum(score.duration_s for score in quiet) / 60)
    deleted = ratio(sum(counts.deletions for _, counts in read), fsum(score.duration_s for score, _ in read) / 60)
    sums: dict[str, float | None] = dict.fromkeys(map(str, KAPPAS))
    if fabricated is not None and deleted is not None:
        sums = {str(kappa): fabricated + kappa * deleted for kappa in KAPPAS}
    return {
        "fabricated_words_per_min": fabricated,
        "deleted_words_per_min": deleted,
        "c_kappa": sums,
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
        **_character_metrics(scores),
        "ci": {"wer": interval},
    }


def _character_metrics(scores: Sequence[ClipScore]) -> dict[str, Any]:
    """Character errors over those of `scores` in languages written without spaces."""
    counted = [score.cer_counts for score in scores if score.cer_counts is not None]
    total = sum(counted, WordCounts())
    return {"cer_clips": len(counted), "characters": total.words, "cer": ratio(total.errors, total.words)}


def cost_metrics(scores: Sequence[ClipScore]) -> dict[str, Any]:
    """Wall-clock time of transcribing one clip after the other, audio already decoded."""
    seconds = [score.seconds for score in scores]
    audio_s, work_s = fsum(score.duration_s for score in scores), fsum(seconds)
    p50, p95 = np.quantile(seconds, [0.5, 0.95]).tolist() if seconds else (None, None)
    return {
        "audio_s": round(audio_s, 3),
        "work_s": round(work_s, 3),
        "rtf": ratio(work_s, audio_s),
        "rtfx": ratio(audio_s, work_s),
        "latency_p50_s": p50,
        "latency_p95_s": p95,
        "peak_rss_bytes": None,  # of a system alone: only `--measure-cost` can tell
        "measured_alone": False,  # other systems, shards and workers may have slowed it down
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
    spoken = [pair for pair in pairs if pair[0].kind == "speech"]
    placed = [(a.group, a.outside, b.outside) for a, b in pairs if a.outside is not None and b.outside is not None]
    changed = sum(a.text != b.text for a, b in pairs)
    return {
        "clips": len(pairs),
        "changed_texts": changed,
        "unchanged": changed == 0,
        "hallucination_rate_r": _difference(
            [int(a.came.r) - int(b.came.r) for a, b in quiet], [1] * len(quiet), [a.group for a, _ in quiet]
        )
        | _discordant([(a.came.r, b.came.r) for a, b in quiet]),
        "missed_speech_rate": _difference(
            [int(a.words == 0) - int(b.words == 0) for a, b in spoken], [1] * len(spoken), [a.group for a, _ in spoken]
        )
        | _discordant([(a.words == 0, b.words == 0) for a, b in spoken]),
        "wer": _difference(
            [a.errors - b.errors for _, a, b in read], [a.words for _, a, _ in read], [group for group, _, _ in read]
        ),
        "words_outside_per_min": _difference(
            [a.words - b.words for _, a, b in placed],
            [a.seconds / 60 for _, a, _ in placed],
            [group for group, _, _ in placed],
        ),
    }


def _discordant(pairs: Sequence[tuple[bool, bool]]) -> dict[str, Any]:
    """Clips that count in one system only, and McNemar's exact p for as lopsided a split by chance."""
    ours, theirs = sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
    return {"only_ours": ours, "only_theirs": theirs, "mcnemar_p": mcnemar(ours, theirs) if pairs else None}


def _difference(numerators: Sequence[int], denominators: Sequence[float], groups: Sequence[str]) -> dict[str, Any]:
    total = fsum(denominators)
    return {
        "clips": len(numerators),
        "difference": ratio(sum(numerators), total),
        "ci": cluster_interval(numerators, denominators, groups) if total else None,
    }


def ratio(above: float, below: float) -> float | None:
    """`above / below`, None when there is nothing below."""
    return above / below if below else None
