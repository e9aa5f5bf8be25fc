"""The process that holds the model, and how the HTTP side reaches it.

`TranscriberReplica` is a plain class that Ray Serve runs one or more of; `RemoteTranscriber` calls them through a
Serve handle. The HTTP side only knows the `Transcriber` protocol, so tests can hand it anything that transcribes.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from faster_whisper.transcribe import Segment

from steer_asr.errors import SteerASRError
from steer_asr.steering import Steering
from steer_asr.transcription import Transcription
from steer_asr_serving.errors import ApiError
from steer_asr_serving.settings import Settings

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

DEPLOYMENT = "transcriber"
FALLBACK_TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""What OpenAI's temperature 0 means: rise when decoding fails its own checks. Whisper's values."""


@dataclass(frozen=True, eq=False)
class Job:
    """One transcription to do."""

    audio: np.ndarray
    """float32 mono [n_samples] at 16 kHz. Read-only on the replica, where it lies in Ray's shared memory."""
    steering: Steering | None
    language: str | None = None
    prompt: str | None = None
    temperature: float = 0.0
    word_timestamps: bool = False


class Transcriber(Protocol):
    """What the HTTP side needs."""

    async def transcribe(self, job: Job) -> Transcription:
        """Raises `ApiError` or `SteerASRError` when the job cannot be done."""
        ...

    async def ready(self) -> bool:
        """Whether a model is loaded and would answer."""
        ...


class TranscriberReplica:
    """Holds one model. Transcribes in as many threads as it has workers, so that the event loop stays free."""

    def __init__(self, settings: Settings, steering: Steering | None) -> None:
        from steer_asr import load_model

        workers = settings.workers_per_replica
        self._model = load_model(
            settings.model,
            device="cpu",
            compute_type=settings.compute_type,
            cpu_threads=max(1, settings.replica_cpus // workers),
            num_workers=workers,
        )
        self._model.steered(steering)  # loads the default pack now rather than in the first request
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="transcribe")

    async def transcribe(self, job: Job) -> Transcription | ApiError | SteerASRError:
        """Refusals are returned, not raised: Serve logs whatever a replica raises as a failure of the server.

        When the caller goes away, the decode stops at the next segment.
        """
        gone = threading.Event()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._run, job, gone)
        except (ApiError, SteerASRError) as refusal:
            return refusal
        finally:
            gone.set()

    def _run(self, job: Job, gone: threading.Event) -> Transcription:
        languages = self._model.supported_languages
        if job.language not in (None, *languages):
            known = ", ".join(sorted(languages))
            raise ApiError(400, f"language {job.language!r} is not one of this model's: {known}", "language")
        segments, info = self._model.transcribe(
            job.audio,
            steer=job.steering,
            language=job.language,
            initial_prompt=job.prompt,
            temperature=job.temperature or FALLBACK_TEMPERATURES,
            word_timestamps=job.word_timestamps,
        )
        return Transcription.consume(_while_wanted(segments, gone), info)


class RemoteTranscriber:
    """The `Transcriber` that is a Serve deployment."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    async def transcribe(self, job: Job) -> Transcription:
        """Raises `ApiError` 429 when too many requests wait, and 503 when no replica can be reached."""
        from ray.exceptions import RayActorError
        from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

        try:
            outcome = await self._handle.transcribe.remote(job)
        except BackPressureError as full:
            raise ApiError(429, "too many requests are waiting; try again shortly", code="overloaded") from full
        except (RayActorError, DeploymentUnavailableError) as lost:
            raise ApiError(503, "the transcriber is restarting; try again shortly", code="unavailable") from lost
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def ready(self) -> bool:
        """Asks Serve's controller, since a question to a busy replica would wait behind its work."""
        from ray import serve

        own_app = serve.get_replica_context().app_name
        status = await asyncio.to_thread(serve.status)
        return status.applications[own_app].deployments[DEPLOYMENT].status == "HEALTHY"


def _while_wanted(segments: Iterator[Segment], gone: threading.Event) -> Iterator[Segment]:
    for segment in segments:
        if gone.is_set():
            return
        yield segment
