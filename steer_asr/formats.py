"""A transcription as text, JSON, SRT, VTT or verbose JSON. Pure functions; field names are OpenAI's.

print(render(transcription, "srt"))
"""

from __future__ import annotations

import html
import json
import math
from typing import Any

import numpy as np
from faster_whisper.transcribe import Segment

from steer_asr.errors import SteerOptionError, unknown_name
from steer_asr.steering import FRAME_S
from steer_asr.transcription import SteerReport, Transcription, WindowReport

FORMATS = ("text", "json", "srt", "vtt", "verbose_json")
SUFFIXES = {"text": ".txt", "json": ".json", "srt": ".srt", "vtt": ".vtt", "verbose_json": ".json"}
EDITED = 0.5
"""Frames with at least this edit weight count towards the edited spans of a report."""


def render(transcription: Transcription, format: str) -> str:
    """The transcription in one of `FORMATS`. Raises `SteerOptionError` for another."""
    match format:
        case "text":
            return transcription.text + "\n"
        case "json":
            return _json({"text": transcription.text})
        case "verbose_json":
            return _json(verbose(transcription))
        case "srt":
            return srt(transcription)
        case "vtt":
            return vtt(transcription)
    raise SteerOptionError(unknown_name("format", format, FORMATS))


def srt(transcription: Transcription) -> str:
    """SubRip: numbered cues, comma before the milliseconds."""
    cues = [
        f"{number}\n{_clock(s.start, ',')} --> {_clock(s.end, ',')}\n{_cue_text(s.text)}\n"
        for number, s in enumerate(_spoken(transcription), start=1)
    ]
    return "\n".join(cues)


def vtt(transcription: Transcription) -> str:
    """WebVTT: text is escaped, since players read it as markup."""
    cues = [
        f"{_clock(s.start, '.')} --> {_clock(s.end, '.')}\n{html.escape(_cue_text(s.text), quote=False)}\n"
        for s in _spoken(transcription)
    ]
    return "\n".join(["WEBVTT\n", *cues])


def verbose(transcription: Transcription) -> dict[str, Any]:
    """OpenAI's verbose_json, plus `speech_detected` and, with steering, a `steer` block in total and by segment."""
    words = [
        {"word": word.word, "start": round(word.start, 3), "end": round(word.end, 3)}
        for segment in transcription.segments
        for word in segment.words or ()
    ]
    body: dict[str, Any] = {
        "task": "transcribe",
        "language": transcription.language,
        "duration": round(transcription.duration_s, 3),
        "text": transcription.text,
        "segments": [_segment(i, segment) for i, segment in enumerate(transcription.segments)],
        "speech_detected": transcription.speech_detected,
    }
    if words:
        body["words"] = words
    if transcription.steer is not None:
        body["steer"] = _report(transcription.steer)
    return body


def _segment(number: int, segment: Segment) -> dict[str, Any]:
    body: dict[str, Any] = {
        "id": number,
        "seek": segment.seek,
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "text": segment.text,
        "tokens": list(segment.tokens),
        "temperature": segment.temperature,
        "avg_logprob": _number(segment.avg_logprob),
        "compression_ratio": _number(segment.compression_ratio),
        "no_speech_prob": _number(segment.no_speech_prob),
    }
    steer = getattr(segment, "steer", None)
    if steer is not None:
        body["steer"] = {
            "nobody_speaks": _number(steer.nobody_speaks),
            "edited_share": _number(steer.edited_share),
            "features": [_feature(feature) for feature in steer.features],
        }
    return body


def _report(report: SteerReport) -> dict[str, Any]:
    return {
        "pack": report.pack,
        "strength": report.strength,
        "executor": report.executor,
        "nobody_speaks": _number(report.nobody_speaks),
        "edited_share": _number(report.edited_share),
        "windows": [_window(window) for window in report.windows],
    }


def _window(window: WindowReport) -> dict[str, Any]:
    return {
        "start": round(window.start_s, 3),
        "end": round(window.end_s, 3),
        "nobody_speaks": _number(window.nobody_speaks),
        "edited_share": _number(window.edited_share),
        "edited_spans": edited_spans(window),
        "features": [_feature(feature) for feature in window.features],
    }


def _feature(feature: Any) -> dict[str, Any]:
    return {
        "feature": feature.feature,
        "peak": _number(feature.peak),
        "start": feature.start_s,
        "end": feature.end_s,
    }


def edited_spans(window: WindowReport) -> list[list[float]]:
    """[start, end] in seconds of the stretches whose frames were mostly edited (weight of at least one half)."""
    edited = np.concatenate([[False], window.frame_weights >= EDITED, [False]])
    edges = np.flatnonzero(np.diff(edited.astype(np.int8)))
    return [
        [round(window.start_s + a * FRAME_S, 2), round(window.start_s + b * FRAME_S, 2)]
        for a, b in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
    ]


def _spoken(transcription: Transcription) -> list[Segment]:
    return [segment for segment in transcription.segments if segment.text.strip()]


def _cue_text(text: str) -> str:
    """One line; the arrow would read as a cue's times, and an empty line would end the cue."""
    return " ".join(text.split()).replace("-->", "->")


def _clock(seconds: float, point: str) -> str:
    milliseconds = round(max(0.0, seconds) * 1000)
    hours, rest = divmod(milliseconds, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d}{point}{rest % 1000:03d}"


def _number(value: float) -> float | None:
    """JSON has no NaN: a pack without a gate has no opinion, an empty answer no mean."""
    value = float(value)
    return round(value, 6) if math.isfinite(value) else None


def _json(body: dict[str, Any]) -> str:
    return json.dumps(body, ensure_ascii=False, allow_nan=False) + "\n"
