"""Systems that are stock with something taken out of its text afterwards.

| name | what is taken out |
| --- | --- |
| `nospeech:T` | segments whose `no_speech_prob` is above T: definition F's rule at any threshold |
| `boh` | segments that are a known phantom phrase and nothing else, and repetitions of a loop |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from steer_asr._files import sha256_of
from steer_asr.errors import SteerOptionError
from steer_asr_benchmarks.loops import has_loop, without_loops
from steer_asr_benchmarks.systems.base import Decoding, PredictedSegment, Prediction, System
from steer_asr_benchmarks.text import normalize, words_of

Segments = tuple[PredictedSegment, ...]
PHRASES_FILE = "bag_of_hallucinations.txt"


@dataclass(frozen=True)
class Filtered:
    """A system whose segments pass through a filter."""

    name: str
    inner: System
    keep: Callable[[Segments], Segments]
    options: Mapping[str, Any]

    def transcribe(self, audio: np.ndarray, decoding: Decoding) -> Prediction:
        prediction = self.inner.transcribe(audio, decoding)
        return replace(prediction, segments=self.keep(prediction.segments))


def make_nospeech(name: str, inner: System, threshold: float) -> Filtered:
    """Drops segments from windows whose `no_speech_prob` is above `threshold`."""

    def keep(segments: Segments) -> Segments:
        return tuple(segment for segment in segments if (segment.no_speech_prob or 0.0) <= threshold)

    return Filtered(name, inner, keep, {**inner.options, "kind": "nospeech", "no_speech_prob_at_most": threshold})


def make_boh(name: str, inner: System, path: str | None) -> Filtered:
    """Bag of hallucinations and de-looping (arXiv 2501.11378, section 4.3): what people bolt on behind Whisper.

    A segment goes when all of it, normalised, is one of the phrases, or several of them in a row: a phrase inside a
    sentence is left alone. Of what loops, one turn stays. Raises `SteerOptionError` when `path` cannot be read.
    """
    phrases = known_phrases() if path is None else read_phrases(Path(path))

    def keep(segments: Segments) -> Segments:
        left = (
            replace(segment, text=without_loops(segment.text))
            for segment in segments
            if not _phantom(segment.text, phrases)
        )
        return _without_repeats(tuple(left))

    stated: dict[str, Any] = {"kind": "boh", "phrases": len(phrases), "phrases_from": "built-in"}
    if path is not None:
        stated |= {"phrases_from": Path(path).name, "phrases_sha256": sha256_of(Path(path))}
    return Filtered(name, inner, keep, {**inner.options, **stated})


@cache
def known_phrases() -> frozenset[tuple[str, ...]]:
    """The phrases that come with the benchmark, in normalised words."""
    text = (files("steer_asr_benchmarks.systems") / PHRASES_FILE).read_text(encoding="utf-8")
    return _parse(text.splitlines())


def read_phrases(path: Path) -> frozenset[tuple[str, ...]]:
    """One phrase a line; `#` begins a comment."""
    try:
        phrases = _parse(path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise SteerOptionError(f"{path}: not a list of phrases ({error})") from error
    if not phrases:
        raise SteerOptionError(f"{path}: no phrase in it; one a line")
    return phrases


def _parse(lines: Sequence[str]) -> frozenset[tuple[str, ...]]:
    words = (tuple(_words(line.partition("#")[0])) for line in lines)
    return frozenset(phrase for phrase in words if phrase)


def _phantom(text: str, phrases: frozenset[tuple[str, ...]]) -> bool:
    """Whether a text is made of known phrases and of nothing else."""
    words = tuple(_words(text))
    reached = [True, *[False] * len(words)]
    for end in range(1, len(words) + 1):
        reached[end] = any(reached[start] and words[start:end] in phrases for start in range(end))
    return bool(words) and reached[-1]


def _without_repeats(segments: Segments) -> Segments:
    """Of segments in a row with the same words, the first, where they make a loop: it may spread over segments."""
    runs = [(words, tuple(run)) for words, run in groupby(segments, key=lambda segment: _words(segment.text))]
    return tuple(segment for words, run in runs for segment in (run[:1] if has_loop(words * len(run)) else run))


def _words(text: str) -> list[str]:
    return words_of(normalize(text, "en"))
