"""`stock`: plain faster-whisper, and what all faster-whisper systems share.

faster-whisper tells `no_speech_prob` only with segments, and drops the ones without text. Every window it decodes
passes through `generate_with_fallback`, so that method is overridden to write the scores down; it changes nothing.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from faster_whisper import WhisperModel

from steer_asr_benchmarks.systems.base import Decoding, PredictedSegment, Prediction, Window

DIGITS = 4
"""Of the probabilities of frames; there are many."""


class RecordingWhisperModel(WhisperModel):
    """A `faster_whisper.WhisperModel` that keeps the scores of every window."""

    def __init__(self, path: str | os.PathLike[str], **options: Any) -> None:
        super().__init__(os.fspath(path), **options)
        self.windows: list[Window] = []

    def generate_with_fallback(self, *args: Any, **kwargs: Any) -> Any:
        return record_window(self.windows, super().generate_with_fallback(*args, **kwargs))


def record_window(windows: list[Window], outcome: Any) -> Any:
    """Appends what `generate_with_fallback` returned to `windows`, and returns it as it was."""
    result, avg_logprob, _, compression_ratio = outcome
    # An empty answer has no token to average over: CTranslate2 divides by a length of zero.
    mean = float(avg_logprob) if math.isfinite(avg_logprob) else None
    windows.append(Window(result.no_speech_prob, mean, compression_ratio, tuple(result.sequences_ids[0])))
    return outcome


class _Recording(Protocol):
    """A faster-whisper model or batched pipeline that fills `windows`."""

    windows: list[Window]

    @property
    def transcribe(self) -> Callable[..., Any]: ...


@dataclass(frozen=True)
class WhisperSystem:
    """A faster-whisper model and the arguments it is always called with; they win over those of the decoding."""

    name: str
    model: _Recording
    multilingual: bool
    arguments: Mapping[str, Any]
    options: Mapping[str, Any]

    def transcribe(self, audio: np.ndarray, decoding: Decoding) -> Prediction:
        """Runs the lazy segments to their end. English-only models are always told English."""
        arguments = {**decoding.whisper_options(), **self.arguments, "language": self.language(decoding)}
        self.model.windows.clear()
        segments, info = self.model.transcribe(audio, **arguments)
        segments = tuple(
            PredictedSegment(s.start, s.end, s.text, s.no_speech_prob, s.avg_logprob, s.compression_ratio)
            for s in segments
        )
        prediction = Prediction(
            info.language, arguments["language"] is not None, segments, windows=tuple(self.model.windows)
        )
        report = getattr(info, "steer", None)
        if report is None:
            return prediction
        # behind a VAD, windows hear what that left: their times are not the clip's
        return _with_steering(prediction, report, placed=not arguments.get("vad_filter"))

    def language(self, decoding: Decoding) -> str | None:
        """The language it is told; None: it detects one."""
        return self.arguments.get("language", decoding.language) if self.multilingual else "en"

    def with_arguments(self, **arguments: Any) -> WhisperSystem:
        """The same, called with further arguments."""
        return replace(self, arguments={**self.arguments, **arguments})


def _with_steering(prediction: Prediction, report: Any, *, placed: bool) -> Prediction:
    """Adds what a `steer_asr.transcription.SteerReport` says to the clip and to its windows."""
    windows = tuple(
        replace(
            window,
            nobody_speaks=_number(steered.nobody_speaks),
            edited_share=steered.edited_share,
            start_s=steered.start_s if placed else None,
            frames=_rounded(steered.frame_nobody_speaks) if placed else None,
        )
        for window, steered in zip(prediction.windows or (), report.windows, strict=True)
    )
    return replace(
        prediction,
        windows=windows,
        nobody_speaks=_number(report.nobody_speaks),
        edited_share=report.edited_share,
    )


def _rounded(frames: np.ndarray | None) -> tuple[float, ...] | None:
    return None if frames is None else tuple(np.round(frames.astype(np.float64), DIGITS).tolist())


def _number(value: float) -> float | None:
    """None for the NaN of a pack without a gate."""
    return None if np.isnan(value) else float(value)


def make_stock(
    name: str, model: _Recording, multilingual: bool, arguments: Mapping[str, Any], **stated: Any
) -> WhisperSystem:
    """faster-whisper as it comes; `suppress_blank`, which forbids an empty answer, is on unless `arguments` say so.

    `stated` is what the report says further of it.
    """
    options = {"kind": "stock", "suppress_blank": True, "vad_filter": False}
    return WhisperSystem(name, model, multilingual, arguments, options | stated | dict(arguments))
