"""What travels over HTTP: the fields of OpenAI's transcription request plus `steer`, and the small answers.

    upload, fields = parse_form(await request.form())

Transcriptions themselves are written by `steer_asr.formats`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from starlette.datastructures import FormData, UploadFile

from steer_asr.errors import SteerOptionError, unknown_name
from steer_asr_serving.errors import ApiError

UNSUPPORTED = frozenset(
    {"chunking_strategy", "hotwords", "include", "keywords", "known_speaker_names", "known_speaker_references"}
    | {"languages"}
)
"""Fields that OpenAI's API (or a peer's) has and this server refuses, so that nobody believes they took effect."""
REPEATED = "timestamp_granularities"


class TranscriptionFields(BaseModel):
    """The form fields of `POST /v1/audio/transcriptions`, without the file."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    model: Annotated[str, Field(max_length=200)]
    """The served model's name, or whisper-1."""
    language: Annotated[str | None, Field(max_length=16)] = None
    """ISO 639-1 code; detected when absent."""
    prompt: Annotated[str | None, Field(max_length=10_000)] = None
    """Text that precedes the audio, for style and spelling."""
    response_format: Literal["json", "text", "srt", "vtt", "verbose_json"] = "json"
    temperature: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    """Sampling temperature; 0 starts greedy and rises only where decoding fails."""
    timestamp_granularities: Annotated[list[Literal["word", "segment"]], Field(min_length=1)] = ["segment"]
    """With verbose_json: which times to return. Sent as `timestamp_granularities[]`."""
    stream: bool = False
    """Only false is supported."""
    steer: Annotated[str, Field(max_length=1000)] | dict[str, str] | None = None
    """Not OpenAI's: off, default, a strength from 0 to 1, PACK, PACK@STRENGTH, or JSON. If absent, the server's."""

    @field_validator("language", "prompt")
    @classmethod
    def _empty_is_absent(cls, value: str | None) -> str | None:
        return value or None

    @field_validator("stream")
    @classmethod
    def _no_stream(cls, stream: bool) -> bool:
        if stream:
            raise ValueError("streaming is not supported; leave it out or send false")
        return stream


class Model(BaseModel):
    """A model, as OpenAI's clients list them."""

    id: str
    created: int
    object: Literal["model"] = "model"
    owned_by: str = "steer_asr"


class ModelList(BaseModel):
    """Answer of `GET /v1/models`."""

    data: list[Model]
    object: Literal["list"] = "list"


class Status(BaseModel):
    """Answer of `/health` and `/ready`."""

    status: Literal["ok", "starting"]


def request_body_schema() -> dict[str, Any]:
    """OpenAPI's description of the form. FastAPI cannot derive it: field names with brackets need the raw form."""
    schema = TranscriptionFields.model_json_schema()
    properties = {(f"{k}[]" if k == REPEATED else k): v for k, v in schema["properties"].items()}
    properties = {"file": {"type": "string", "format": "binary"}} | properties
    schema |= {"properties": properties, "required": ["file", *schema["required"]]}
    return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}


def parse_form(form: FormData) -> tuple[UploadFile, TranscriptionFields]:
    """The uploaded file and the checked fields; raises `ApiError` 400 that names the field at fault.

    `FastAPI`'s `Form(alias="timestamp_granularities[]")` does not see what clients send, hence the form by hand.
    """
    upload: UploadFile | None = None
    fields: dict[str, Any] = {}
    for key, value in form.multi_items():
        name, _, subkey = key.partition("[")
        if isinstance(value, UploadFile):
            if name != "file" or upload is not None:
                raise ApiError(400, f"upload one file, as 'file'; {key!r} is another", key)
            upload = value
        elif name == REPEATED:
            fields.setdefault(name, []).append(value)
        elif name == "steer" and subkey:  # how OpenAI's client sends extra_body={"steer": {"strength": 0.5}}
            _steer_options(fields)[subkey.rstrip("]")] = value
        elif name in fields:
            raise ApiError(400, f"{key!r} was sent twice", key)
        else:
            fields[name] = value
    if upload is None:
        raise ApiError(400, "'file' is missing: upload the audio as multipart/form-data", "file", "missing_field")
    return upload, _validated(fields)


def wire_steer(value: str | Mapping[str, Any] | None) -> object:
    """The value that `parse_steer` should see for a form's `steer`: JSON becomes what it stands for."""
    if isinstance(value, Mapping):
        return {key: text if key == "pack" else _number_or_flag(text) for key, text in value.items()}
    if not isinstance(value, str) or value.lstrip()[:1] not in ("{", "[", '"'):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise SteerOptionError(f"steer={value!r} is not valid JSON ({error})") from error


def _number_or_flag(text: str) -> object:
    """What a field sent by itself stands for: forms carry text only."""
    if text in ("true", "false"):
        return text == "true"
    try:
        return float(text)
    except ValueError:
        return text


def _steer_options(fields: dict[str, Any]) -> dict[str, str]:
    options = fields.setdefault("steer", {})
    if not isinstance(options, dict):
        raise ApiError(400, "'steer' was sent twice", "steer")
    return options


def _validated(fields: Mapping[str, Any]) -> TranscriptionFields:
    try:
        checked = TranscriptionFields.model_validate(fields)
    except ValidationError as invalid:
        raise _field_error(invalid) from invalid
    if checked.response_format != "verbose_json" and "word" in checked.timestamp_granularities:
        raise ApiError(400, f"{REPEATED}[]=word needs response_format=verbose_json", REPEATED)
    return checked


def _field_error(invalid: ValidationError) -> ApiError:
    first = invalid.errors(include_url=False, include_context=False)[0]
    name = str(first["loc"][0])
    if first["type"] == "missing":
        return ApiError(400, f"{name!r} is missing", name, "missing_field")
    if first["type"] == "extra_forbidden":
        if name in UNSUPPORTED:
            return ApiError(400, f"{name!r} is not supported by this server", name, "unsupported_field")
        known = ("file", *TranscriptionFields.model_fields)
        return ApiError(400, unknown_name("form field", name, known), name, "unknown_field")
    return ApiError(400, f"{name}: {first['msg'].removeprefix('Value error, ')}", name, "invalid_value")
