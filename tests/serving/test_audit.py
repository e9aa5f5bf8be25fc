"""The audit: which windows were edited away, why, and, only if asked, what stock Whisper writes there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from steer_asr.steering import Steering
from steer_asr.transcription import Transcription
from steer_asr_serving import audit
from steer_asr_serving.deployment import Job, Outcome
from steer_asr_serving.settings import Settings
from steer_asr_serving.suppressed import silent
from tests.helpers import noise
from tests.serving.scripted_whisper import TEXT

pytestmark = pytest.mark.anyio
PATH = "/v1/audio/transcriptions"


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Any]:
    """`written()`: the audit's lines so far."""
    path = tmp_path / "audit.jsonl"
    before = audit.logger.handlers[:], audit.logger.level
    writer = audit.start_audit(Settings(audit_file=path))
    assert writer is not None

    def lines() -> list[dict[str, Any]]:
        writer.stop()
        writer.start()
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    yield lines
    writer.stop()
    for handler in writer.handlers:
        handler.close()
    audit.logger.handlers[:], audit.logger.level = before


async def post(http: Any, wav: bytes, request_id: str = "1", **fields: str) -> Any:
    data = {"model": "scripted"} | fields
    return await http.post(PATH, files={"file": ("a.wav", wav)}, data=data, headers={"x-request-id": request_id})


@pytest.mark.parametrize("with_text", [False, True])
async def test_one_line_for_each_window_that_was_edited_away(
    http, wav, written, caplog, tmp_path, with_text: bool
) -> None:
    connected = http(audit_file=tmp_path / "audit.jsonl", audit_text=with_text)
    assert (await post(connected, wav, "suppressed", steer="default")).json()["text"] == ""
    await post(connected, wav, "barely edited", steer="0.05")
    await post(connected, wav, "stock", steer="off")
    [line] = written()
    assert (line["request_id"], line["key"], line["model"], line["pack"]) == ("suppressed", "none", "scripted", "quiet")
    assert (line["start_s"], line["end_s"], line["strength"], line["edited_share"]) == (0.0, 0.5, 1.0, 1.0)
    assert line["silent"] is True
    assert 0 <= line["nobody_speaks"] <= 1
    [feature] = line["features"]
    assert (feature["feature"], feature["peak"], feature["start_s"]) == (7, 1.0, 0.0)
    assert line.get("stock_text") == (TEXT if with_text else None)
    if not with_text:
        assert "stock_text" not in line
        assert TEXT not in json.dumps(line)
    assert not any(TEXT in record.getMessage() for record in caplog.records)


async def test_streams_are_audited(http, wav, written, tmp_path) -> None:
    connected = http(audit_file=tmp_path / "audit.jsonl", audit_text=True)
    await post(connected, wav, steer="default", stream="true")
    [line] = written()
    assert line["stock_text"] == TEXT


async def test_without_a_file_nothing_is_decoded_twice(http, wav, transcriber) -> None:
    await post(http(), wav, steer="default")
    assert [job.stock_texts for job in transcriber.jobs] == [False]


async def test_where_pauses_were_cut_out_stock_text_cannot_be_told(replica, scripted) -> None:
    from faster_whisper.vad import VadOptions

    steering = Steering(str(scripted / "quiet"))
    job = Job("scripted", noise(0.5), steering, vad=VadOptions(threshold=0.0), stock_texts=True)
    outcome = await replica.transcribe(job)
    windows = outcome.transcription.steer.windows
    assert outcome.stock_texts == (None,) * len(windows)
    assert [line["after_vad"] for line in audit.lines(job, outcome)] == [True] * len(windows)


async def test_what_counts_as_silent(replica, scripted) -> None:
    outcome: Outcome = await replica.transcribe(Job("scripted", noise(0.5), Steering(str(scripted / "quiet"))))
    transcription = outcome.transcription
    assert transcription.steer is not None
    [window] = transcription.steer.windows
    assert silent(window, transcription)
    spoken: Transcription = (await replica.transcribe(Job("scripted", noise(0.5), None))).transcription
    assert not silent(window, spoken)
    assert not silent(window, spoken, after_vad=True)


async def test_text_needs_a_place() -> None:
    with pytest.raises(ValidationError, match="audit_text needs audit_file"):
        Settings(audit_text=True)
    assert audit.start_audit(Settings()) is None
