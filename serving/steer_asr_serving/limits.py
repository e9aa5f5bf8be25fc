"""The upload limit.

    app.add_middleware(BodyLimit, max_bytes=25 * 1024 * 1024)

Neither Ray's proxy nor Starlette bounds a request body.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from steer_asr_serving.errors import ApiError


class BodyLimit:
    """ASGI middleware that answers 413 to a body over `max_bytes`, by its announced size or as it arrives."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app, self.max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdecimal() and int(announced) > self.max_bytes:
            await self._too_large().response()(scope, receive, send)
            return
        received_bytes = 0

        async def counted() -> Message:
            nonlocal received_bytes
            message = await receive()
            received_bytes += len(message.get("body", b""))
            if received_bytes > self.max_bytes:
                raise self._too_large()  # inside the route that reads the body, whose error handler answers
            return message

        await self.app(scope, counted, send)

    def _too_large(self) -> ApiError:
        return ApiError(413, f"the upload is larger than {self.max_bytes} bytes", "file", "upload_too_large")
