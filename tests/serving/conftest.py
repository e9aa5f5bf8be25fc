"""A stand-in for the model, sound to upload, and OpenAI's own client in front of the app without a socket."""

from __future__ import annotations

import io
import wave
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
from faster_whisper.transcribe import Segment, Word

from steer_asr.steering import Steering
from steer_asr.transcription import SegmentSteering, SteeredSegment, SteerReport, Transcription
from steer_asr_serving.api import create_api
from steer_asr_serving.deployment import Job
from steer_asr_serving.served import ServedModel
from steer_asr_serving.settings import Settings

TEXT = "the text that was heard"


@dataclass
class StandIn:
    """A `Transcriber` that hears the same sentence in everything and remembers what it was asked."""

    jobs: list[Job] = field(default_factory=list)
    failure: Exception | None = None
    is_ready: bool = True

    async def transcribe(self, job: Job) -> Transcription:
        self.jobs.append(job)
        if self.failure is not None:
            raise self.failure
        plain = {
            "id": 1, "seek": 0, "start": 0.0, "end": 0.5, "text": f" {TEXT}", "tokens": [1, 2], "avg_logprob": -0.25,
            "compression_ratio": 1.0, "no_speech_prob": 0.125, "temperature": 0.0,
            "words": [Word(0.0, 0.5, " the", 0.75)] if job.word_timestamps else None,
        }  # fmt: skip
        if job.steering is None:
            return _transcription(Segment(**plain), None)
        steered = SteeredSegment(**plain, steer=SegmentSteering(edited_share=0.5, nobody_speaks=0.25, features=()))
        return _transcription(steered, SteerReport("quiet", job.steering.strength, "ct2"))

    async def ready(self) -> bool:
        return self.is_ready


def _transcription(segment: Segment, report: SteerReport | None) -> Transcription:
    return Transcription(
        text=TEXT, segments=(segment,), language="en", language_probability=1.0, duration_s=0.5, speech_detected=True,
        steer=report,
    )  # fmt: skip


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def transcriber() -> StandIn:
    return StandIn()


@pytest.fixture
def served() -> ServedModel:
    return ServedModel(name="base", packs=("quiet",), default_steering=Steering())


@pytest.fixture
def http(transcriber: StandIn, served: ServedModel) -> Callable[..., httpx2.AsyncClient]:
    """`http(**settings)`: a plain HTTP client on the app."""

    def connect(**settings: Any) -> httpx2.AsyncClient:
        app = create_api(Settings(**settings), served, transcriber)
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
        return httpx2.AsyncClient(transport=transport, base_url="http://test")

    return connect


@pytest.fixture
def client(http: Callable[..., httpx2.AsyncClient]) -> Callable[..., openai.AsyncOpenAI]:
    """`client(**settings)`: OpenAI's client on the app."""

    def connect(sent_key: str = "unused", **settings: Any) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(
            base_url="http://test/v1", api_key=sent_key, max_retries=0, http_client=http(**settings)
        )

    return connect


@pytest.fixture
def wav() -> bytes:
    """Half a second of a quiet 440-Hz tone: 8000 samples at 16 kHz."""
    tone = (1000 * np.sin(2 * np.pi * 440 / 16_000 * np.arange(8000))).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(16_000)
        writer.writeframes(tone.tobytes())
    return file.getvalue()
