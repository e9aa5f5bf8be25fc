"""Predictions as they stand in predictions.jsonl, small enough to count by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from steer_asr_benchmarks.scoring import ClipScore, TextCame, WordCounts
from steer_asr_benchmarks.systems.base import Prediction, Window


def windows_of(prediction: Prediction) -> tuple[Window, ...]:
    """The windows of a system that tells of them."""
    assert prediction.windows is not None
    return prediction.windows


def segment(text: str, no_speech_prob: float = 0.1, avg_logprob: float = -0.3) -> dict[str, Any]:
    return {
        "start": 0.0,
        "end": 1.0,
        "text": text,
        "no_speech_prob": no_speech_prob,
        "avg_logprob": avg_logprob,
        "compression_ratio": 1.0,
    }


def window(no_speech_prob: float = 0.1, avg_logprob: float = -0.3) -> dict[str, Any]:
    return {
        "no_speech_prob": no_speech_prob,
        "avg_logprob": avg_logprob,
        "compression_ratio": 1.0,
        "tokens": [50257],
        "nobody_speaks": None,
        "edited_share": None,
    }


def record(*segments: dict[str, Any], **overrides: Any) -> dict[str, Any]:
    """A non-speech clip of 6 s transcribed as `segments`, English forced, in one window per segment."""
    scores = [{key: one[key] for key in ("no_speech_prob", "avg_logprob")} for one in segments] or [{}]
    return {
        "clip": "test.jsonl:a.wav",
        "system": "stock",
        "mode": "timestamps",
        "kind": "nonspeech",
        "source": "rain",
        "label": "",
        "category": "",
        "group": "g1",
        "lang": "",
        "duration_s": 6.0,
        "snr_db": None,
        "spans": [],
        "reference": "",
        "text": "".join(one["text"] for one in segments).strip(),
        "language": "en",
        "language_forced": True,
        "seconds": 0.5,
        "nobody_speaks": None,
        "edited_share": None,
        "segments": list(segments),
        "windows": [window(**one) for one in scores],
    } | overrides


NO_TEXT = TextCame(r=False, w=False, p=False, d=False, f=False)
ALL_TEXT = TextCame(r=True, w=True, p=True, d=True, f=True)


def quiet_score(clip: str, words: int = 0, **overrides: Any) -> ClipScore:
    """A non-speech clip of 6 s, a group of its own, in which `words` words were written."""
    score = ClipScore(
        clip=clip,
        system="stock",
        mode="timestamps",
        kind="nonspeech",
        source="rain",
        group=clip,
        lang="",
        duration_s=6.0,
        seconds=0.5,
        text="word " * words,
        words=words,
        came=ALL_TEXT if words else NO_TEXT,
        wer_counts=None,
        in_headline=True,
        nobody_speaks=None,
        edited_share=None,
    )
    return replace(score, **overrides)


def speech_score(clip: str, counts: WordCounts | None, **overrides: Any) -> ClipScore:
    """An English speech clip of 6 s with these word counts."""
    words = 3 if counts is None else counts.hits + counts.substitutions + counts.insertions
    score = replace(quiet_score(clip, words), kind="speech", source="books", lang="en", wer_counts=counts)
    return replace(score, **overrides)
