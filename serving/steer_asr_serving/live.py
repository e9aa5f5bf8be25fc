"""Sound that is still arriving: which of its text is settled, and what may be forgotten.

    heard = Hearing()
    heard.add(pcm)                                    # 16-bit samples at 16 kHz, as they come
    settled, pending = heard.settle(transcription_of(heard.audio()))

Whisper sees the unsettled sound from its beginning, again and again while it grows. A segment is settled once enough
sound follows it; then it, and all sound before its end, is done with. Sound without any text is forgotten but for its
end, so silence and noise never pile up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile

import numpy as np
from faster_whisper.transcribe import Segment

from steer_asr.audio import SAMPLE_RATE_HZ

SETTLE_S = 1.5
"""A segment with this much sound after it does not change any more."""
KEPT_S = 2.0
"""Of sound without text, what is kept: a word may have begun there."""
WINDOW_S = 28.0
"""Unsettled sound is settled as it is before it outgrows Whisper's window of 30 s."""


@dataclass
class Hearing:
    """The sound of one stream that is not settled yet."""

    start_s: float = 0.0
    """Where it begins, from the beginning of the stream."""
    new_s: float = 0.0
    """How much was added since `settle`."""
    _chunks: list[np.ndarray] = field(default_factory=list)
    _half: bytes = b""

    def add(self, pcm: bytes) -> None:
        """More sound: 16-bit little-endian mono at 16 kHz. A message may end in the middle of a sample."""
        pcm = self._half + pcm
        whole = len(pcm) // 2 * 2
        self._half = pcm[whole:]
        self._chunks.append(np.frombuffer(pcm[:whole], "<i2").astype(np.float32) / 32768)
        self.new_s += whole / 2 / SAMPLE_RATE_HZ

    def audio(self) -> np.ndarray:
        """What is to be transcribed now: float32 [n_samples] at 16 kHz, at most `WINDOW_S`. `new_s` starts again."""
        whole = np.concatenate(self._chunks) if self._chunks else np.zeros(0, np.float32)
        self._chunks = [whole]
        now = whole[: int(WINDOW_S * SAMPLE_RATE_HZ)]
        self.new_s = (len(whole) - len(now)) / SAMPLE_RATE_HZ
        return now

    @property
    def waiting_s(self) -> float:
        """All of the unsettled sound, in seconds."""
        return sum(map(len, self._chunks)) / SAMPLE_RATE_HZ

    def settle(
        self, segments: Sequence[Segment], heard_s: float, *, last: bool = False
    ) -> tuple[list[Segment], list[Segment]]:
        """(settled, still open) of the segments of `audio()`, which was `heard_s` long; times count from the stream's
        beginning. With `last` no sound will follow, so all are settled.
        """
        spoken = [segment for segment in segments if segment.text.strip()]
        end_s = float("inf") if last or not spoken else heard_s - SETTLE_S
        settled = list(takewhile(lambda segment: segment.end <= end_s, spoken))
        if not settled and heard_s >= WINDOW_S:
            settled = spoken
        done_s = min(settled[-1].end, heard_s) if settled else 0.0
        if len(settled) == len(spoken):  # the rest is without text
            done_s = max(done_s, heard_s if last else heard_s - KEPT_S)
        placed = [_later(segment, self.start_s) for segment in spoken]
        self._forget(done_s)
        return placed[: len(settled)], placed[len(settled) :]

    def _forget(self, seconds: float) -> None:
        n = round(seconds * SAMPLE_RATE_HZ)
        if n:
            self._chunks = [np.concatenate(self._chunks)[n:]]
            self.start_s += n / SAMPLE_RATE_HZ


def _later(segment: Segment, by_s: float) -> Segment:
    return replace(segment, start=round(segment.start + by_s, 3), end=round(segment.end + by_s, 3))
