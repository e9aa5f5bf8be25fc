"""The two audio requests: read the form, decode, transcribe, answer.

Only awaiting happens on the event loop. Decoding runs in processes of its own, formatting in threads, transcribing in
the replicas.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote

import anyio.to_thread
import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from starlette.datastructures import UploadFile

from steer_asr.audio import SAMPLE_RATE_HZ
from steer_asr_serving import answers, audit, events
from steer_asr_serving.deployment import Job, Outcome, Transcriber
from steer_asr_serving.errors import ApiError, ErrorEnvelope, note_error
from steer_asr_serving.form import parse_form, wire_steer
from steer_asr_serving.metrics import Metrics
from steer_asr_serving.sandbox import Decoder
from steer_asr_serving.schemas import AudioFields, TranscriptionFields, TranslationFields, request_body_schema
from steer_asr_serving.served import MODEL_ALIAS, Catalogue, ServedModel
from steer_asr_serving.settings import Settings
from steer_asr_serving.timeouts import Deadline, too_late, too_slow, while_connected

MAX_FIELDS = 250
EVENT_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""nginx would otherwise hold events back."""
STATUSES = (400, 401, 404, 408, 413, 415, 422, 429, 500, 503, 504)
ERRORS: dict[int | str, dict[str, Any]] = {status: {"model": ErrorEnvelope} for status in STATUSES}
TEXT_BODY = {"application/json": {"schema": {"type": "object", "required": ["text"]}}, "text/plain": {}}
EVENTS_BODY = {"text/event-stream": {}}


def audio_routes(
    settings: Settings, catalogue: Catalogue, transcriber: Transcriber, metrics: Metrics, decoder: Decoder
) -> APIRouter:
    """`/v1/audio/transcriptions` and `/v1/audio/translations`."""
    desk = _Desk(settings, catalogue, transcriber, metrics, decoder)
    router = APIRouter(prefix="/v1/audio", default_response_class=Response)

    @router.post(
        "/transcriptions",
        responses=ERRORS | {200: {"content": TEXT_BODY | EVENTS_BODY}},
        openapi_extra=_body(TranscriptionFields),
    )
    async def transcriptions(request: Request) -> Response:
        """OpenAI's transcription request, plus `steer` and `hotwords`."""
        return await desk.answer(request, TranscriptionFields)

    @router.post(
        "/translations", responses=ERRORS | {200: {"content": TEXT_BODY}}, openapi_extra=_body(TranslationFields)
    )
    async def translations(request: Request) -> Response:
        """OpenAI's translation request, into English, plus `steer` and `hotwords`."""
        return await desk.answer(request, TranslationFields)

    return router


@dataclass
class _Desk:
    settings: Settings
    catalogue: Catalogue
    transcriber: Transcriber
    metrics: Metrics
    decoder: Decoder

    async def answer(self, request: Request, kind: type[AudioFields]) -> Response:
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            raise ApiError(415, "send the audio as multipart/form-data, in a field 'file'")
        limit_s = self.settings.request_timeout_s
        deadline, late = Deadline(limit_s), too_late(limit_s)
        async with deadline.enforced(too_slow()):
            form = await request.form(max_files=1, max_fields=MAX_FIELDS)
        try:
            upload, fields = parse_form(form, kind)
            served = model_named(fields.model, self.catalogue)
            steering = served.steering(wire_steer(fields.steer))
            async with deadline.enforced(late):
                audio = await decoded(upload, self.decoder)
        finally:
            await form.close()
        audited = self.settings.audit_text and steering is not None
        job = Job(served.name, audio, steering, stock_texts=audited, **_options(fields))
        headers = _steer_headers(served, job)
        facts = request.state.facts
        facts |= _job_facts(job, fields, self.settings.log_text)

        def note(outcome: Outcome) -> None:
            self.metrics.outcome(job, outcome)
            if self.settings.audit_file is not None:
                audit.record(job, outcome, facts)
            facts.update(_outcome_facts(outcome, self.settings.log_text))

        if isinstance(fields, TranscriptionFields) and fields.stream:
            failed = partial(note_error, request)
            pieces = deadline.each(self.transcriber.stream(job), late)
            written = await events.begin(pieces, on_done=note, on_error=failed)
            return StreamingResponse(written, media_type="text/event-stream", headers=headers | EVENT_HEADERS)
        async with deadline.enforced(late):
            outcome = await while_connected(request.receive, self.transcriber.transcribe(job))
        note(outcome)
        body, media_type = await anyio.to_thread.run_sync(answers.whole, outcome, fields)
        return Response(body, media_type=media_type, headers=headers)


async def decoded(upload: UploadFile, decoder: Decoder) -> np.ndarray:
    """The upload as float32 mono [n_samples] at 16 kHz. Raises `ApiError` or `AudioError` when there is none in it."""
    if not upload.size:
        raise ApiError(400, "the uploaded file is empty", "file", "empty_file")
    audio = await decoder.decode(upload.file)
    if not len(audio):
        raise ApiError(422, "the recording has no samples", "file", "unusable_audio")
    return audio


def model_named(name: str, catalogue: Catalogue) -> ServedModel:
    """Raises `ApiError` 404 when it is not served here."""
    if served := catalogue.get(name):
        return served
    known = list(catalogue.models)
    message = f"the model {name!r} is not served here; served: {', '.join(known)} ({known[0]} also as {MODEL_ALIAS})"
    raise ApiError(404, message, "model", "model_not_found")


def _options(fields: AudioFields) -> dict[str, Any]:
    """A job's options, as the form asks for them."""
    shared = {"prompt": fields.prompt, "temperature": fields.temperature}
    if not isinstance(fields, TranscriptionFields):
        return shared | {"task": "translate", "hotwords": fields.hotwords}
    return shared | {
        "language": fields.language,
        "hotwords": fields.expected_words,
        "word_timestamps": "word" in fields.timestamp_granularities,
        "vad": fields.vad,
        "logprobs": "logprobs" in fields.include,
    }


def _job_facts(job: Job, fields: AudioFields, with_text: bool) -> dict[str, Any]:
    """What the log says of a job; the words around it only if asked."""
    return {
        "model": job.model,
        "task": job.task,
        "audio_s": round(len(job.audio) / SAMPLE_RATE_HZ, 3),
        "response_format": fields.response_format,
        "stream": isinstance(fields, TranscriptionFields) and fields.stream,
        "steer": 0.0 if job.steering is None else job.steering.strength,
        **({"prompt": job.prompt, "hotwords": job.hotwords} if with_text else {}),
    }


def _outcome_facts(outcome: Outcome, with_text: bool) -> dict[str, Any]:
    transcription = outcome.transcription
    facts: dict[str, Any] = {
        "transcribe_s": round(outcome.seconds, 3),
        "language": transcription.language,
        "segments": len(transcription.segments),
        "speech_detected": transcription.speech_detected,
    }
    if report := transcription.steer:
        facts |= {"pack": report.pack, "edited_share": round(report.edited_share, 3)}
        facts["nobody_speaks"] = round(report.nobody_speaks, 3) if math.isfinite(report.nobody_speaks) else None
    return facts | ({"text": transcription.text} if with_text else {})


def _steer_headers(served: ServedModel, job: Job) -> dict[str, str]:
    """Which steering an answer came from, also in formats that have no place for it."""
    if job.steering is None:
        return {}
    return {"X-Steer-Pack": quote(served.pack_name(job.steering)), "X-Steer-Strength": f"{job.steering.strength:g}"}


def _body(kind: type[AudioFields]) -> dict[str, Any]:
    return {"requestBody": request_body_schema(kind)}
