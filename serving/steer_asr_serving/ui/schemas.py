"""What the page and the server say to each other."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema, field_validator

_ENCODED = {"type": "string", "contentEncoding": "base64"}
Levels = Annotated[
    bytes, PlainSerializer(lambda levels: base64.b64encode(levels).decode("ascii")), WithJsonSchema(_ENCODED)
]
"""Numbers from 0 to 255, in base64."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class AnalyzeFields(_Strict):
    """The form fields of `POST /ui/api/analyze`, beside the file."""

    model: Annotated[str, Field(max_length=200)]
    """A served model's name, or whisper-1."""
    language: Annotated[str | None, Field(max_length=16)] = None
    """ISO 639-1 code; detected when absent."""

    @field_validator("language")
    @classmethod
    def _empty_means_detect(cls, value: str | None) -> str | None:
        return value or None


class ResteerRequest(_Strict):
    """The body of `POST /ui/api/resteer`."""

    id: Annotated[str, Field(max_length=64)]
    """As `analyze` gave it."""
    strength: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    pack: Annotated[str, Field(max_length=1000)] = "default"
    """One of the model's packs."""


class PageModel(_Strict):
    """A served model, and how it can be steered."""

    id: str
    packs: list[str]
    """The default one first; empty when the model cannot be steered here."""
    max_steer: float
    strength: float
    """Where the slider starts: the server's default, or the highest strength if that is off."""


class PageSettings(_Strict):
    """Answer of `GET /ui/api/settings`."""

    version: str
    max_audio_s: float
    max_upload_bytes: int
    models: list[PageModel]


class Line(_Strict):
    """A segment."""

    start: float
    """In seconds of the recording, as all times."""
    end: float
    text: str
    avg_logprob: float | None
    no_speech_prob: float | None
    """Whisper's own guess, which is seldom high."""
    nobody_speaks: float | None = None
    """The gate's, of the segment's window; absent without steering, and with packs that have no gate."""
    edited_share: float | None = None
    features: list[int] = []
    """Those whose edits were largest, strongest first."""


class Reading(_Strict):
    """One transcription."""

    text: str
    speech_detected: bool
    segments: list[Line]
    seconds: float
    """How long the model was busy."""


class Mel(_Strict):
    """A log-mel spectrogram."""

    bins: int
    columns: int
    column_s: float
    levels: Levels
    """Row by row, the lowest frequencies first."""


class Analysis(_Strict):
    """Answer of `POST /ui/api/analyze`: what stock Whisper writes, and what the recording looks like."""

    id: str
    """Stands for the recording in `resteer`, for the same API key, for a while."""
    model: str
    language: str
    duration: float
    stock: Reading
    mel: Mel


class Window(_Strict):
    """One encoder window of up to 30 s."""

    start: float
    end: float
    nobody_speaks: float | None
    edited_share: float


class Track(_Strict):
    """One feature over the whole recording."""

    feature: int
    peak: float
    levels: Levels
    """One for each frame; 255 is the peak."""


class Steered(Reading):
    """Answer of `POST /ui/api/resteer`."""

    pack: str
    strength: float
    nobody_speaks: float | None
    edited_share: float
    frame_s: float
    edit: Levels
    """One for each frame: edit weight times strength; 255 is the whole edit."""
    windows: list[Window]
    features: list[Track]
    """Strongest first."""
    encoder: Literal["kept", "ran"]
    """Whether every encoder output was there already."""


def analyze_body_schema() -> dict[str, Any]:
    """OpenAPI's description of the form."""
    schema = AnalyzeFields.model_json_schema()
    schema["properties"] = {"file": {"type": "string", "format": "binary"}} | schema["properties"]
    schema["required"] = ["file", *schema["required"]]
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}
