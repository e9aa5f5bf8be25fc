"""The load benchmark's arithmetic, and its plain server over HTTP; the servers together are measured by hand."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from steer_asr.audio import SAMPLE_RATE_HZ
from steer_asr.errors import SteerASRError
from steer_asr_benchmarks.serving_load import CLIP_S, Result, closed_loop, mix, open_loop, report

SOUND = [np.zeros(round(CLIP_S * SAMPLE_RATE_HZ), np.float32)]


def test_mixes_have_the_clips_they_say() -> None:
    clips = mix(0.7, n=10)
    assert {clip.shape for clip in clips} == {(80_000,)}
    assert {clip.dtype for clip in clips} == {np.dtype(np.float32)}
    quiet = mix(1.0, n=4)
    assert sum(any(np.array_equal(clip, other) for other in quiet) for clip in clips) == 7
    assert all(np.array_equal(a, b) for a, b in zip(clips, mix(0.7, n=10), strict=True)), "the same each time"


def test_a_closed_loop_keeps_all_clients_busy() -> None:
    at_once, most, lock = [0], [0], threading.Lock()

    def transcribe(_audio: Any) -> None:
        with lock:
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
        time.sleep(0.02)
        with lock:
            at_once[0] -= 1

    rtfx = closed_loop(transcribe, SOUND, clients=4, seconds=0.4)
    assert most[0] == 4
    assert CLIP_S * 4 / 0.02 * 0.2 < rtfx <= CLIP_S * 4 / 0.02


def test_an_open_loop_counts_the_wait_and_what_is_refused() -> None:
    alone = threading.Lock()

    def transcribe(_audio: Any) -> None:
        with alone:
            time.sleep(0.02)

    load = open_loop(transcribe, SOUND, share=0.9, full_hz=50, seconds=0.6)
    assert load.requests > 5
    assert 0.02 <= load.p50_s <= load.p95_s
    assert load.failed == 0

    def refuse(_audio: Any) -> None:
        raise SteerASRError("429")

    refused = open_loop(refuse, SOUND, share=0.5, full_hz=100, seconds=0.3)
    assert refused.failed == refused.requests > 0


def test_ratios_are_medians_over_rounds(capsys) -> None:
    names = ("ours", "raw engine", "plain server", "ours, 70 %", "plain server, 70 %", "ours without steering, 70 %")
    names += ("ours with early exit", "ours with early exit, 70 %")
    result = Result({}, {name: [1.0, 2.0, 4.0] for name in names})
    result.rtfx["ours"] = [0.9, 2.4, 3.6]
    assert report(result)["ratios"]["ours / raw engine"] == 0.9
    assert "ours / raw engine: 0.90" in capsys.readouterr().out


def test_the_plain_server_answers_one_at_a_time() -> None:
    testclient = pytest.importorskip("fastapi.testclient", reason="needs the serve extra")
    from types import SimpleNamespace

    from steer_asr_benchmarks.plain_server import plain_app
    from steer_asr_benchmarks.systems.server import as_wav, multipart

    class Whisper:
        def transcribe(self, file: Any, language: str | None) -> Any:
            assert file.read(4) == b"RIFF"
            return [SimpleNamespace(text=" Good"), SimpleNamespace(text=" morning.")], SimpleNamespace(
                language=language
            )

    body, content_type = multipart({"model": "any", "language": "en"}, as_wav(SOUND[0]))
    client = testclient.TestClient(plain_app(Whisper()))
    answer = client.post("/v1/audio/transcriptions", content=body, headers={"content-type": content_type})
    assert answer.json() == {"text": "Good morning.", "language": "en"}
    assert client.get("/ready").status_code == 200
