"""Errors as OpenAI's clients expect them: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from steer_asr.audio import NOT_AUDIO
from steer_asr.errors import AudioError, AudioLimitError, PackError, SteerASRError, SteerOptionError

RETRY_AFTER_S = 1
"""Wait asked of a client whose request may succeed when it is sent again."""
HEADERS = {
    401: {"WWW-Authenticate": "Bearer"},
    408: {"Connection": "close"},  # the rest of the upload may still come
    504: {"X-Should-Retry": "false"},  # OpenAI's client would, and wait as long again
}


class ApiError(Exception):
    """A request that is answered with an error."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int = RETRY_AFTER_S,
    ) -> None:
        # All of them, so that it survives pickling between processes.
        super().__init__(status, message, param, code, retry_after_s)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.retry_after_s = retry_after_s

    def body(self) -> dict[str, Any]:
        """The envelope."""
        error = {"message": self.message, "type": _error_type(self.status), "param": self.param, "code": self.code}
        return {"error": error}

    def response(self) -> JSONResponse:
        headers = dict(HEADERS.get(self.status, {}))
        if self.status in (429, 503):
            headers["Retry-After"] = str(self.retry_after_s)
        return JSONResponse(self.body(), self.status, headers=headers)


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorEnvelope(BaseModel):
    """Body of every answer with a status of 400 or more."""

    error: ErrorDetail


def from_library(error: SteerASRError) -> ApiError:
    """The answer to a request on which the library gave up."""
    if isinstance(error, AudioLimitError):
        return ApiError(413, str(error), "file", "audio_too_long")
    if isinstance(error, AudioError):
        if NOT_AUDIO.partition(" (")[0] in str(error):
            return ApiError(415, str(error), "file", "unsupported_audio")
        return ApiError(422, str(error), "file", "unusable_audio")  # audio by its form, but cut off, broken, protected
    if isinstance(error, SteerOptionError | PackError):
        return ApiError(400, str(error), "steer", "invalid_steer")
    return ApiError(500, "the server could not transcribe this", code="internal_error")


def as_api_error(error: Exception) -> ApiError:
    """The answer to a request that ended in `error`; what nobody expected is not described to the client."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, SteerASRError):
        return from_library(error)
    return ApiError(500, "the server failed; its log says why", code="internal_error")


def note_error(request: Request, error: ApiError) -> None:
    """For the request's line in the log."""
    request.state.facts["error"] = error.code or error.message


def install(app: FastAPI) -> None:
    """Makes `app` answer every error in the envelope."""

    async def answer(request: Request, error: Exception) -> JSONResponse:
        refusal = as_api_error(error)
        note_error(request, refusal)
        return refusal.response()

    for kind in (ApiError, SteerASRError):  # what nobody expected is answered by `observe`, which logs it
        app.add_exception_handler(kind, answer)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        message = error.detail
        if error.status_code == 404:
            message = f"there is nothing at {request.method} {request.url.path}"
        return ApiError(error.status_code, message).response()

    @app.exception_handler(RequestValidationError)
    async def unusable_request(_request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return ApiError(422, f"{first['loc'][-1]}: {first['msg']}", str(first["loc"][-1]), "invalid_value").response()


def _error_type(status: int) -> str:
    if status >= 500:
        return "server_error"
    return {401: "authentication_error", 429: "rate_limit_error"}.get(status, "invalid_request_error")
