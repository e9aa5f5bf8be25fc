"""Reader and writer of CTranslate2's `model.bin`, binary version 6.

    model = read_model_bin("model.bin")                     # arrays are read-only views of a memory map
    write_model_bin("out/model.bin", replace(model, variables={**model.variables, "encoder/conv1/bias": bias}))

Layout (CTranslate2 `python/ctranslate2/specs/model_spec.py`, `_serialize`; little-endian):

    u32 binary version (6) | str spec name | u32 spec revision | u32 number of variables
    per variable: str name | u8 rank | u32 dims... | u8 dtype id | u32 payload bytes | payload
    u32 number of aliases, per alias: str alias | str name of the variable it stands for

where `str` is a u16 length that counts a trailing NUL, the UTF-8 bytes, and the NUL. The loader takes every shape
from here and cross-checks nothing, so this reader is strict: what it accepts is complete and consistent.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from steer_asr._files import atomic_path
from steer_asr.errors import WeightsError

BINARY_VERSION = 6
MAX_RANK = 8
MAX_PAYLOAD_BYTES = 2**32 - 1  # the payload size is a u32
MAX_STRING_BYTES = 2**16 - 2  # a u16 length that counts the NUL

# numpy has no bfloat16 and CTranslate2 no uint16, so an array of uint16 here is always the bits of a bfloat16.
BFLOAT16_BITS = np.dtype("<u2")

# CTranslate2's DataType enum.
DTYPES: dict[int, np.dtype[Any]] = {
    0: np.dtype("<f4"),
    1: np.dtype("i1"),
    2: np.dtype("<i2"),
    3: np.dtype("<i4"),
    4: np.dtype("<f2"),
    5: BFLOAT16_BITS,
}
DTYPE_IDS = {dtype: type_id for type_id, dtype in DTYPES.items()}


@dataclass(frozen=True)
class ModelBin:
    """Contents of one `model.bin`: variables by name, aliases (`alias -> name`), and the spec header.

    bfloat16 variables are uint16 arrays of their bits; see `float32_of`.
    """

    variables: Mapping[str, np.ndarray]
    aliases: Mapping[str, str] = field(default_factory=dict)
    spec_name: str = "WhisperSpec"
    spec_revision: int = 3

    def __getitem__(self, name: str) -> np.ndarray:
        """The variable called `name`, following one alias; raises `WeightsError` when there is none."""
        name = self.aliases.get(name, name)
        if name not in self.variables:
            raise WeightsError(f"model.bin has no variable {name!r} ({len(self.variables)} variables)")
        return self.variables[name]


class _Cursor:
    """Bounds-checked reads from a buffer; every failure names the file, the offset and what was being read."""

    def __init__(self, buffer: memoryview, path: Path) -> None:
        self.buffer, self.path, self.offset = buffer, path, 0

    def take(self, size: int, what: str) -> memoryview:
        end = self.offset + size
        if end > len(self.buffer):
            raise WeightsError(
                f"{self.path}: truncated or corrupt: {what} at byte {self.offset} needs {size} bytes, "
                f"the file has {len(self.buffer) - self.offset} left"
            )
        view = self.buffer[self.offset : end]
        self.offset = end
        return view

    def uint(self, fmt: str, what: str) -> int:
        return struct.unpack(fmt, self.take(struct.calcsize(fmt), what))[0]

    def string(self, what: str) -> str:
        raw = bytes(self.take(self.uint("<H", f"length of {what}"), what))
        if not raw.endswith(b"\0"):
            raise WeightsError(f"{self.path}: corrupt: {what} at byte {self.offset - len(raw)} lacks its final NUL")
        try:
            return raw[:-1].decode("utf-8")
        except UnicodeDecodeError as error:
            raise WeightsError(f"{self.path}: corrupt: {what} is not UTF-8") from error


def read_model_bin(path: str | os.PathLike[str]) -> ModelBin:
    """Reads a whole `model.bin` without copying it: arrays are read-only views of a memory map.

    Raises `WeightsError` when the file is missing, is not version 6, is truncated, has bytes left over, names
    something twice, or declares a payload that does not match its shape and dtype.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
        raise WeightsError(f"{path}: cannot be read as a CTranslate2 model.bin ({error})") from error

    cursor = _Cursor(memoryview(mapped), path)
    version = cursor.uint("<I", "binary version")
    if version != BINARY_VERSION:
        raise WeightsError(
            f"{path}: binary version {version}, this reader knows {BINARY_VERSION}; "
            "convert the model again with ctranslate2 >= 4"
        )
    spec_name, revision = cursor.string("spec name"), cursor.uint("<I", "spec revision")
    variables = _read_variables(cursor)
    aliases = _read_aliases(cursor, variables)
    if left := len(cursor.buffer) - cursor.offset:
        raise WeightsError(f"{path}: corrupt: {left} bytes left over after the last alias")
    return ModelBin(variables, aliases, spec_name, revision)


def _read_variables(cursor: _Cursor) -> dict[str, np.ndarray]:
    variables: dict[str, np.ndarray] = {}
    for _ in range(cursor.uint("<I", "variable count")):
        name = cursor.string("variable name")
        if name in variables:
            raise WeightsError(f"{cursor.path}: corrupt: variable {name!r} appears twice")
        variables[name] = _read_array(cursor, name)
    return variables


def _read_array(cursor: _Cursor, name: str) -> np.ndarray:
    rank = cursor.uint("<B", f"rank of {name}")
    if rank > MAX_RANK:
        raise WeightsError(f"{cursor.path}: corrupt: {name} claims rank {rank}, at most {MAX_RANK} makes sense")
    shape = tuple(cursor.uint("<I", f"shape of {name}") for _ in range(rank))
    if 0 in shape:  # a layer without weights; numpy's own limits differ for empty arrays, so refuse it here
        raise WeightsError(f"{cursor.path}: corrupt: {name} is empty, of shape {shape}")
    type_id = cursor.uint("<B", f"dtype of {name}")
    if type_id not in DTYPES:
        raise WeightsError(f"{cursor.path}: {name} has dtype id {type_id}; known ones are 0 to {max(DTYPES)}")
    dtype, nbytes = DTYPES[type_id], cursor.uint("<I", f"size of {name}")
    if nbytes != math.prod(shape) * dtype.itemsize:
        raise WeightsError(f"{cursor.path}: corrupt: {name} of shape {shape}, {dtype}, cannot hold {nbytes} bytes")
    return np.frombuffer(cursor.take(nbytes, f"values of {name}"), dtype=dtype).reshape(shape)


def _read_aliases(cursor: _Cursor, variables: Mapping[str, np.ndarray]) -> dict[str, str]:
    aliases: dict[str, str] = {}
    for _ in range(cursor.uint("<I", "alias count")):
        alias, name = cursor.string("alias"), cursor.string("alias target")
        if alias in aliases or alias in variables:
            raise WeightsError(f"{cursor.path}: corrupt: {alias!r} appears twice, the second time as an alias")
        if name not in variables:
            raise WeightsError(f"{cursor.path}: corrupt: alias {alias!r} stands for {name!r}, which does not exist")
        aliases[alias] = name
    return aliases


def write_model_bin(path: str | os.PathLike[str], model: ModelBin) -> None:
    """Writes `model` as a version 6 `model.bin`, to a temporary name first, then renamed.

    Raises `WeightsError` for a dtype, size or name that the format cannot hold and `OutputError` when the disk is
    full; nothing is left behind then.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for block in serialized(model):
            file.write(block)


def serialized(model: ModelBin) -> Iterator[bytes | memoryview]:
    """The bytes of a `model.bin` in order; raises `WeightsError` as `write_model_bin` does."""
    yield struct.pack("<I", BINARY_VERSION) + _string(model.spec_name)
    yield struct.pack("<II", model.spec_revision, len(model.variables))
    for name, array in model.variables.items():
        little = array.dtype.newbyteorder("<")
        if little not in DTYPE_IDS or not 0 < array.nbytes <= MAX_PAYLOAD_BYTES or array.ndim > MAX_RANK:
            raise WeightsError(f"{name}: {array.dtype} of shape {array.shape} does not fit in a model.bin")
        yield _string(name) + struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
        yield struct.pack("<BI", DTYPE_IDS[little], array.nbytes)
        yield np.ascontiguousarray(array, dtype=little).data
    yield struct.pack("<I", len(model.aliases))
    for alias, name in model.aliases.items():
        yield _string(alias) + _string(name)


def _string(text: str) -> bytes:
    raw = text.encode("utf-8")
    if len(raw) > MAX_STRING_BYTES:
        raise WeightsError(f"{text[:40]}...: a name of {len(raw)} bytes does not fit in a model.bin")
    return struct.pack("<H", len(raw) + 1) + raw + b"\0"


def float32_of(array: np.ndarray) -> np.ndarray:
    """The values of a variable as float32, exactly: float32, float16, or the bits of a bfloat16."""
    if array.dtype == BFLOAT16_BITS:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32)


def stored_as(values: np.ndarray, dtype: str) -> np.ndarray:
    """float32 `values` as a variable of `dtype` ("float32", "float16" or "bfloat16"), rounded to nearest even.

    Raises `WeightsError` for another `dtype`, and for values that are not finite, or not any more once rounded.
    """
    if dtype not in ("float32", "float16", "bfloat16"):
        raise WeightsError(f"dtype {dtype!r} is not one of float32, float16, bfloat16")
    if dtype == "bfloat16":
        bits = np.ascontiguousarray(values, dtype="<f4").view(np.uint32)
        stored = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(BFLOAT16_BITS)
    else:
        with np.errstate(over="ignore"):  # reported below
            stored = values.astype(dtype)
    if not (np.isfinite(values).all() and np.isfinite(float32_of(stored)).all()):
        raise WeightsError(f"values up to {np.abs(values).max():g} cannot be stored as {dtype}")
    return stored
