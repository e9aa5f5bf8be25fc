"""The page, and what it asks the server for.

    add_ui(app, gate, UiDesk(settings, catalogue, transcriber, metrics, decoder))

    GET  /ui                    the page; asks for no key, since there is nothing in it
    GET  /ui/api/settings       models, packs, limits
    POST /ui/api/analyze        a recording -> its stock transcript and its spectrogram, and an id
    POST /ui/api/resteer        the id and a strength -> the steered transcript, the edit, the features

This process keeps the samples of a recording under its id, for the key that sent it; the replicas keep what their
encoder made of it. So any replica can answer: one that does not know the recording encodes it, once.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePosixPath

import anyio.to_thread
import numpy as np
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import Response
from pydantic import BaseModel

from steer_asr import __version__
from steer_asr.audio import SAMPLE_RATE_HZ
from steer_asr_serving.audio_routes import ERRORS, decoded, model_named
from steer_asr_serving.auth import Gate
from steer_asr_serving.deployment import Job, Outcome, Transcriber
from steer_asr_serving.errors import ApiError
from steer_asr_serving.form import parse_form
from steer_asr_serving.metrics import Metrics
from steer_asr_serving.sandbox import Decoder
from steer_asr_serving.served import Catalogue, ServedModel
from steer_asr_serving.settings import Settings
from steer_asr_serving.timeouts import Deadline, too_late, too_slow, while_connected
from steer_asr_serving.ui import answers
from steer_asr_serving.ui.memory import Bounds, Shelf
from steer_asr_serving.ui.schemas import (
    Analysis,
    AnalyzeFields,
    PageModel,
    PageSettings,
    ResteerRequest,
    Steered,
    analyze_body_schema,
)
from steer_asr_serving.ui.study import MAX_AGE_S, MAX_RECORDINGS

POLICY = (
    "default-src 'self'; media-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
PAGE_HEADERS = {
    "Content-Security-Policy": POLICY,
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
MAX_FIELDS = 10


@dataclass(frozen=True, eq=False)
class Recording:
    """What this process keeps of one."""

    key: str
    """Name of the API key that sent it; nobody else may ask about it."""
    model: str
    audio: np.ndarray
    """float32 mono [n_samples] at 16 kHz."""
    language: str


def add_ui(app: FastAPI, gate: Gate, desk: UiDesk) -> None:
    """Adds the page and its routes to the application."""
    app.include_router(_page())
    app.include_router(_settings_route(desk), dependencies=[Depends(gate.identify)])
    app.include_router(_work_routes(desk), dependencies=[Depends(gate.admit)])


def _page() -> APIRouter:
    """The files in `static`, read once: what a client asks for is a name among them, never a path."""
    router = APIRouter(prefix="/ui", include_in_schema=False)
    static = files("steer_asr_serving.ui") / "static"
    assets = {entry.name: entry.read_bytes() for entry in static.iterdir() if entry.is_file()}

    def answer(name: str) -> Response:
        return Response(assets[name], media_type=MEDIA_TYPES[PurePosixPath(name).suffix], headers=PAGE_HEADERS)

    @router.get("")
    async def page() -> Response:
        return answer("index.html")

    @router.get("/{name}")
    async def asset(name: str) -> Response:
        if name not in assets:
            raise ApiError(404, f"the page has no file {name!r}")
        return answer(name)

    return router


def _settings_route(desk: UiDesk) -> APIRouter:
    router = APIRouter(prefix="/ui/api")

    @router.get("/settings", responses={401: ERRORS[401]})
    async def settings() -> PageSettings:
        """What the page offers, and the limits it keeps to."""
        return desk.page_settings()

    return router


def _work_routes(desk: UiDesk) -> APIRouter:
    router = APIRouter(prefix="/ui/api", default_response_class=Response)

    @router.post(
        "/analyze",
        response_model=None,
        responses=ERRORS | {200: {"model": Analysis}},
        openapi_extra=analyze_body_schema(),
    )
    async def analyze(request: Request) -> Response:
        """A recording's stock transcript and spectrogram, and an id for `resteer`."""
        return await _as_json(await desk.analyze(request))

    @router.post("/resteer", response_model=None, responses=ERRORS | {200: {"model": Steered}})
    async def resteer(request: Request, asked: ResteerRequest) -> Response:
        """The same recording, steered; its encoder output is kept, so only the decoder runs again."""
        return await _as_json(await desk.resteer(request, asked))

    return router


class UiDesk:
    """Answers what the page asks."""

    def __init__(
        self, settings: Settings, catalogue: Catalogue, transcriber: Transcriber, metrics: Metrics, decoder: Decoder
    ) -> None:
        self._settings, self._catalogue, self._transcriber = settings, catalogue, transcriber
        self._metrics, self._decoder = metrics, decoder
        bounds = Bounds(MAX_RECORDINGS, settings.ui_memory_bytes, MAX_AGE_S)
        self._recordings: Shelf[Recording] = Shelf(bounds, lambda recording: recording.audio.nbytes)

    def page_settings(self) -> PageSettings:
        return PageSettings(
            version=__version__,
            max_audio_s=min(self._settings.ui_max_audio_s, self._settings.max_audio_s),
            max_upload_bytes=self._settings.max_upload_bytes,
            models=[_card(served) for served in self._catalogue.models.values()],
        )

    async def analyze(self, request: Request) -> Analysis:
        """Raises `ApiError` or `SteerASRError`."""
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            raise ApiError(415, "send the audio as multipart/form-data, in a field 'file'")
        limit_s = self._settings.request_timeout_s
        deadline = Deadline(limit_s)
        async with deadline.enforced(too_slow()):
            form = await request.form(max_files=1, max_fields=MAX_FIELDS)
        try:
            upload, fields = parse_form(form, AnalyzeFields)
            served = model_named(fields.model, self._catalogue)
            async with deadline.enforced(too_late(limit_s)):
                audio = await decoded(upload, self._decoder)
        finally:
            await form.close()
        self._check_length(audio)
        session = secrets.token_urlsafe(24)
        job = Job(served.name, audio, None, language=fields.language, session=session)
        outcome = await self._run(request, job, deadline)
        recording = Recording(request.state.facts["key"], served.name, audio, outcome.transcription.language)
        self._recordings.put(session, recording)
        return answers.analysis(session, served.name, outcome)

    async def resteer(self, request: Request, asked: ResteerRequest) -> Steered:
        """Raises `ApiError`, 404 when the recording is not kept any more, or `SteerASRError`."""
        recording = self._recordings.get(asked.id)
        if recording is None or recording.key != request.state.facts["key"]:
            raise ApiError(404, "this recording is no longer kept here; send it again", "id", "recording_not_kept")
        served = model_named(recording.model, self._catalogue)
        steering = served.steering({"pack": asked.pack, "strength": asked.strength})
        job = Job(served.name, recording.audio, steering, language=recording.language, session=asked.id)
        outcome = await self._run(request, job, Deadline(self._settings.request_timeout_s))
        return answers.steered(outcome)

    async def _run(self, request: Request, job: Job, deadline: Deadline) -> Outcome:
        strength = 0.0 if job.steering is None else job.steering.strength
        audio_s = round(len(job.audio) / SAMPLE_RATE_HZ, 3)
        request.state.facts |= {"model": job.model, "task": job.task, "audio_s": audio_s, "steer": strength}
        async with deadline.enforced(too_late(self._settings.request_timeout_s)):
            outcome = await while_connected(request.receive, self._transcriber.transcribe(job))
        self._metrics.outcome(job, outcome)
        request.state.facts |= {"transcribe_s": round(outcome.seconds, 3)}
        return outcome

    def _check_length(self, audio: np.ndarray) -> None:
        longest_s = self._settings.ui_max_audio_s
        if len(audio) > longest_s * SAMPLE_RATE_HZ:
            is_s = len(audio) / SAMPLE_RATE_HZ
            message = f"the page takes up to {longest_s:g} s of sound, and this is {is_s:.1f} s; cut it, or use the API"
            raise ApiError(413, message, "file", "audio_too_long")


def _card(served: ServedModel) -> PageModel:
    names = {source: name for name, source in served.packs.items()}
    first = [names[served.default_pack]] if served.default_pack in names else []
    default = served.default_steering
    return PageModel(
        id=served.name,
        packs=first + sorted(set(served.packs) - set(first)),
        max_steer=served.max_steer,
        strength=served.max_steer if default is None else default.strength,
    )


async def _as_json(answer: BaseModel) -> Response:
    body = await anyio.to_thread.run_sync(answer.model_dump_json)
    return Response(body, media_type="application/json")
