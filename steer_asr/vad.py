"""Where a voice activity detector hears speech: Silero (as faster-whisper ships it) or WebRTC's.

for span in speech_spans(wave, "webrtc"):
    print(span.start_s, span.end_s)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from steer_asr.audio import SAMPLE_RATE_HZ
from steer_asr.errors import SteerOptionError, unknown_name

KINDS = ("silero", "webrtc")
WEBRTC_FRAME_MS = 30
SPEECH_PAD_MS = 300
"""Speech begins and ends softly: so much is kept on either side of what WebRTC's detector marks."""


@dataclass(frozen=True)
class Span:
    """A stretch of speech, in seconds."""

    start_s: float
    end_s: float


def speech_spans(audio: np.ndarray, kind: str = "silero", *, aggressiveness: int = 2) -> list[Span]:
    """Stretches with speech in float32 [n_samples] at 16 kHz, in order and apart.

    `aggressiveness`, 0 to 3, is WebRTC's: how readily it calls something non-speech. Raises `SteerOptionError`.
    """
    if kind == "silero":
        return _silero(audio)
    if kind == "webrtc":
        return _webrtc(audio, aggressiveness)
    raise SteerOptionError(unknown_name("voice activity detector", kind, KINDS))


def _silero(audio: np.ndarray) -> list[Span]:
    from faster_whisper.vad import VadOptions, get_speech_timestamps

    found = get_speech_timestamps(audio, VadOptions())
    return [Span(span["start"] / SAMPLE_RATE_HZ, span["end"] / SAMPLE_RATE_HZ) for span in found]


def _webrtc(audio: np.ndarray, aggressiveness: int) -> list[Span]:
    import webrtcvad

    if aggressiveness not in (0, 1, 2, 3):
        raise SteerOptionError(f"aggressiveness {aggressiveness!r}: choose 0, 1, 2 or 3")
    detector = webrtcvad.Vad(aggressiveness)
    pcm = (np.clip(audio, -1, 1) * 32767).astype("<i2")
    step = SAMPLE_RATE_HZ * WEBRTC_FRAME_MS // 1000
    voiced = [
        detector.is_speech(pcm[start : start + step].tobytes(), SAMPLE_RATE_HZ)
        for start in range(0, len(pcm) - step + 1, step)
    ]
    edges = np.flatnonzero(np.diff(np.array([False, *voiced, False], dtype=np.int8)))
    pad, duration_s = SPEECH_PAD_MS / 1000, len(audio) / SAMPLE_RATE_HZ
    spans: list[Span] = []
    for first, last in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        start_s = max(0.0, first * WEBRTC_FRAME_MS / 1000 - pad)
        end_s = min(duration_s, last * WEBRTC_FRAME_MS / 1000 + pad)
        if spans and start_s <= spans[-1].end_s:
            spans[-1] = Span(spans[-1].start_s, end_s)
        else:
            spans.append(Span(start_s, end_s))
    return spans
