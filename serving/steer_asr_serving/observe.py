"""ASGI middleware around everything: request ids, security headers; one log line, count and span for each request.

Routes add what they know: `request.state.facts["model"] = "base"`.
"""

from __future__ import annotations

import re
import time
import uuid
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from steer_asr_serving.errors import as_api_error
from steer_asr_serving.logs import log_request, logger
from steer_asr_serving.metrics import Metrics

MAX_ID_LENGTH = 128
SAFE_ID = re.compile(r"[\w.:/+=@-]+", re.ASCII)
"""Ids that are taken from a client. Anything else gets into no log and no header, and a new id takes its place."""
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}
"""Unless the answer sets its own: transcripts are not for caches, and nothing here is a page."""
ABANDONED = 499
"""Status in logs and metrics of a request whose client left before the answer; nginx's number."""


class Observe:
    """`echo_id` is off where something in front of us, Ray's proxy, already returns the request's id."""

    def __init__(self, app: ASGIApp, metrics: Metrics, tracer: Tracer, echo_id: bool) -> None:
        self.app, self.metrics, self.tracer, self.echo_id = app, metrics, tracer, echo_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            with self.tracer.start_as_current_span(scope["type"], context=_context(scope)):
                await self.app(scope, receive, send)
            return
        with self.tracer.start_as_current_span(scope["method"], context=_context(scope), kind=SpanKind.SERVER) as span:
            await self._observed(scope, receive, send, span)

    async def _observed(self, scope: Scope, receive: Receive, send: Send, span: Span) -> None:
        given = Headers(scope=scope).get("x-request-id", "")[:MAX_ID_LENGTH]
        request_id = given if SAFE_ID.fullmatch(given) else uuid.uuid4().hex
        facts: dict[str, Any] = {"request_id": request_id}
        scope["state"] = {**scope.get("state", {}), "facts": facts}
        status = ABANDONED

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                if self.echo_id:
                    headers["X-Request-ID"] = request_id
            await send(message)

        started = time.monotonic()
        self.metrics.started()
        try:
            await self.app(scope, receive, noted)
        except ClientDisconnect:
            pass  # in the middle of its upload
        except Exception as error:
            logger.exception("request failed", extra={"facts": {"request_id": request_id}})
            if status != ABANDONED:
                raise  # too late for an answer; the connection has to break
            await as_api_error(error).response()(scope, receive, noted)
        finally:
            seconds = time.monotonic() - started
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.request(route, status, facts.get("key", "none"), seconds)
            _note(span, scope["method"], route, status, facts)
            answered = {"method": scope["method"], "route": route, "status": status, "seconds": round(seconds, 3)}
            log_request(answered | facts)


def _context(scope: Scope) -> Context:
    """The trace that the client's `traceparent` says this request belongs to."""
    return TraceContextTextMapPropagator().extract(dict(Headers(scope=scope)))


def _note(span: Span, method: str, route: str, status: int, facts: dict[str, Any]) -> None:
    """By OpenTelemetry's semantic conventions for HTTP."""
    span.update_name(f"{method} {route}")
    span.set_attribute("http.request.method", method)
    span.set_attribute("http.route", route)
    span.set_attribute("http.response.status_code", status)
    for fact in ("request_id", "key"):
        if fact in facts:
            span.set_attribute(f"steer_asr.{fact}", facts[fact])
    if status >= 500:
        span.set_status(Status(StatusCode.ERROR))
