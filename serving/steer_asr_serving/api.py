"""The HTTP side: keys, limits, routes, errors, metrics.

    app = create_api(settings, catalogue, transcriber)     # an ASGI application

No Ray in here: `transcriber` is anything that transcribes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Literal

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response
from opentelemetry.trace import NoOpTracerProvider, TracerProvider

from steer_asr import __version__
from steer_asr_serving import errors
from steer_asr_serving.audio_routes import audio_routes, model_named
from steer_asr_serving.auth import Gate
from steer_asr_serving.deployment import Transcriber
from steer_asr_serving.draining import Drain, Draining
from steer_asr_serving.errors import ErrorEnvelope
from steer_asr_serving.limits import BodyLimit
from steer_asr_serving.live_route import live_route
from steer_asr_serving.measured import Measured, TracedDecoder
from steer_asr_serving.metrics import Metrics
from steer_asr_serving.observe import Observe
from steer_asr_serving.sandbox import decoder_for
from steer_asr_serving.schemas import Model, ModelList, Status
from steer_asr_serving.served import Catalogue, ServedModel
from steer_asr_serving.settings import Settings
from steer_asr_serving.timeouts import UploadPace
from steer_asr_serving.tracing import SCOPE
from steer_asr_serving.ui.routes import UiDesk, add_ui


def create_api(
    settings: Settings,
    catalogue: Catalogue,
    transcriber: Transcriber,
    *,
    clock: Callable[[], float] = time.monotonic,
    echo_request_id: bool = True,
    tracers: TracerProvider | None = None,
) -> FastAPI:
    """The ASGI application that serves a catalogue of models.

    `clock`, in seconds, is what limits go by. Without `echo_request_id`, something in front returns the request's id.
    `tracers` makes OpenTelemetry spans; see `tracing`.
    """
    tracer = (tracers or NoOpTracerProvider()).get_tracer(SCOPE, __version__)
    decoder = TracedDecoder(decoder_for(settings), tracer)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(decoder.warm)
        yield
        decoder.close()

    app = FastAPI(title="steer_asr", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.reconfigure = partial(catalogue.change, settings)
    app.state.drain = Drain()
    errors.install(app)
    gate, metrics = Gate(settings, clock), Metrics()
    transcriber = Measured(transcriber, metrics, tracer)
    app.add_middleware(UploadPace, pause_s=settings.upload_pause_s, min_bytes_per_s=settings.min_upload_bytes_per_s)
    app.add_middleware(BodyLimit, max_bytes=settings.max_upload_bytes)
    app.add_middleware(Draining, drain=app.state.drain)
    app.add_middleware(Observe, metrics=metrics, tracer=tracer, echo_id=echo_request_id)
    app.include_router(_health_routes(transcriber))
    app.include_router(_metrics_route(metrics), dependencies=[Depends(gate.identify)])
    app.include_router(_model_routes(catalogue), dependencies=[Depends(gate.identify)])
    audio = audio_routes(settings, catalogue, transcriber, metrics, decoder)
    app.include_router(audio, dependencies=[Depends(gate.admit)])
    app.include_router(live_route(settings, catalogue, transcriber, gate, metrics))
    if settings.ui:
        add_ui(app, gate, UiDesk(settings, catalogue, transcriber, metrics, decoder))
    return app


def _model_routes(catalogue: Catalogue) -> APIRouter:
    router = APIRouter(prefix="/v1")
    created = int(time.time())

    def card(served: ServedModel) -> Model:
        return Model(id=served.name, created=created, packs=sorted(served.packs), max_steer=served.max_steer)

    @router.get("/models", responses={401: {"model": ErrorEnvelope}})
    async def models() -> ModelList:
        """The served models."""
        return ModelList(data=[card(served) for served in catalogue.models.values()])

    @router.get("/models/{name:path}", responses={status: {"model": ErrorEnvelope} for status in (401, 404)})
    async def model(name: str) -> Model:
        """One of them."""
        return card(model_named(name, catalogue))

    return router


def _metrics_route(metrics: Metrics) -> APIRouter:
    router = APIRouter()

    @router.get("/metrics", response_class=Response, responses={401: {"model": ErrorEnvelope}})
    async def scrape(request: Request) -> Response:
        """Prometheus metrics. Asks for a key, since they tell who uses the server how much."""
        text, media_type = metrics.exposition(request.headers.get("accept", ""))
        return Response(text, media_type=media_type)

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
        """The models are loaded."""
        status: Literal["ok", "starting"] = "ok" if await transcriber.ready() else "starting"
        return JSONResponse(Status(status=status).model_dump(), 200 if status == "ok" else 503)

    return router
