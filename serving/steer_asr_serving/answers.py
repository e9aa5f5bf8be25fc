"""A finished or running transcription as OpenAI writes it: whole bodies and server-sent events. Pure functions.

body, media_type = whole(outcome, fields)
yield event(delta(" Good", None))
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from steer_asr.formats import render, verbose
from steer_asr_serving.deployment import Outcome
from steer_asr_serving.schemas import AudioFields, TranscriptionFields
from steer_asr_serving.tap import TokenLogprob

JSON, TEXT = "application/json", "text/plain"


def whole(outcome: Outcome, fields: AudioFields) -> tuple[str, str]:
    """(body, media type) in the format that was asked for."""
    transcription = outcome.transcription
    usage = {"type": "duration", "seconds": round(transcription.duration_s, 3)}
    match fields.response_format:
        case "json":
            body: dict[str, Any] = {"text": transcription.text, "usage": usage}
            if outcome.logprobs is not None:
                body["logprobs"] = logprobs_body(outcome.logprobs)
        case "verbose_json":
            body = verbose(transcription) | {"usage": usage} | _as_asked(outcome, fields)
            if isinstance(fields, TranscriptionFields) and "segment" not in fields.timestamp_granularities:
                del body["segments"]
        case other:
            return render(transcription, other), TEXT
    return as_json(body) + "\n", JSON


def _as_asked(outcome: Outcome, fields: AudioFields) -> dict[str, Any]:
    """What a verbose answer depends on the request for."""
    if not isinstance(fields, TranscriptionFields):
        return {"task": "translate", "language": "english"}  # OpenAI's constant, whatever was spoken
    silent = not outcome.transcription.segments
    return {"words": []} if silent and "word" in fields.timestamp_granularities else {}


def logprobs_body(logprobs: Sequence[TokenLogprob]) -> list[dict[str, Any]]:
    """As OpenAI's clients expect them."""
    return [asdict(token) for token in logprobs]


def as_json(body: dict[str, Any]) -> str:
    """On one line, and never with NaN."""
    return json.dumps(body, ensure_ascii=False, allow_nan=False)
