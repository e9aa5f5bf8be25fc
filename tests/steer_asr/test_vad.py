from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from steer_asr.audio import decode_audio
from steer_asr.errors import SteerOptionError
from steer_asr.vad import speech_spans

CLIPS = Path(__file__).parents[2] / "benchmarks" / "demo" / "clips"


@pytest.mark.parametrize("kind", ["silero", "webrtc"])
def test_speech_is_found_and_silence_is_not(kind: str) -> None:
    speech = decode_audio(CLIPS / "speech.flac")
    silence = np.zeros(16000 * 4, np.float32)
    spans = speech_spans(np.concatenate([silence, speech, silence]), kind)
    assert spans
    assert 3.0 < spans[0].start_s < 5.5
    assert spans[-1].end_s < 4 + len(speech) / 16000 + 1.0
    assert sum(span.end_s - span.start_s for span in spans) > 0.7 * len(speech) / 16000
    assert all(a.end_s < b.start_s for a, b in zip(spans, spans[1:], strict=False))
    assert speech_spans(silence, kind) == []
    assert speech_spans(np.zeros(0, np.float32), kind) == []


def test_bad_options() -> None:
    with pytest.raises(SteerOptionError, match="silero, webrtc"):
        speech_spans(np.zeros(10, np.float32), "energy")
    with pytest.raises(SteerOptionError, match="0, 1, 2 or 3"):
        speech_spans(np.zeros(10, np.float32), "webrtc", aggressiveness=4)
