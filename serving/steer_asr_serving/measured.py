"""Stands between the routes and the transcriber: counts what waits and runs there, and traces each job.

    transcriber = Measured(transcriber, metrics, tracer)

Whatever asks for a transcription, files, streams and the page, comes through here.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import BinaryIO

import numpy as np
from opentelemetry.trace import Span, Status, StatusCode, Tracer

from steer_asr.audio import SAMPLE_RATE_HZ
from steer_asr_serving.deployment import Job, Outcome, Piece, Transcriber
from steer_asr_serving.metrics import Metrics
from steer_asr_serving.sandbox import Decoder


class Measured:
    """A `Transcriber` that passes everything on."""

    def __init__(self, wrapped: Transcriber, metrics: Metrics, tracer: Tracer) -> None:
        self._wrapped, self._metrics, self._tracer = wrapped, metrics, tracer

    async def transcribe(self, job: Job) -> Outcome:
        """As the transcriber's."""
        with self._watched(job) as done:
            outcome = await self._wrapped.transcribe(job)
            done(outcome)
        return outcome

    async def stream(self, job: Job) -> AsyncGenerator[Piece | Outcome, None]:
        """As the transcriber's."""
        with self._watched(job) as done:
            async with aclosing(self._wrapped.stream(job)) as items:
                async for item in items:
                    if isinstance(item, Outcome):
                        done(item)
                    yield item

    async def ready(self) -> bool:
        """As the transcriber's."""
        return await self._wrapped.ready()

    @contextmanager
    def _watched(self, job: Job) -> Iterator[Callable[[Outcome], None]]:
        """The span is not made the current one: a generator may be left in another context than it was begun in."""
        span = self._tracer.start_span("transcribe", attributes=_asked(job))
        started = time.monotonic()

        def done(outcome: Outcome) -> None:
            queue_s = max(0.0, time.monotonic() - started - outcome.seconds)
            self._metrics.queued(job.model, queue_s)
            _note(span, outcome, queue_s)

        self._metrics.job_begins()
        try:
            yield done
        except (asyncio.CancelledError, GeneratorExit):
            span.set_attribute("steer_asr.abandoned", True)
            raise
        except Exception as error:
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise
        finally:
            self._metrics.job_ends()
            span.end()


class TracedDecoder:
    """A decoder of uploads, each in a span."""

    def __init__(self, wrapped: Decoder, tracer: Tracer) -> None:
        self._wrapped, self._tracer = wrapped, tracer

    def warm(self) -> None:
        """As the decoder's."""
        self._wrapped.warm()

    def close(self) -> None:
        """As the decoder's."""
        self._wrapped.close()

    async def decode(self, file: BinaryIO) -> np.ndarray:
        """As the decoder's."""
        with self._tracer.start_as_current_span("decode", record_exception=False):
            return await self._wrapped.decode(file)


def _asked(job: Job) -> dict[str, str | float]:
    """Never text: no prompt, no hotwords."""
    return {
        "steer_asr.model": job.model,
        "steer_asr.task": job.task,
        "steer_asr.audio_s": round(len(job.audio) / SAMPLE_RATE_HZ, 3),
        "steer_asr.strength": 0.0 if job.steering is None else job.steering.strength,
    }


def _note(span: Span, outcome: Outcome, queue_s: float) -> None:
    transcription = outcome.transcription
    span.set_attribute("steer_asr.queue_s", round(queue_s, 3))
    span.set_attribute("steer_asr.transcribe_s", round(outcome.seconds, 3))
    span.set_attribute("steer_asr.language", transcription.language)
    span.set_attribute("steer_asr.speech_detected", transcription.speech_detected)
    if outcome.batches:
        span.set_attribute("steer_asr.largest_batch", max(outcome.batches))
    if report := transcription.steer:
        span.set_attribute("steer_asr.pack", report.pack)
        span.set_attribute("steer_asr.windows", len(report.windows))
        span.set_attribute("steer_asr.edited_share", round(report.edited_share, 4))
        if math.isfinite(report.nobody_speaks):
            span.set_attribute("steer_asr.nobody_speaks", round(report.nobody_speaks, 4))
