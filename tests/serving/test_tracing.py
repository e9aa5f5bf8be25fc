"""OpenTelemetry spans of real requests, kept in memory by the SDK's own exporter."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NoOpTracerProvider, StatusCode

from steer_asr.errors import SteerOptionError
from steer_asr_serving.api import create_api
from steer_asr_serving.errors import ApiError
from steer_asr_serving.served import Catalogue
from steer_asr_serving.settings import Settings
from steer_asr_serving.tracing import provider_for
from tests.serving.scripted_whisper import TEXT

pytestmark = pytest.mark.anyio
PATH = "/v1/audio/transcriptions"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def traced(transcriber, served_settings, exporter) -> Callable[[], httpx2.AsyncClient]:
    def connect() -> httpx2.AsyncClient:
        settings = Settings(**served_settings)
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        app = create_api(settings, Catalogue.find(settings), transcriber, tracers=provider)
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False, client=("127.0.0.1", 1))
        return httpx2.AsyncClient(transport=transport, base_url="http://test")

    return connect


def attributes(span: Any) -> dict[str, Any]:
    return dict(span.attributes or {})


@pytest.mark.parametrize("stream", ["false", "true"])
async def test_a_request_its_decode_and_its_transcription_are_one_trace(traced, exporter, wav, stream: str) -> None:
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    data = {"model": "scripted", "steer": "default", "stream": stream, "prompt": "a private prompt"}
    headers = {"traceparent": f"00-{trace}-{parent}-01", "x-request-id": "42"}
    async with traced() as http:
        await http.post(PATH, files={"file": ("a.wav", wav)}, data=data, headers=headers)
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert set(spans) == {f"POST {PATH}", "decode", "transcribe"}
    request = spans[f"POST {PATH}"]
    assert {f"{span.context.trace_id:032x}" for span in spans.values()} == {trace}
    assert f"{request.parent.span_id:016x}" == parent
    assert {spans[name].parent.span_id for name in ("decode", "transcribe")} == {request.context.span_id}
    said = attributes(request)
    assert (said["http.response.status_code"], said["http.route"], said["steer_asr.request_id"]) == (200, PATH, "42")
    done = attributes(spans["transcribe"])
    assert (done["steer_asr.model"], done["steer_asr.pack"], done["steer_asr.strength"]) == ("scripted", "quiet", 1.0)
    assert (done["steer_asr.windows"], done["steer_asr.speech_detected"]) == (1, False)
    assert done["steer_asr.transcribe_s"] > 0
    assert done["steer_asr.queue_s"] >= 0
    everything = json.dumps([attributes(span) for span in spans.values()])
    assert "private" not in everything
    assert TEXT not in everything


async def test_failures_show_in_the_spans(traced, exporter, wav, transcriber) -> None:
    transcriber.failure = ApiError(503, "restarting", code="unavailable")
    async with traced() as http:
        await http.post(PATH, files={"file": ("a.wav", wav)}, data={"model": "scripted"})
        await http.get("/nothing")
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert spans["transcribe"].status.status_code == StatusCode.ERROR
    assert spans[f"POST {PATH}"].status.status_code == StatusCode.ERROR
    assert spans["GET other"].status.status_code == StatusCode.UNSET


async def test_without_an_address_there_are_no_traces() -> None:
    assert isinstance(provider_for(Settings()), NoOpTracerProvider)


async def test_an_exporter_that_is_missing_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(SteerOptionError, match=r"pip install 'steer-asr\[tracing\]'"):
        provider_for(Settings(otlp_endpoint="http://localhost:4318/v1/traces"))
