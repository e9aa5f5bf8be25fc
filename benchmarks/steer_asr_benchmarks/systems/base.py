"""What a system under test is: audio and a decoding in, a prediction out.

A new kind of system is one file beside this one with a `make_...` function, and one line in `systems/__init__.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

Mode = Literal["timestamps", "no_timestamps"]
MODES: tuple[Mode, ...] = ("timestamps", "no_timestamps")

FIXED_DECODING: Mapping[str, Any] = {
    "temperature": 0.0,
    "condition_on_previous_text": False,
    "no_speech_threshold": None,
    "log_prob_threshold": None,
    "compression_ratio_threshold": None,
}
"""Raw text is what is measured: nothing is dropped or decoded again. The rules are applied afterwards, by scoring."""


@dataclass(frozen=True)
class Decoding:
    """How one clip is decoded. Everything else is `FIXED_DECODING`."""

    mode: Mode
    language: str | None
    """None: detected."""
    beam_size: int = 1

    def whisper_options(self) -> dict[str, Any]:
        """The same as arguments of `faster_whisper.WhisperModel.transcribe`."""
        return {
            "language": self.language,
            "beam_size": self.beam_size,
            "without_timestamps": self.mode == "no_timestamps",
            **FIXED_DECODING,
        }


@dataclass(frozen=True)
class PredictedSegment:
    """A piece of text as the system returned it. The three scores are those of the window it came from.

    None where the system does not tell: servers need not.
    """

    start: float
    end: float
    text: str
    no_speech_prob: float | None
    avg_logprob: float | None
    compression_ratio: float | None


@dataclass(frozen=True)
class Window:
    """One decoded window of up to 30 s, whether or not any text came out of it."""

    no_speech_prob: float
    avg_logprob: float | None
    """None for an empty answer."""
    compression_ratio: float
    tokens: tuple[int, ...]
    """As decoded, timestamps included."""
    nobody_speaks: float | None = None
    """The gate's probability, for a steered window whose pack has a gate."""
    edited_share: float | None = None
    """Mean edit weight times strength, for a steered window."""
    start_s: float | None = None
    """Where in the clip it begins, where `frames` is known."""
    frames: tuple[float, ...] | None = None
    """The gate's probability that nobody speaks, for each 20 ms; None where it is not known which moment of the clip a
    frame hears."""


@dataclass(frozen=True)
class Prediction:
    """What a system made of one clip."""

    language: str
    language_forced: bool
    segments: tuple[PredictedSegment, ...]
    windows: tuple[Window, ...] | None
    """None where the system does not tell."""
    nobody_speaks: float | None = None
    """Probability that nobody speaks anywhere in the clip."""
    edited_share: float | None = None

    @property
    def text(self) -> str:
        """All segments' text."""
        return "".join(segment.text for segment in self.segments).strip()


class System(Protocol):
    """A way to transcribe."""

    @property
    def name(self) -> str:
        """As it is called in the results."""
        ...

    @property
    def options(self) -> Mapping[str, Any]:
        """What sets it apart, for the report: JSON values that do not change while it runs."""
        ...

    def transcribe(self, audio: np.ndarray, decoding: Decoding) -> Prediction:
        """Transcribes float32 mono samples at 16 kHz."""
        ...
