"""`/v1/audio/stream`: a WebSocket that takes sound while it is spoken and sends text while it is understood.

    ws://127.0.0.1:8000/v1/audio/stream?model=base&steer=default&language=en

The client sends 16-bit little-endian mono samples at 16 kHz in binary messages, and `{"type": "end"}` when it is done.
It gets `transcript.partial` (replaces the one before), `transcript.final`, at last `transcript.done`, or an `error`.
Where nobody speaks, nothing is sent.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from fastapi.security import HTTPAuthorizationCredentials
from faster_whisper.transcribe import Segment
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from steer_asr.audio import SAMPLE_RATE_HZ
from steer_asr_serving.answers import as_json
from steer_asr_serving.audio_routes import model_named
from steer_asr_serving.auth import Gate
from steer_asr_serving.deployment import Job, Outcome, Transcriber
from steer_asr_serving.errors import ApiError, as_api_error
from steer_asr_serving.form import wire_steer
from steer_asr_serving.live import WINDOW_S, Hearing
from steer_asr_serving.logs import log_request, logger
from steer_asr_serving.metrics import Metrics
from steer_asr_serving.served import Catalogue
from steer_asr_serving.settings import Settings

STEP_S = 1.0
"""New sound that makes another transcription worth while. A busy server takes longer steps."""
MAX_WAITING_S = 4 * WINDOW_S
"""Unsettled sound from which on nothing more is read: a client that sends a file is slowed down to our pace."""
BUSY_WAIT_S = 1.0
POLICY, FAILED, NORMAL = 1008, 1011, 1000
"""Close codes of RFC 6455."""


class StreamOptions(BaseModel):
    """The query of a stream."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(default="whisper-1", max_length=200)
    language: str | None = Field(default=None, max_length=16)
    steer: str | None = Field(default=None, max_length=1000)
    prompt: str | None = Field(default=None, max_length=10_000)
    hotwords: str | None = Field(default=None, max_length=2000)


def live_route(
    settings: Settings, catalogue: Catalogue, transcriber: Transcriber, gate: Gate, metrics: Metrics
) -> APIRouter:
    """The WebSocket route."""
    router = APIRouter()

    @router.websocket("/v1/audio/stream")
    async def stream(socket: WebSocket) -> None:
        await socket.accept()
        started, facts = time.monotonic(), {"method": "WEBSOCKET", "route": "/v1/audio/stream", "status": 101}
        metrics.stream_opened()
        try:
            with gate.admitted(_bearer(socket), socket.client and socket.client.host, facts):
                _check_origin(socket.headers)
                job = _job(socket.query_params, catalogue)
                await _Stream(socket, job, transcriber, settings, metrics).run(facts)
        except WebSocketDisconnect:
            facts["status"] = 499
        except Exception as error:
            answer = as_api_error(error)
            facts |= {"status": answer.status, "error": answer.code or answer.message}
            if answer.status == 500:
                logger.exception("stream failed", extra={"facts": facts})
            await _refuse(socket, answer)
        finally:
            metrics.stream_closed()
            log_request(facts | {"seconds": round(time.monotonic() - started, 3)})

    return router


class _Stream:
    """One connection: reads in one task, transcribes in the other."""

    def __init__(
        self, socket: WebSocket, job: Job, transcriber: Transcriber, settings: Settings, metrics: Metrics
    ) -> None:
        self.socket, self.job, self.transcriber = socket, job, transcriber
        self.settings, self.metrics = settings, metrics
        self.hearing, self.total_s, self.text, self.partial = Hearing(), 0.0, "", ""
        self._changed = asyncio.Condition()
        self._ended = False

    async def run(self, facts: dict[str, Any]) -> None:
        """Until the client has ended the stream and has all of its text."""
        reading = asyncio.create_task(self._read())
        writing = asyncio.create_task(self._write())
        try:
            await asyncio.wait({reading, writing}, return_when=asyncio.FIRST_EXCEPTION)
            if reading.done():
                reading.result()  # raises what ended it
            await writing
        finally:
            for task in (reading, writing):
                task.cancel()
            await asyncio.gather(reading, writing, return_exceptions=True)
            facts |= {"model": self.job.model, "audio_s": round(self.total_s, 3)}

    async def _read(self) -> None:
        """Takes sound as it comes, unless too much is waiting."""
        while not self._ended:
            async with self._changed:
                await self._changed.wait_for(lambda: self.hearing.waiting_s < MAX_WAITING_S)
            try:
                message = await asyncio.wait_for(self.socket.receive(), self.settings.upload_pause_s)
            except TimeoutError:
                pause_s = self.settings.upload_pause_s
                raise ApiError(408, f"no sound came for {pause_s:g} s; send silence, or end the stream") from None
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", NORMAL))
            async with self._changed:
                self._take(message)
                self._changed.notify_all()

    def _take(self, message: Mapping[str, Any]) -> None:
        pcm = message.get("bytes")
        if pcm is None:
            self._ended = _is_end(message.get("text") or "")
            return
        self.hearing.add(pcm)
        self.total_s += len(pcm) / 2 / SAMPLE_RATE_HZ
        if self.total_s > self.settings.max_stream_s:
            raise ApiError(413, f"streams end after {self.settings.max_stream_s:g} s", code="audio_too_long")

    async def _write(self) -> None:
        """Transcribes what there is, whenever it has grown enough, and sends what came of it."""
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._ended or self.hearing.new_s >= STEP_S)
                audio = self.hearing.audio()
                last = self._ended and self.hearing.new_s == 0
            if len(audio):
                outcome = await self._transcribed(replace(self.job, audio=audio))
                async with self._changed:
                    settled, pending = self.hearing.settle(
                        outcome.transcription.segments, len(audio) / SAMPLE_RATE_HZ, last=last
                    )
                    self._changed.notify_all()
                for segment in settled:
                    self.text += segment.text
                    times = {"start": segment.start, "end": segment.end}
                    await self._send("transcript.final", text=segment.text, **times, steer=_steer(segment))
                await self._tell_partial(pending)
            if last:
                await self._done()
                return

    async def _transcribed(self, job: Job) -> Outcome:
        """Waits while the server has too much to do; the stream then takes a longer step."""
        while True:
            try:
                return await self.transcriber.transcribe(job)
            except ApiError as busy:
                if busy.status not in (429, 503):
                    raise
                await asyncio.sleep(BUSY_WAIT_S)

    async def _tell_partial(self, pending: Sequence[Segment]) -> None:
        text = "".join(segment.text for segment in pending)
        if text != self.partial and pending:
            await self._send("transcript.partial", text=text, start=pending[0].start, end=pending[-1].end)
        self.partial = text

    async def _send(self, kind: str, **body: Any) -> None:
        await self.socket.send_text(as_json({"type": kind} | body))

    async def _done(self) -> None:
        text = self.text.strip()
        spoken = any(character.isalnum() for character in text)
        self.metrics.streamed(self.job.model, self.total_s)
        duration = round(self.total_s, 3)
        await self._send("transcript.done", text=text, duration=duration, speech_detected=spoken)
        await self.socket.close(NORMAL)


def _job(query: Mapping[str, str], catalogue: Catalogue) -> Job:
    """A job without sound, as the query asks for it. Raises `ApiError` 400 or 404."""
    try:
        options = StreamOptions.model_validate(dict(query))
    except ValidationError as invalid:
        first = invalid.errors(include_url=False)[0]
        raise ApiError(400, f"{first['loc'][0]}: {first['msg']}", str(first["loc"][0]), "invalid_value") from invalid
    served = model_named(options.model, catalogue)
    steering = served.steering(wire_steer(options.steer))
    return Job(
        served.name,
        np.zeros(0, np.float32),
        steering,
        language=options.language or None,
        prompt=options.prompt or None,
        hotwords=options.hotwords or None,
    )


def _steer(segment: Segment) -> dict[str, float | None] | None:
    steer = getattr(segment, "steer", None)
    if steer is None:
        return None
    known = steer.nobody_speaks == steer.nobody_speaks  # NaN from a pack without a gate
    return {
        "nobody_speaks": round(steer.nobody_speaks, 6) if known else None,
        "edited_share": round(steer.edited_share, 6),
    }


def _is_end(text: str) -> bool:
    try:
        kind = json.loads(text).get("type")
    except (ValueError, AttributeError, RecursionError):
        kind = None
    if kind != "end":
        raise ApiError(400, 'send sound in binary messages, and {"type": "end"} at its end', code="invalid_message")
    return True


def _bearer(socket: WebSocket) -> HTTPAuthorizationCredentials | None:
    scheme, _, credentials = socket.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not credentials:
        return None
    return HTTPAuthorizationCredentials(scheme=scheme, credentials=credentials)


def _check_origin(headers: Mapping[str, str]) -> None:
    """Browsers let any page open a WebSocket to this machine; pages that are not ours are sent away."""
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != headers.get("host"):
        raise ApiError(403, "pages of another origin may not use this server", code="foreign_origin")


async def _refuse(socket: WebSocket, answer: ApiError) -> None:
    """Says what is wrong, and closes; the client may be gone by then."""
    try:
        await socket.send_text(as_json({"type": "error", **answer.body()}))
        await socket.close(FAILED if answer.status >= 500 else POLICY)
    except (RuntimeError, WebSocketDisconnect):
        pass
