"""The HTTP side: parse, call the transcriber, format.

    app = create_api(settings, served, transcriber)     # an ASGI application

No Ray in here: `transcriber` is anything that transcribes.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

import anyio
import numpy as np
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import UploadFile

from steer_asr import __version__
from steer_asr.audio import AudioLimits, decode_audio
from steer_asr.formats import render
from steer_asr_serving import errors
from steer_asr_serving.deployment import Job, Transcriber
from steer_asr_serving.errors import ApiError
from steer_asr_serving.limits import BodyLimit
from steer_asr_serving.schemas import Model, ModelList, Status, parse_form, request_body_schema, wire_steer
from steer_asr_serving.served import MODEL_ALIAS, ServedModel
from steer_asr_serving.settings import Settings

DECODERS = 2
"""Uploads decoded at the same time, each in a thread."""
MAX_FIELDS = 50
BEARER = HTTPBearer(auto_error=False)


def create_api(settings: Settings, served: ServedModel, transcriber: Transcriber) -> FastAPI:
    """The ASGI application that serves one model."""
    app = FastAPI(title="steer_asr", version=__version__, docs_url=None, redoc_url=None)
    errors.install(app)
    app.add_middleware(BodyLimit, max_bytes=settings.max_upload_bytes)
    app.include_router(_health_routes(transcriber))
    keyed = [Depends(_key_check(settings))]
    app.include_router(_model_routes(served), prefix="/v1", dependencies=keyed)
    app.include_router(_transcription_routes(settings, served, transcriber), prefix="/v1", dependencies=keyed)
    return app


def _transcription_routes(settings: Settings, served: ServedModel, transcriber: Transcriber) -> APIRouter:
    router = APIRouter()
    decoders = anyio.CapacityLimiter(DECODERS)
    limits = AudioLimits(max_seconds=settings.max_audio_s)

    @router.post("/audio/transcriptions", response_class=Response, openapi_extra={"requestBody": request_body_schema()})
    async def transcriptions(request: Request) -> Response:
        """OpenAI's transcription request, plus `steer`."""
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            raise ApiError(415, "send the audio as multipart/form-data, in a field 'file'")
        async with request.form(max_files=1, max_fields=MAX_FIELDS) as form:
            upload, fields = parse_form(form)
            if not served.answers_to(fields.model):
                raise _no_such_model(fields.model, served)
            steering = served.steering(wire_steer(fields.steer))
            audio = await _decoded(upload, limits, decoders)
        transcription = await transcriber.transcribe(
            Job(
                audio=audio,
                steering=steering,
                language=fields.language,
                prompt=fields.prompt,
                temperature=fields.temperature,
                word_timestamps="word" in fields.timestamp_granularities,
            )
        )
        body = render(transcription, fields.response_format)
        is_json = fields.response_format in ("json", "verbose_json")
        return Response(body, media_type="application/json" if is_json else "text/plain")

    return router


def _model_routes(served: ServedModel) -> APIRouter:
    router = APIRouter()
    card = Model(id=served.name, created=int(time.time()))

    @router.get("/models")
    async def models() -> ModelList:
        return ModelList(data=[card])

    @router.get("/models/{name:path}")
    async def model(name: str) -> Model:
        if not served.answers_to(name):
            raise _no_such_model(name, served)
        return card

    return router


def _health_routes(transcriber: Transcriber) -> APIRouter:
    """Routes for load balancers; they ask for no key."""
    router = APIRouter()

    @router.get("/health")
    async def health() -> Status:
        """The HTTP side is up."""
        return Status(status="ok")

    @router.get("/ready", responses={503: {"model": Status}})
    async def ready() -> Response:
        """A model is loaded."""
        status: Literal["ok", "starting"] = "ok" if await transcriber.ready() else "starting"
        return JSONResponse(Status(status=status).model_dump(), 200 if status == "ok" else 503)

    return router


def _key_check(settings: Settings) -> Callable[..., Any]:
    expected = None if settings.api_key is None else _digest(settings.api_key.get_secret_value())

    async def check(given: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)]) -> None:
        if expected is not None and not (given and hmac.compare_digest(_digest(given.credentials), expected)):
            raise ApiError(401, "a valid API key is needed: Authorization: Bearer KEY", code="invalid_api_key")

    return check


def _digest(key: str) -> bytes:
    """Digests, compared in constant time, give away neither the key's characters nor its length."""
    return hashlib.sha256(key.encode()).digest()


def _no_such_model(name: str, served: ServedModel) -> ApiError:
    message = f"the model {name!r} is not served here; served: {served.name} (also as {MODEL_ALIAS})"
    return ApiError(404, message, "model", "model_not_found")


async def _decoded(upload: UploadFile, limits: AudioLimits, decoders: anyio.CapacityLimiter) -> np.ndarray:
    """The upload as float32 mono [n_samples] at 16 kHz, decoded in a thread."""
    data = await upload.read()
    if not data:
        raise ApiError(400, "the uploaded file is empty", "file", "empty_file")
    return await anyio.to_thread.run_sync(partial(decode_audio, data, limits=limits), limiter=decoders)
