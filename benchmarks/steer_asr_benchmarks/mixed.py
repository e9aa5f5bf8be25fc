"""Mixed recordings: where in them words were written, against where somebody speaks.

    counts = outside_counts(segments, spans, duration_s, words_of_segment)
    counts.words, counts.seconds

A manifest's `speech` lists the stretches with speech; the rest of the recording is non-speech. A word is placed within
its segment as if all words there took the same time, and stands outside if its middle is further than half a second
from every stretch. Without timestamps a segment is its whole window of up to 30 s, and the place a rough guess: read
these numbers from a run with timestamps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MARGIN_S = 0.5
"""Whisper's timestamps are this imprecise; words this near to speech are taken for part of it."""


@dataclass(frozen=True)
class OutsideCounts:
    """Words in the non-speech of one recording, and how much non-speech it has."""

    words: int
    seconds: float


def outside_counts(
    segments: Sequence[Mapping[str, Any]],
    spans: Sequence[tuple[float, float]],
    duration_s: float,
    words_in: Callable[[str], int],
) -> OutsideCounts:
    """Counts the words of `segments` (start, end in seconds, text) outside of `spans` (start, end in seconds)."""
    outside = 0
    for segment in segments:
        n = words_in(segment["text"])
        step_s = (segment["end"] - segment["start"]) / max(1, n)
        middles = (segment["start"] + (i + 0.5) * step_s for i in range(n))
        outside += sum(not _near(middle, spans) for middle in middles)
    return OutsideCounts(outside, max(0.0, duration_s - sum(end - start for start, end in spans)))


def _near(time_s: float, spans: Sequence[tuple[float, float]]) -> bool:
    return any(start - MARGIN_S <= time_s <= end + MARGIN_S for start, end in spans)
