"""A server that is about to stop: what has begun is finished, what comes is sent elsewhere.

    drain = Drain()
    app.add_middleware(Draining, drain=drain)
    left = await drain.run(30)                  # refuses from now on; waits; how many requests are still unfinished

Serve's own shutdown comes afterwards. It stops all deployments at the same time, so a request whose file is just being
decoded would find no transcriber; and it takes the route away first, which clients see as 404.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from starlette.types import ASGIApp, Receive, Scope, Send

from steer_asr_serving.answers import as_json
from steer_asr_serving.errors import ApiError

ALWAYS = ("/health", "/metrics")
"""Answered to the end, and not waited for."""
RETRY_AFTER_S = 5
SERVICE_RESTART = 1012
"""Close code of a WebSocket, registered with IANA."""


class Drain:
    """How many requests are in progress, and whether new ones are taken."""

    def __init__(self) -> None:
        self.begun = False
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def run(self, timeout_s: float) -> int:
        """Takes no more requests, and waits for those in progress: how many are left after `timeout_s`, mostly 0."""
        self.begun = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        return self._running

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """For as long as a request is in progress."""
        self._running += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()


class Draining:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, drain: Drain) -> None:
        self.app, self.drain = app, drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or scope["path"] in ALWAYS:
            await self.app(scope, receive, send)
        elif self.drain.begun:
            await _refuse(scope, receive, send)
        else:
            with self.drain.counted():
                await self.app(scope, receive, send)


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    refusal = ApiError(503, "this server is stopping; try again", code="stopping", retry_after_s=RETRY_AFTER_S)
    if scope["type"] == "http":
        await refusal.response()(scope, receive, send)
        return
    await receive()  # websocket.connect
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": as_json({"type": "error", **refusal.body()})})
    await send({"type": "websocket.close", "code": SERVICE_RESTART})
