"""How long a request may take, and how slowly an upload may arrive.

    app.add_middleware(UploadPace, pause_s=30, min_bytes_per_s=1024)

    deadline = Deadline(600)
    async with deadline.enforced(too_late(600)):            # cancelled at the deadline, which stops the decode
        outcome = await while_connected(request.receive, transcriber.transcribe(job))   # and when the client leaves

An upload that is too slow is answered 408; OpenAI's client sends it again. A request that takes too long is answered
504 with `X-Should-Retry: false`, which that client obeys: it would take as long again. 503 with `Retry-After` is for
what may well succeed when it is sent again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from steer_asr_serving.errors import ApiError

Item = TypeVar("Item")


class Deadline:
    """When a request has to be answered: `seconds` from now, on the running loop's clock."""

    def __init__(self, seconds: float) -> None:
        self._at_s = asyncio.get_running_loop().time() + seconds

    @asynccontextmanager
    async def enforced(self, refusal: ApiError) -> AsyncIterator[None]:
        """Cancels what is inside at the deadline, and raises `refusal`."""
        timeout = asyncio.timeout_at(self._at_s)
        try:
            async with timeout:
                yield
        except TimeoutError as error:
            if timeout.expired():
                raise refusal from error
            raise

    async def each(self, items: AsyncGenerator[Item, None], refusal: ApiError) -> AsyncGenerator[Item, None]:
        """Passes items on until the deadline; then closes where they come from, and raises `refusal`."""
        async with aclosing(items):
            while True:
                async with self.enforced(refusal):
                    try:
                        item = await anext(items)
                    except StopAsyncIteration:
                        return
                yield item


async def while_connected(receive: Receive, work: Coroutine[Any, Any, Item]) -> Item:
    """What `work` gives; cancels it and raises `ClientDisconnect` when the client of a finished upload goes away."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            leaving.result()
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class UploadPace:
    """ASGI middleware that gives up on a body that pauses for `pause_s`, or drips.

    All pauses together may take `pause_s`, and a second more for every `min_bytes_per_s` bytes. Only time spent waiting
    for the client counts. `clock` is in seconds.
    """

    def __init__(
        self, app: ASGIApp, pause_s: float, min_bytes_per_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.app, self.pause_s, self.min_bytes_per_s, self.clock = app, pause_s, min_bytes_per_s, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        waited_s, received_bytes, complete = 0.0, 0, False

        async def paced() -> Message:
            nonlocal waited_s, received_bytes, complete
            if complete:
                return await receive()  # waits for the client to leave, however long it stays
            allowed_s = min(self.pause_s, self.pause_s + received_bytes / self.min_bytes_per_s - waited_s)
            started_s = self.clock()
            timeout = asyncio.timeout(allowed_s)
            try:
                async with timeout:
                    message = await receive()
            except TimeoutError as error:
                if timeout.expired():
                    raise too_slow(received_bytes) from error
                raise
            waited_s += self.clock() - started_s
            received_bytes += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            return message

        await self.app(scope, paced, send)


def too_slow(received_bytes: int | None = None) -> ApiError:
    """The answer to an upload that does not get on."""
    after = "" if received_bytes is None else f"; {received_bytes} bytes had arrived"
    return ApiError(408, f"the upload is too slow{after}; send it again, or less at a time", "file", "upload_timeout")


def too_late(seconds: float) -> ApiError:
    """The answer to a request that takes too long."""
    message = f"this took longer than {seconds:g} s and was stopped; send less audio, or wait until others are done"
    return ApiError(504, message, code="request_timeout")
