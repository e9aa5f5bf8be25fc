"""`webrtcvad:0..3`: stock faster-whisper on what WebRTC's detector calls speech."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from steer_asr.vad import speech_spans
from steer_asr_benchmarks.systems.base import Decoding, Prediction
from steer_asr_benchmarks.systems.stock import WhisperSystem


@dataclass(frozen=True)
class BehindWebRTC:
    """Hands the detected spans to faster-whisper as clips; nothing is decoded where there are none."""

    name: str
    inner: WhisperSystem
    aggressiveness: int
    options: Mapping[str, Any]

    def transcribe(self, audio: np.ndarray, decoding: Decoding) -> Prediction:
        spans = speech_spans(audio, "webrtc", aggressiveness=self.aggressiveness)
        if not spans:
            language = self.inner.language(decoding)
            return Prediction(language or "", language is not None, (), ())
        clips = ",".join(f"{second:.3f}" for span in spans for second in (span.start_s, span.end_s))
        return self.inner.with_arguments(clip_timestamps=clips).transcribe(audio, decoding)


def make_webrtc(name: str, inner: WhisperSystem, aggressiveness: int) -> BehindWebRTC:
    """`aggressiveness`, 0 to 3, is how readily the detector calls something non-speech."""
    return BehindWebRTC(name, inner, aggressiveness, {**inner.options, "kind": "webrtcvad", "webrtc": aggressiveness})
