"""Reads an audio request's form by hand.

    upload, fields = parse_form(await request.form(), TranscriptionFields)

`FastAPI`'s `Form(alias="timestamp_granularities[]")` does not see what clients send.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile

from steer_asr.errors import SteerOptionError, unknown_name
from steer_asr_serving.errors import ApiError
from steer_asr_serving.schemas import NESTED, UNSUPPORTED

LISTS = ("timestamp_granularities", "include", "keywords")
ALTERNATIVES = ("ServerVad", "literal['auto']", "constrained-str", "dict[str,str]")
"""Pydantic's names for the kinds of value that a field allows, in the place of an error."""
Fields = TypeVar("Fields", bound=BaseModel)


def parse_form(form: FormData, kind: type[Fields]) -> tuple[UploadFile, Fields]:
    """The uploaded file and the checked fields; raises `ApiError` 400 that names the field at fault."""
    upload: UploadFile | None = None
    fields: dict[str, Any] = {}
    for key, value in form.multi_items():
        name, _, subkey = key.partition("[")
        if isinstance(value, UploadFile):
            if name != "file" or upload is not None:
                raise ApiError(400, f"upload one file, as 'file'; {key!r} is another", key)
            upload = value
        elif name in UNSUPPORTED:
            raise ApiError(400, f"{name!r} is not supported by this server", name, "unsupported_field")
        elif name in LISTS:
            fields.setdefault(name, []).append(value)
        elif name in NESTED and subkey:  # how OpenAI's client sends extra_body={"steer": {"strength": 0.5}}
            _object(fields, name)[subkey.rstrip("]")] = value
        elif name in fields:
            raise ApiError(400, f"{key!r} was sent twice", key)
        else:
            fields[name] = value
    if upload is None:
        raise ApiError(400, "'file' is missing: upload the audio as multipart/form-data", "file", "missing_field")
    try:
        return upload, kind.model_validate(fields)
    except ValidationError as invalid:
        raise _field_error(invalid, kind) from invalid


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


def _object(fields: dict[str, Any], name: str) -> dict[str, str]:
    options = fields.setdefault(name, {})
    if not isinstance(options, dict):
        raise ApiError(400, f"{name!r} was sent twice", name)
    return options


def _field_error(invalid: ValidationError, kind: type[BaseModel]) -> ApiError:
    # The deepest: where several kinds of value are allowed, the one whose shape was given.
    first = max(invalid.errors(include_url=False, include_context=False), key=lambda error: len(error["loc"]))
    message = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:  # about fields that do not go together; the message starts with the one to change
        return ApiError(400, message, message.partition(":")[0], "invalid_value")
    name = str(first["loc"][0])
    if first["type"] == "missing" and len(first["loc"]) == 1:
        return ApiError(400, f"{name!r} is missing", name, "missing_field")
    if first["type"] == "extra_forbidden" and len(first["loc"]) == 1:
        known = ("file", *kind.model_fields)
        return ApiError(400, unknown_name("form field", name, known), name, "unknown_field")
    where = ".".join(str(part) for part in first["loc"] if part not in ALTERNATIVES)
    return ApiError(400, f"{where}: {message}", name, "invalid_value")
