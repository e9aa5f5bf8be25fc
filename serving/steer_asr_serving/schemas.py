"""What travels over HTTP: the fields of OpenAI's two audio requests plus `steer` and `hotwords`, and small answers.

`form` reads the fields, `answers` writes transcriptions.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from faster_whisper.vad import VadOptions
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

UNSUPPORTED = frozenset({"known_speaker_names", "known_speaker_references", "languages"})
"""Fields that OpenAI's API has and this server refuses, so that nobody believes they took effect."""
NESTED = ("steer", "chunking_strategy")
"""Fields that may be an object: as JSON, or as OpenAI's client sends objects, one form field for each key."""
MAX_KEYWORDS = 100


def _from_json(value: object) -> object:
    """An object that came as text."""
    if not isinstance(value, str) or not value.lstrip().startswith("{"):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not valid JSON ({error})") from error


class ServerVad(BaseModel):
    """OpenAI's voice activity detector with its own parameters and defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    type: Literal["server_vad"]
    prefix_padding_ms: Annotated[int, Field(ge=0, le=10_000)] = 300
    """Audio kept on either side of detected speech."""
    silence_duration_ms: Annotated[int, Field(ge=0, le=60_000)] = 200
    """Silence that ends a stretch of speech."""
    threshold: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.5
    """Probability from which a frame counts as speech."""


class AudioFields(BaseModel):
    """The form fields that both audio requests have, without the file."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    model: Annotated[str, Field(max_length=200)]
    """A served model's name, or whisper-1."""
    prompt: Annotated[str | None, Field(max_length=10_000)] = None
    """Text that precedes the audio, for style and spelling."""
    response_format: Literal["json", "text", "srt", "vtt", "verbose_json"] = "json"
    temperature: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    """Sampling temperature; 0 starts greedy and rises only where decoding fails."""
    steer: Annotated[str, Field(max_length=1000)] | dict[str, str] | None = None
    """Not OpenAI's: off, default, a strength from 0 to 1, max_wer=0.05, PACK, PACK@STRENGTH, or JSON. If absent, the
    server's."""
    hotwords: Annotated[str | None, Field(max_length=2000)] = None
    """Not OpenAI's: words to expect, as faster-whisper takes them."""

    @field_validator("prompt", "hotwords")
    @classmethod
    def _empty_is_absent(cls, value: str | None) -> str | None:
        return value or None


class TranslationFields(AudioFields):
    """The form fields of `POST /v1/audio/translations`."""


class TranscriptionFields(AudioFields):
    """The form fields of `POST /v1/audio/transcriptions`."""

    language: Annotated[str | None, Field(max_length=16)] = None
    """ISO 639-1 code; detected when absent."""
    timestamp_granularities: Annotated[list[Literal["word", "segment"]], Field(min_length=1)] = ["segment"]
    """With verbose_json: which times to return. Sent as `timestamp_granularities[]`."""
    include: list[Literal["logprobs"]] = []
    """With json: log-probabilities of the tokens. Sent as `include[]`."""
    stream: bool = False
    """With json or text: send server-sent events while decoding."""
    chunking_strategy: Annotated[Literal["auto"] | ServerVad | None, BeforeValidator(_from_json)] = None
    """Voice activity detection before transcribing: auto, or an object. If absent, everything is transcribed."""
    keywords: Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=MAX_KEYWORDS)] = []
    """Words or phrases to expect, beside `hotwords`. Sent as `keywords[]`."""

    @field_validator("language")
    @classmethod
    def _empty_means_detect(cls, value: str | None) -> str | None:
        return value or None

    @model_validator(mode="after")
    def _fields_that_go_together(self) -> TranscriptionFields:
        if "word" in self.timestamp_granularities and self.response_format != "verbose_json":
            raise ValueError("timestamp_granularities: word needs response_format=verbose_json")
        if self.include and self.response_format != "json":
            raise ValueError("include: logprobs needs response_format=json")
        if self.stream and self.response_format not in ("json", "text"):
            raise ValueError(f"stream: events carry text only; {self.response_format} needs stream=false")
        return self

    @property
    def expected_words(self) -> str | None:
        """`hotwords` and `keywords` in one."""
        return ", ".join(filter(None, [self.hotwords, *self.keywords])) or None

    @property
    def vad(self) -> VadOptions | None:
        """The detector's options; "auto" means faster-whisper's own."""
        if not isinstance(self.chunking_strategy, ServerVad):
            return VadOptions() if self.chunking_strategy else None
        return VadOptions(
            threshold=self.chunking_strategy.threshold,
            min_silence_duration_ms=self.chunking_strategy.silence_duration_ms,
            speech_pad_ms=self.chunking_strategy.prefix_padding_ms,
        )


class Model(BaseModel):
    """A model, as OpenAI's clients list them, and what steering it offers."""

    id: str
    created: int
    object: Literal["model"] = "model"
    owned_by: str = "steer_asr"
    packs: list[str]
    """Not OpenAI's: names that `steer` may use besides "default"."""
    max_steer: float
    """Not OpenAI's: the highest strength that `steer` may ask for."""


class ModelList(BaseModel):
    """Answer of `GET /v1/models`."""

    data: list[Model]
    object: Literal["list"] = "list"


class Status(BaseModel):
    """Answer of `/health` and `/ready`."""

    status: Literal["ok", "starting"]


def request_body_schema(fields: type[AudioFields]) -> dict[str, Any]:
    """OpenAPI's description of a form. FastAPI cannot derive it: field names with brackets need the raw form."""
    schema = fields.model_json_schema()
    inlined = {f"#/$defs/{name}": definition for name, definition in schema.pop("$defs", {}).items()}
    properties: dict[str, Any] = {"file": {"type": "string", "format": "binary"}}
    for name, field in schema["properties"].items():
        if "anyOf" in field:
            field["anyOf"] = [inlined.get(choice.get("$ref"), choice) for choice in field["anyOf"]]
        properties[f"{name}[]" if field.get("type") == "array" else name] = field
    schema |= {"properties": properties, "required": ["file", *schema["required"]]}
    return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
