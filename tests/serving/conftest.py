"""A real model with a text to say, sound to upload, and OpenAI's own clients in front of the app without a socket."""

from __future__ import annotations

import io
import time
import wave
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
from fastapi import FastAPI

from steer_asr.models import ModelFiles, find_model
from steer_asr_serving.api import create_api
from steer_asr_serving.deployment import Job, LocalTranscriber, Outcome, Piece, TranscriberReplica
from steer_asr_serving.served import Catalogue
from steer_asr_serving.settings import Settings
from tests.helpers import noise
from tests.serving.scripted_whisper import write_scripted_whisper, write_silencing_pack

CLIPS = Path(__file__).parents[2] / "benchmarks" / "demo" / "clips"
SPOKEN = "He might even have been made amiable himself."
"""In speech-short.flac."""


@dataclass
class Recorder:
    """Passes jobs on to a transcriber and remembers them; can also fail, or say that it is not ready yet."""

    real: LocalTranscriber
    jobs: list[Job] = field(default_factory=list)
    failure: Exception | None = None
    fails_after: int = 0
    """Pieces of a stream before the failure."""
    is_ready: bool = True

    async def transcribe(self, job: Job) -> Outcome:
        self.jobs.append(job)
        if self.failure is not None:
            raise self.failure
        return await self.real.transcribe(job)

    async def stream(self, job: Job) -> AsyncGenerator[Piece | Outcome, None]:
        self.jobs.append(job)
        sent = 0
        async with aclosing(self.real.stream(job)) as pieces:
            async for piece in pieces:
                if self.failure is not None and sent == self.fails_after:
                    raise self.failure
                yield piece
                sent += 1

    async def ready(self) -> bool:
        return self.is_ready


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def scripted(tmp_path_factory: pytest.TempPathFactory, tiny_en: ModelFiles, base: ModelFiles) -> Path:
    """A folder of two models, "scripted" (English-only) and "polyglot" (hears French), and a pack for each."""
    folder = tmp_path_factory.mktemp("models")
    for name, like, language, pack in (
        ("scripted", tiny_en, None, "quiet"),
        ("polyglot", base, "fr", "silence"),
    ):
        model = write_scripted_whisper(folder / name, like=like.path, language=language)
        write_silencing_pack(folder / pack, model, sha256=find_model(model).sha256)
    return folder


@pytest.fixture(scope="session")
def served_settings(scripted: Path) -> dict[str, Any]:
    return {
        "models": (str(scripted / "scripted"), str(scripted / "polyglot")),
        "allowed_packs": (str(scripted / "quiet"), str(scripted / "silence")),
        "compute_type": "float32",
        "cpus_per_replica": 1,
        "steer": "off",
        "decode_processes": 0,  # test_sandbox.py has them
    }


@pytest.fixture(scope="session")
def replica(served_settings: dict[str, Any]) -> TranscriberReplica:
    """Both models, loaded."""
    settings = Settings(**served_settings)
    return TranscriberReplica(settings, Catalogue.find(settings))


@pytest.fixture
def transcriber(replica: TranscriberReplica) -> Recorder:
    return Recorder(LocalTranscriber(replica))


@pytest.fixture
def app(transcriber: Recorder, served_settings: dict[str, Any]) -> Callable[..., FastAPI]:
    """`app(**settings)`: the application."""

    def create(clock: Callable[[], float] = time.monotonic, **settings: Any) -> FastAPI:
        checked = Settings(**served_settings | settings)
        return create_api(checked, Catalogue.find(checked), transcriber, clock=clock)

    return create


@pytest.fixture
def http(app: Callable[..., FastAPI]) -> Callable[..., httpx2.AsyncClient]:
    """`http(**settings)`: a plain HTTP client on the app."""

    def connect(client: tuple[str, int] = ("127.0.0.1", 123), **settings: Any) -> httpx2.AsyncClient:
        transport = httpx2.ASGITransport(app=app(**settings), raise_app_exceptions=False, client=client)
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


@pytest.fixture(scope="session")
def wav() -> bytes:
    """Half a second of noise: 8000 samples at 16 kHz."""
    return as_wav(noise(0.5))


@pytest.fixture(scope="session")
def speech_file() -> bytes:
    """Three seconds of a read sentence, `SPOKEN`."""
    return (CLIPS / "speech-short.flac").read_bytes()


def as_wav(samples: np.ndarray) -> bytes:
    """float32 [n_samples] at 16 kHz as a 16-bit WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(16_000)
        writer.writeframes((samples * 32767).astype("<i2").tobytes())
    return file.getvalue()
