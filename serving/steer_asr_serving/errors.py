"""Errors as OpenAI's clients expect them: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from steer_asr.errors import AudioError, AudioLimitError, PackError, SteerASRError, SteerOptionError

RETRY_AFTER_S = 1
"""Wait asked of a client whose request may succeed when it is sent again."""


class ApiError(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(status, message, param, code)  # all of them, so that it survives pickling between processes
        self.status, self.message, self.param, self.code = status, message, param, code

    def response(self) -> JSONResponse:
        body = {"message": self.message, "type": _error_type(self.status), "param": self.param, "code": self.code}
        return JSONResponse({"error": body}, self.status, headers=_headers(self.status))


def from_library(error: SteerASRError) -> ApiError:
    """The answer to a request on which the library gave up."""
    if isinstance(error, AudioLimitError):
        return ApiError(413, str(error), "file", "audio_too_long")
    if isinstance(error, AudioError):
        return ApiError(415, str(error), "file", "unsupported_audio")
    if isinstance(error, SteerOptionError | PackError):
        return ApiError(400, str(error), "steer", "invalid_steer")
    return ApiError(500, "the server could not transcribe this", code="internal_error")


def install(app: FastAPI) -> None:
    """Makes `app` answer every error in the envelope."""

    @app.exception_handler(ApiError)
    async def api_error(_request: Request, error: ApiError) -> JSONResponse:
        return error.response()

    @app.exception_handler(SteerASRError)
    async def library_error(_request: Request, error: SteerASRError) -> JSONResponse:
        return from_library(error).response()

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        message = error.detail
        if error.status_code == 404:
            message = f"there is nothing at {request.method} {request.url.path}"
        return ApiError(error.status_code, message).response()

    @app.exception_handler(Exception)
    async def unexpected(_request: Request, _error: Exception) -> JSONResponse:
        return ApiError(500, "the server failed; its log says why", code="internal_error").response()


def _error_type(status: int) -> str:
    if status >= 500:
        return "server_error"
    return {401: "authentication_error", 429: "rate_limit_error"}.get(status, "invalid_request_error")


def _headers(status: int) -> Mapping[str, str]:
    if status == 401:
        return {"WWW-Authenticate": "Bearer"}
    return {"Retry-After": str(RETRY_AFTER_S)} if status in (429, 503) else {}
