"""What a steered transcription returns: faster-whisper's own types, with what the steering did attached."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from faster_whisper.transcribe import Segment, TranscriptionInfo


@dataclass(frozen=True)
class FeatureActivity:
    """One feature where it mattered most."""

    feature: int
    """Id in the full SAE dictionary."""
    peak: float
    """Highest activation."""
    start_s: float
    """The stretch around the peak on which the feature fired, in seconds of the audio."""
    end_s: float


@dataclass(frozen=True)
class SegmentSteering:
    """What steering did between a segment's start and end."""

    edited_share: float
    """Mean edit weight times strength over the segment's frames, in [0, 1]: 0 is untouched, 1 is fully edited."""
    nobody_speaks: float
    """The gate's probability that nobody speaks in the segment's window."""
    features: tuple[FeatureActivity, ...]
    """The features whose edits were largest, strongest first. With VAD, their times are exact up to removed pauses."""

    def shifted(self, by_s: float) -> SegmentSteering:
        """The same with all feature times moved by `by_s` seconds."""
        moved = (replace(f, start_s=round(f.start_s + by_s, 2), end_s=round(f.end_s + by_s, 2)) for f in self.features)
        return replace(self, features=tuple(moved))


@dataclass(frozen=True, eq=False)
class WindowReport:
    """What steering did in one encoder window of up to 30 s, whether or not any text came out of it."""

    start_s: float
    """Where the window begins, in seconds of the audio that was encoded (after VAD, if that was on)."""
    end_s: float
    nobody_speaks: float
    edited_share: float
    """As in `SegmentSteering`, over the window's real frames (padding not counted)."""
    frame_weights: np.ndarray = field(repr=False)
    """float32 [frame]: edit weight times strength, 20 ms a frame, padding not included."""
    features: tuple[FeatureActivity, ...]
    frame_nobody_speaks: np.ndarray | None = field(default=None, repr=False)
    """float32 [frame]: the gate's probability that nobody speaks at that moment; None without a gate."""


@dataclass
class SteerReport:
    """Which steering ran, and what it did so far: `windows` grows while the lazy segments are consumed."""

    pack: str
    strength: float
    executor: str
    windows: list[WindowReport] = field(default_factory=list)

    @property
    def edited_share(self) -> float:
        """Edited share over all frames seen so far."""
        weights = [window.frame_weights for window in self.windows]
        return float(np.concatenate(weights).mean()) if weights else 0.0

    @property
    def nobody_speaks(self) -> float:
        """Probability that nobody speaks in any window: the lowest of the windows'."""
        return min((window.nobody_speaks for window in self.windows), default=1.0)


@dataclass
class SteeredSegment(Segment):
    """A faster-whisper `Segment` plus what steering did in it."""

    steer: SegmentSteering | None = None


@dataclass
class SteeredInfo(TranscriptionInfo):
    """A faster-whisper `TranscriptionInfo` plus which steering runs."""

    steer: SteerReport | None = None


def extend(target: type[Any], base: Any, **extra: Any) -> Any:
    """`base`, a dataclass instance, as its subclass `target` with more fields. Nothing is copied deeply."""
    return target(**{f.name: getattr(base, f.name) for f in fields(base)}, **extra)


@dataclass(frozen=True)
class Transcription:
    """A whole transcription, as `steer_asr.transcribe` returns it."""

    text: str
    segments: tuple[Segment, ...]
    language: str
    language_probability: float
    duration_s: float
    speech_detected: bool
    """False when no word was written."""
    steer: SteerReport | None = None

    @classmethod
    def consume(cls, segments: Iterator[Segment], info: TranscriptionInfo) -> Transcription:
        """Runs the lazy `segments` to their end."""
        done = tuple(segments)
        text = "".join(segment.text for segment in done).strip()
        return cls(
            text=text,
            segments=done,
            language=info.language,
            language_probability=float(info.language_probability),
            duration_s=info.duration,
            speech_detected=any(character.isalnum() for character in text),
            steer=getattr(info, "steer", None),
        )
