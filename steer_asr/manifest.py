"""Audio manifests: NeMo-style JSONL, one clip a line.

clips = read_manifest("manifests/dev_speech.jsonl")
clips[0].audio_path, clips[0].text
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from steer_asr.errors import ManifestError

Kind = Literal["speech", "nonspeech", "mixed"]
TEXT_KEYS = (
    *("audio_filepath", "text", "label", "source", "group", "lang", "split", "category", "licence"),
    "alignment_filepath",
)
SPAN_TOLERANCE_S = 0.01
"""How far a span may reach beyond the stated duration: both are rounded."""


@dataclass(frozen=True)
class Span:
    """A stretch of a recording in which somebody speaks."""

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True)
class Clip:
    """One line of a manifest."""

    audio_path: Path
    """Resolved against the manifest's folder."""
    duration_s: float
    text: str
    """What is said; empty for non-speech."""
    kind: Kind
    label: str = ""
    source: str = ""
    """The collection it comes from."""
    group: str = ""
    """Speaker or original recording: what statistics resample by."""
    lang: str = ""
    split: str = ""
    category: str = ""
    licence: str = ""
    shippable: bool = False
    """Whether a pack trained on it may be shipped. False unless the manifest says otherwise."""
    alignment_path: Path | None = None
    snr_db: float | None = None
    """Signal-to-noise ratio, where speech was mixed with noise."""
    spans: tuple[Span, ...] = ()
    """When somebody speaks in a recording, in order; key `speech`, a list of [start_s, end_s, text]."""


def read_manifest(path: str | os.PathLike[str]) -> list[Clip]:
    """All clips of a manifest; blank lines are skipped.

    Raises `ManifestError` that names file and line when a line is broken, and when the file is missing or empty.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # not splitlines: U+2028 may stand in a transcript
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: cannot be read as a manifest ({error})") from error
    clips = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                clips.append(_clip(json.loads(line), path.parent))
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                raise ManifestError(f"{path}:{number}: {_reason(error)}") from error
    if not clips:
        raise ManifestError(f"{path}: no clip in it; one JSON object per line is expected")
    return clips


def _clip(row: Any, folder: Path) -> Clip:
    if not isinstance(row, Mapping):
        raise TypeError("not a JSON object")
    kind = row.get("kind") or ("speech" if row.get("text") else "nonspeech")
    if kind not in get_args(Kind):
        raise ValueError(f"kind {kind!r} is none of {', '.join(get_args(Kind))}")
    duration = row["duration"]
    if isinstance(duration, bool) or not isinstance(duration, int | float) or not 0 <= duration < 1e7:
        raise ValueError(f"duration {duration!r} is not a number of seconds")
    for key in TEXT_KEYS:
        if not isinstance(row.get(key, ""), str):
            raise TypeError(f"{key} must be text")
    if not row["audio_filepath"]:
        raise ValueError("audio_filepath is empty")
    alignment = row.get("alignment_filepath", "")
    return Clip(
        audio_path=folder / row["audio_filepath"],
        duration_s=float(duration),
        text=row.get("text", ""),
        kind=kind,
        label=row.get("label", ""),
        source=row.get("source", ""),
        group=row.get("group", "") or row["audio_filepath"],
        lang=row.get("lang", ""),
        split=row.get("split", ""),
        category=row.get("category", ""),
        licence=row.get("licence", ""),
        shippable=row.get("shippable") is True,
        alignment_path=folder / alignment if alignment else None,
        snr_db=_snr_db(row.get("snr_db")),
        spans=_spans(row.get("speech", ()), float(duration)),
    )


def _snr_db(value: Any) -> float | None:
    if value is None:
        return None
    if not _is_number(value):
        raise ValueError(f"snr_db {value!r} is not a number of decibels")
    return float(value)


def _spans(value: Any, duration_s: float) -> tuple[Span, ...]:
    """Raises `ValueError` for what is not [start_s, end_s, text], and for spans that overlap or leave the clip."""
    if not isinstance(value, list | tuple):
        raise TypeError("speech must be a list of [start_s, end_s, text]")
    spans: list[Span] = []
    for entry in value:
        match entry:
            case [start, end, str(text)] if _is_number(start) and _is_number(end):
                spans.append(Span(float(start), float(end), text))
            case _:
                raise ValueError(f"speech holds {entry!r}, which is not [start_s, end_s, text]")
        earliest = spans[-2].end_s if len(spans) > 1 else 0.0
        if not earliest <= spans[-1].start_s < spans[-1].end_s <= duration_s + SPAN_TOLERANCE_S:
            raise ValueError(f"speech from {start} to {end} s is out of order or outside the clip's {duration_s} s")
    return tuple(spans)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e7


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON ({error.msg} at column {error.colno})"
    return f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
