"""Reader and writer of CTranslate2's `model.bin`, binary version 6.

    variables, aliases = read_model_bin("model.bin")        # memory-mapped, read-only arrays
    write_model_bin("out/model.bin", ModelBin(variables, aliases))

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

import numpy as np

from steer_asr._files import atomic_path
from steer_asr.errors import WeightsError

BINARY_VERSION = 6
MAX_RANK = 8
MAX_PAYLOAD_BYTES = 2**32 - 1  # the payload size is a u32

# CTranslate2's DataType enum. bfloat16 has no numpy type; it is kept as raw uint16 and marked by its id.
DTYPES: dict[int, np.dtype] = {
    0: np.dtype("<f4"),
    1: np.dtype("i1"),
    2: np.dtype("<i2"),
    3: np.dtype("<i4"),
    4: np.dtype("<f2"),
}
DTYPE_IDS = {dtype: type_id for type_id, dtype in DTYPES.items()}


@dataclass(frozen=True)
class ModelBin:
    """Contents of one `model.bin`: variables by name, aliases (`alias -> name`), and the spec header."""

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

    Raises `WeightsError` when the file is missing, is not version 6, is truncated, has bytes left over, or
    declares a payload that does not match its shape and dtype.
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
    variables = dict(_read_variables(cursor))
    aliases = {cursor.string("alias"): cursor.string("alias target") for _ in range(cursor.uint("<I", "alias count"))}
    if cursor.offset != len(cursor.buffer):
        raise WeightsError(f"{path}: {len(cursor.buffer) - cursor.offset} bytes left over after the last alias")
    if dangling := [alias for alias, name in aliases.items() if name not in variables]:
        raise WeightsError(f"{path}: alias {dangling[0]!r} stands for a variable that does not exist")
    return ModelBin(variables, aliases, spec_name, revision)


def _read_variables(cursor: _Cursor) -> Iterator[tuple[str, np.ndarray]]:
    seen: set[str] = set()
    for _ in range(cursor.uint("<I", "variable count")):
        name = cursor.string("variable name")
        if name in seen:
            raise WeightsError(f"{cursor.path}: variable {name!r} appears twice")
        seen.add(name)
        rank = cursor.uint("<B", f"rank of {name}")
        if rank > MAX_RANK:
            raise WeightsError(f"{cursor.path}: corrupt: {name} claims rank {rank}")
        shape = tuple(cursor.uint("<I", f"shape of {name}") for _ in range(rank))
        type_id = cursor.uint("<B", f"dtype of {name}")
        if type_id not in DTYPES:
            known = ", ".join(f"{i} {d}" for i, d in DTYPES.items())
            raise WeightsError(f"{cursor.path}: {name} has dtype id {type_id}; readable ones are {known}")
        dtype, nbytes = DTYPES[type_id], cursor.uint("<I", f"size of {name}")
        if nbytes != math.prod(shape) * dtype.itemsize:
            raise WeightsError(f"{cursor.path}: corrupt: {name} {shape} {dtype} cannot hold {nbytes} bytes")
        yield name, np.frombuffer(cursor.take(nbytes, f"values of {name}"), dtype=dtype).reshape(shape)


def write_model_bin(path: str | os.PathLike[str], model: ModelBin) -> None:
    """Writes `model` as a version 6 `model.bin`, to a temporary name first, then renamed.

    Raises `WeightsError` for a dtype or a size that the format cannot hold, or when the disk is full; nothing is
    left behind then.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<I", BINARY_VERSION))
        file.write(_string(model.spec_name))
        file.write(struct.pack("<II", model.spec_revision, len(model.variables)))
        for name, array in model.variables.items():
            type_id = DTYPE_IDS.get(array.dtype.newbyteorder("<"))
            if type_id is None or array.nbytes > MAX_PAYLOAD_BYTES:
                raise WeightsError(f"{name}: {array.dtype} of {array.nbytes} bytes does not fit in a model.bin")
            file.write(_string(name) + struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape))
            file.write(struct.pack("<BI", type_id, array.nbytes))
            file.write(np.ascontiguousarray(array).tobytes())
        file.write(struct.pack("<I", len(model.aliases)))
        for alias, name in model.aliases.items():
            file.write(_string(alias) + _string(name))


def _string(text: str) -> bytes:
    raw = text.encode("utf-8") + b"\0"
    return struct.pack("<H", len(raw)) + raw
