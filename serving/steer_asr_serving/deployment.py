"""The process that holds the models, and how the HTTP side reaches it.

`TranscriberReplica` is a plain class that Ray Serve runs one or more of; `RemoteTranscriber` calls them through a
Serve handle. The HTTP side only knows the `Transcriber` protocol, so tests can hand it a replica in their own process.
"""

from __future__ import annotations

import asyncio
import copy
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import numpy as np
from faster_whisper.transcribe import Segment
from faster_whisper.vad import VadOptions

from steer_asr.audio import SAMPLE_RATE_HZ
from steer_asr.errors import SteerASRError
from steer_asr.steering import Steering
from steer_asr.transcription import Transcription
from steer_asr_serving.batching import Batcher
from steer_asr_serving.errors import ApiError
from steer_asr_serving.served import Catalogue
from steer_asr_serving.settings import Settings
from steer_asr_serving.shelf import ModelShelf
from steer_asr_serving.suppressed import suppressed
from steer_asr_serving.tap import ModelTap, TokenLogprob
from steer_asr_serving.ui.picture import Picture
from steer_asr_serving.ui.study import Studies

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

    from steer_asr import SteeredWhisperModel

DEPLOYMENT = "transcriber"
FALLBACK_TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""What OpenAI's temperature 0 means: rise when decoding fails its own checks. Whisper's values."""


@dataclass(frozen=True, eq=False)
class Job:
    """One transcription to do."""

    model: str
    """Name of a served model."""
    audio: np.ndarray
    """float32 mono [n_samples] at 16 kHz. Read-only on the replica, where it lies in Ray's shared memory."""
    steering: Steering | None
    task: Literal["transcribe", "translate"] = "transcribe"
    language: str | None = None
    prompt: str | None = None
    hotwords: str | None = None
    temperature: float = 0.0
    word_timestamps: bool = False
    vad: VadOptions | None = None
    """Leave out what this detector takes for non-speech; None transcribes everything."""
    logprobs: bool = False
    stock_texts: bool = False
    """Decode windows that steering edited away once more without it, for the audit."""
    session: str | None = None
    """The page's name for the recording: what the encoder makes of it is kept for other jobs of that name."""


@dataclass(frozen=True)
class Piece:
    """The next segment of a transcription that is still running."""

    text: str
    logprobs: tuple[TokenLogprob, ...] | None = None


@dataclass(frozen=True)
class Outcome:
    """A finished job."""

    transcription: Transcription
    seconds: float
    """How long the model was busy with it."""
    logprobs: tuple[TokenLogprob, ...] | None = None
    """Of every token in the text, if the job asked."""
    picture: Picture | None = None
    """What there is to see, if the job belongs to a session."""
    stock_texts: tuple[str | None, ...] = ()
    """What stock Whisper writes in each suppressed window, if the job asked; None where that cannot be told."""
    batches: tuple[int, ...] = ()
    """Windows in each batch that one of the job's was decoded in; empty where nothing is batched."""


Refusal = ApiError | SteerASRError
Answer = TypeVar("Answer")


class Transcriber(Protocol):
    """What the HTTP side needs."""

    async def transcribe(self, job: Job) -> Outcome:
        """Raises `ApiError` or `SteerASRError` when the job cannot be done."""
        ...

    def stream(self, job: Job) -> AsyncGenerator[Piece | Outcome, None]:
        """Pieces as they are decoded, then the outcome. Raises as `transcribe` does, at whatever point."""
        ...

    async def ready(self) -> bool:
        """Whether the models are loaded and would answer."""
        ...


class TranscriberReplica:
    """Holds the models. Transcribes in as many threads as it has workers, so that the event loop stays free."""

    def __init__(self, settings: Settings, catalogue: Catalogue) -> None:
        self._settings, self._catalogue = settings, catalogue
        self._models = ModelShelf(self._loaded, settings.max_loaded_models)
        self._models.fill(catalogue.models)
        self._studies = Studies(settings.ui_memory_bytes)
        self._threads = ThreadPoolExecutor(settings.workers_per_replica, thread_name_prefix="transcribe")

    def _loaded(self, name: str) -> SteeredWhisperModel:
        """Workers share the replica's threads: each has its part, or, batched, all of them work on one batch."""
        from steer_asr import load_model

        settings, served = self._settings, self._catalogue.models[name]
        at_once = 1 if settings.batch_windows else settings.workers_per_replica
        model = load_model(
            served.source,
            device=settings.device,
            compute_type=settings.compute_type,
            cpu_threads=max(1, settings.replica_cpus // at_once),
            num_workers=at_once,
        )
        model.steered(served.default_steering)  # loads the default pack now rather than in the first request
        if settings.batch_windows:
            model.model = Batcher(  # pyright: ignore[reportAttributeAccessIssue]  (it passes everything on)
                model.model,
                max_windows=settings.batch_windows,
                wait_s=settings.batch_wait_s,
                start_token=model.hf_tokenizer.token_to_id("<|startoftranscript|>"),
            )
        return model

    async def announce(self, model: str) -> None:
        """Called with each job's model, for whoever has to know which ones are loaded here."""

    async def transcribe(self, job: Job) -> Outcome | Refusal:
        """Refusals are returned, not raised: Serve logs whatever a replica raises as a failure of the server.

        When the caller goes away, the decode stops at the next window.
        """
        gone = threading.Event()
        await self.announce(job.model)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._run, job, gone)
        except (ApiError, SteerASRError) as refusal:
            return refusal
        finally:
            gone.set()

    async def stream(self, job: Job) -> AsyncGenerator[Piece | Outcome | Refusal, None]:
        """As `transcribe`, with each segment as soon as it is decoded, before the outcome or the refusal."""
        loop, pieces, gone = asyncio.get_running_loop(), asyncio.Queue[Piece | None](), threading.Event()

        def send(piece: Piece) -> None:
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

        await self.announce(job.model)
        running = loop.run_in_executor(self._threads, self._run, job, gone, send)
        running.add_done_callback(lambda _: pieces.put_nowait(None))
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
            yield await running
        except (ApiError, SteerASRError) as refusal:
            yield refusal
        finally:
            gone.set()
            running.cancel()  # if it still waits for a thread

    def _run(self, job: Job, gone: threading.Event, send: Callable[[Piece], None] | None = None) -> Outcome:
        model = copy.copy(self._models[job.model])
        batcher: Any = model.model
        if not isinstance(batcher, Batcher):
            return self._transcribed(model, job, gone, send)
        with batcher.joined() as shared:
            model.model = shared  # pyright: ignore[reportAttributeAccessIssue]
            return replace(self._transcribed(model, job, gone, send), batches=tuple(shared.sizes))

    def _transcribed(
        self, model: SteeredWhisperModel, job: Job, gone: threading.Event, send: Callable[[Piece], None] | None
    ) -> Outcome:
        """Runs a job on `model`, a copy of its own."""
        started = time.monotonic()
        _check_language(job, model)
        study = None if job.session is None else self._studies.of(job.session)
        tap = ModelTap(model.model, gone) if study is None else study.tap(model, gone)
        model.model = tap  # pyright: ignore[reportAttributeAccessIssue]  (it passes everything on)
        segments, info = model.transcribe(
            job.audio,
            steer=job.steering,
            task=job.task,
            language=job.language,
            initial_prompt=job.prompt,
            hotwords=job.hotwords,
            temperature=job.temperature or FALLBACK_TEMPERATURES,
            word_timestamps=job.word_timestamps or job.logprobs,
            vad_filter=job.vad is not None,
            vad_parameters=job.vad,
        )
        done: list[Segment] = []
        logprobs: list[TokenLogprob] = []
        for segment in segments:
            done.append(segment)
            new = tap.logprobs(segment.tokens, model.hf_tokenizer) if job.logprobs else None
            logprobs += new or ()
            if send is not None:
                send(Piece(segment.text, new))
        transcription = Transcription.consume(iter(done), info)
        picture = None if study is None else study.picture(model, job.steering, transcription)
        stock_texts = _stock_texts(job, model, transcription) if job.stock_texts else ()
        seconds = time.monotonic() - started
        return Outcome(transcription, seconds, tuple(logprobs) if job.logprobs else None, picture, stock_texts)


class RemoteTranscriber:
    """The `Transcriber` that is a Serve deployment."""

    def __init__(self, handle: DeploymentHandle, *, by_model: bool = False) -> None:
        """With `by_model`, a job goes to a replica that has its model loaded, if one has."""
        self._handle, self._by_model = handle, by_model

    def _options(self, job: Job, **options: Any) -> Any:
        if self._by_model:
            options["multiplexed_model_id"] = job.model
        return self._handle.options(**options) if options else self._handle

    async def transcribe(self, job: Job) -> Outcome:
        """Raises `ApiError` 429 when too many requests wait, and 503 when no replica can be reached.

        When the caller goes away, the replica's work is cancelled.
        """
        answer = self._options(job).transcribe.remote(job)
        try:
            with _serve_trouble():
                return unwrapped(await answer)
        except asyncio.CancelledError:
            answer.cancel()
            raise

    async def stream(self, job: Job) -> AsyncGenerator[Piece | Outcome, None]:
        """Raises as `transcribe` does; a client that goes away cancels the replica's work."""
        answer: Any = self._options(job, stream=True).stream.remote(job)
        try:
            with _serve_trouble():
                async for item in answer:
                    yield unwrapped(item)
        finally:
            answer.cancel()

    async def ready(self) -> bool:
        """Asks Serve's controller, since a question to a busy replica would wait behind its work."""
        from ray import serve

        own_app = serve.get_replica_context().app_name
        status = await asyncio.to_thread(serve.status)
        return status.applications[own_app].deployments[DEPLOYMENT].status == "HEALTHY"


class LocalTranscriber:
    """The `Transcriber` that is a replica in this process, for tests and for programs without Ray."""

    def __init__(self, replica: TranscriberReplica) -> None:
        self._replica = replica

    async def transcribe(self, job: Job) -> Outcome:
        return unwrapped(await self._replica.transcribe(job))

    async def stream(self, job: Job) -> AsyncGenerator[Piece | Outcome, None]:
        async with aclosing(self._replica.stream(job)) as items:
            async for item in items:
                yield unwrapped(item)

    async def ready(self) -> bool:
        return True


def unwrapped(answer: Answer | Refusal) -> Answer:
    """What a replica answered; raises it if it is a refusal."""
    if isinstance(answer, ApiError | SteerASRError):
        raise answer
    return answer


@contextmanager
def _serve_trouble() -> Iterator[None]:
    """Turns Serve's own errors into answers that ask for a retry."""
    from ray.exceptions import RayActorError
    from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

    try:
        yield
    except BackPressureError as full:
        raise ApiError(429, "too many requests are waiting; try again shortly", code="overloaded") from full
    except (RayActorError, DeploymentUnavailableError) as lost:
        raise ApiError(503, "the transcriber is restarting; try again shortly", code="unavailable") from lost


def _stock_texts(job: Job, model: SteeredWhisperModel, transcription: Transcription) -> tuple[str | None, ...]:
    """What would have been written in the suppressed windows. After a voice activity detector nobody knows where."""
    windows = [] if transcription.steer is None else filter(suppressed, transcription.steer.windows)
    if job.vad is not None:
        return tuple(None for _ in windows)
    options = {"task": job.task, "language": transcription.language, "temperature": 0.0}
    texts = []
    for window in windows:
        start, end = (round(second * SAMPLE_RATE_HZ) for second in (window.start_s, window.end_s))
        segments, _ = model.transcribe(job.audio[start:end], steer=None, **options)
        texts.append("".join(segment.text for segment in segments).strip())
    return tuple(texts)


def _check_language(job: Job, model: SteeredWhisperModel) -> None:
    languages = model.supported_languages
    if job.language not in (None, *languages):
        known = ", ".join(sorted(languages))
        raise ApiError(400, f"language {job.language!r} is not one of this model's: {known}", "language")
    if job.task == "translate" and not model.model.is_multilingual:
        raise ApiError(400, f"{job.model} only knows English and cannot translate", "model", "unsupported_task")
