"""Request ids, security headers, metrics and log lines, of real requests."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from steer_asr_serving import logs
from steer_asr_serving.errors import ApiError
from steer_asr_serving.settings import Settings
from tests.serving.scripted_whisper import TEXT
from tests.serving.test_auth import KEYS, configured
from tests.serving.test_deployment import HeldEncoder

pytestmark = pytest.mark.anyio


async def post(connected: Any, wav: bytes, path: str = "/v1/audio/transcriptions", headers: Any = None, **data: str):
    fields = {"model": "scripted"} | data
    return await connected.post(path, files={"file": ("a.wav", wav)}, data=fields, headers=headers)


async def test_every_answer_has_a_request_id(http, wav, transcriber) -> None:
    given = await http().get("/health", headers={"x-request-id": "from-outside"})
    assert given.headers.get_list("x-request-id") == ["from-outside"]
    transcriber.failure = RuntimeError("broken")
    answers = [
        await http().get("/health"),
        await http().get("/nothing"),
        await post(http(), wav),
        await post(http(max_upload_bytes=1024), bytes(2048)),
    ]
    assert [answer.status_code for answer in answers] == [200, 404, 500, 413]
    assert len({answer.headers["x-request-id"] for answer in answers}) == 4
    long = await http().get("/health", headers={"x-request-id": "x" * 5000})
    assert long.headers["x-request-id"] == "x" * 128


async def test_answers_are_neither_cached_nor_guessed_at(http, wav) -> None:
    for answer in (await post(http(), wav, response_format="text"), await http().get("/nothing")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in answer.headers["content-security-policy"]


async def scraped(connected: Any, **headers: str) -> dict[tuple[str, ...], float]:
    """{(sample, label values in order of their names): value}."""
    answer = await connected.get("/metrics", headers=headers)
    assert answer.status_code == 200
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_metrics_count_what_was_done(http, wav) -> None:
    connected = http()
    await post(connected, wav, steer="default")
    await post(connected, wav, steer="0.05")
    await post(connected, wav, stream="true")
    await post(connected, wav, model="polyglot", path="/v1/audio/translations")
    await post(connected, wav, response_format="pdf")
    await connected.get("/nothing")
    await connected.get("/nothing/else")
    found = await scraped(connected)
    requests = {labels[1:]: n for labels, n in found.items() if labels[0] == "steer_asr_requests_total"}
    assert requests == {
        ("none", "/v1/audio/transcriptions", "200"): 3,
        ("none", "/v1/audio/translations", "200"): 1,
        ("none", "/v1/audio/transcriptions", "400"): 1,
        ("none", "other", "404"): 2,
    }
    assert found["steer_asr_requests_in_progress",] == 1, "the scrape itself"
    assert found["steer_asr_audio_seconds_total", "scripted", "transcribe"] == 1.5
    assert found["steer_asr_audio_seconds_total", "polyglot", "translate"] == 0.5
    assert found["steer_asr_transcribe_seconds_total", "scripted", "transcribe"] > 0
    assert found["steer_asr_real_time_factor_count", "scripted"] == 3
    assert found["steer_asr_transcriptions_total", "scripted", "quiet"] == 2
    assert found["steer_asr_transcriptions_total", "scripted", "off"] == 1
    assert found["steer_asr_transcriptions_without_speech_total", "scripted", "quiet"] == 1
    assert found["steer_asr_windows_total", "scripted", "quiet"] == 2
    assert found["steer_asr_windows_edited_total", "scripted", "quiet"] == 1
    assert found["steer_asr_windows_silenced_total", "scripted", "quiet"] == 1
    assert found["steer_asr_queue_seconds_count", "scripted"] == 3
    assert found["steer_asr_queue_seconds_sum", "scripted"] >= 0
    assert found["steer_asr_jobs_in_progress",] == 0
    assert found["steer_asr_nobody_speaks_count", "scripted", "quiet"] == 2
    assert found["steer_asr_request_seconds_count", "/v1/audio/transcriptions"] == 4


async def test_jobs_that_wait_are_counted(http, wav, replica, monkeypatch) -> None:
    held = HeldEncoder(replica._models["scripted"], monkeypatch)
    connected = http()
    both = [asyncio.create_task(post(connected, wav)) for _ in range(2)]  # there is one worker
    await asyncio.to_thread(held.started.wait, 30)
    while (found := await scraped(connected))["steer_asr_jobs_in_progress",] < 2:
        await asyncio.sleep(0.01)
    held.go_on.set()
    assert [answer.json()["text"] for answer in await asyncio.gather(*both)] == [TEXT, TEXT]
    found = await scraped(connected)
    assert found["steer_asr_jobs_in_progress",] == 0
    assert found["steer_asr_queue_seconds_count", "scripted"] == 2


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian: prometheus)")
async def test_prometheus_own_checker_finds_nothing(http, wav) -> None:
    connected = http()
    await post(connected, wav, steer="default")
    text = (await connected.get("/metrics")).text
    command = ["promtool", "check", "metrics"]
    checked = await asyncio.to_thread(subprocess.run, command, input=text, capture_output=True, text=True, timeout=60)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


async def test_metrics_ask_for_a_key_and_name_keys_only_by_name(http, wav) -> None:
    connected = http(**configured())
    bearer = {"authorization": f"Bearer {KEYS['ann']}"}
    assert (await connected.get("/metrics")).status_code == 401
    await post(connected, wav, headers=bearer)
    found = await scraped(connected, **bearer)
    assert found["steer_asr_requests_total", "ann", "/v1/audio/transcriptions", "200"] == 1
    assert not any(KEYS["ann"] in label for labels in found for label in labels)


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Any]:
    """`written()`: the log's lines so far, from a file as `log_file` makes it."""
    before = logs.logger.handlers[:], logs.logger.level, logs.logger.propagate
    listener = logs.start_logging(Settings(log_file=tmp_path / "log"))

    def lines() -> list[dict[str, Any]]:
        listener.stop()  # writes what waits
        text = (tmp_path / "log").read_text(encoding="utf-8")
        listener.start()
        return [json.loads(line) for line in text.splitlines()]

    yield lines
    listener.stop()
    for handler in listener.handlers:
        handler.close()
    logs.logger.handlers[:], logs.logger.level, logs.logger.propagate = before


async def test_one_line_of_json_for_each_request(http, wav, written) -> None:
    connected = http(**configured())
    headers = {"authorization": f"Bearer {KEYS['bob']}", "x-request-id": "42"}
    await post(connected, wav, headers=headers, steer="0.05", response_format="verbose_json")
    await post(connected, wav, headers=headers, stream="true")
    await post(connected, wav)
    steered, streamed, refused = written()
    assert {k: v for k, v in steered.items() if k not in ("time", "seconds", "transcribe_s", "nobody_speaks")} == {
        "level": "info", "message": "request", "request_id": "42", "method": "POST",
        "route": "/v1/audio/transcriptions", "status": 200, "key": "bob", "model": "scripted", "task": "transcribe",
        "audio_s": 0.5, "response_format": "verbose_json", "stream": False, "steer": 0.05, "pack": "quiet",
        "edited_share": 0.05, "language": "en", "segments": 2, "speech_detected": True,
    }  # fmt: skip
    assert steered["seconds"] >= steered["transcribe_s"] > 0
    assert (streamed["stream"], streamed["segments"], streamed["steer"]) == (True, 2, 0.0)
    assert (refused["status"], refused["error"]) == (401, "invalid_api_key")


@pytest.mark.parametrize("asked", [False, True])
async def test_what_was_said_is_logged_only_if_asked(http, wav, written, caplog, asked: bool) -> None:
    caplog.set_level(logging.DEBUG)
    answer = await post(http(log_text=asked), wav, prompt="a private prompt", hotwords="a private word")
    assert answer.json()["text"]
    await post(http(log_text=asked), wav)
    first, second = written()
    said = {"prompt": "a private prompt", "hotwords": "a private word", "text": answer.json()["text"]}
    assert {key: first.get(key) for key in said} == (said if asked else dict.fromkeys(said))
    assert second.get("text") == (TEXT if asked else None)
    if not asked:
        ours = [record.getMessage() for record in caplog.records if not record.name.startswith(("openai", "httpcore"))]
        assert not any("private" in line or TEXT in line for line in [*ours, json.dumps([first, second])])


async def test_failures_are_logged_with_their_request(http, wav, written, transcriber) -> None:
    transcriber.failure = RuntimeError("the cause")
    answer = await post(http(), wav, headers={"x-request-id": "42"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    failure, request = written()
    assert (failure["level"], failure["request_id"]) == ("error", "42")
    assert "RuntimeError: the cause" in failure["exception"]
    assert (request["request_id"], request["status"]) == ("42", 500)


async def test_a_stream_that_breaks_off_is_logged_as_such(http, wav, written, transcriber) -> None:
    transcriber.failure, transcriber.fails_after = ApiError(503, "restarting", code="unavailable"), 1
    await post(http(), wav, stream="true")
    (line,) = written()
    assert (line["status"], line["error"]) == (200, "unavailable")


def test_a_full_queue_drops_lines_instead_of_waiting(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(logs, "QUEUED_LINES", 2)
    before = logs.logger.handlers[:], logs.logger.level, logs.logger.propagate
    listener = logs.start_logging(Settings(log_file=tmp_path / "log"))
    try:
        listener.stop()
        for number in range(5):
            logs.log_request({"number": number})
        listener.start()
        listener.stop()
    finally:
        for handler in listener.handlers:
            handler.close()
        logs.logger.handlers[:], logs.logger.level, logs.logger.propagate = before
    lines = (tmp_path / "log").read_text().splitlines()
    assert [json.loads(line)["number"] for line in lines] == [0, 1]
