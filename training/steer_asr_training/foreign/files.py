"""Files from strangers: tensors and JSON, nothing that runs, nothing larger than it should be."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from steer_asr.errors import WeightsError

MAX_BYTES = 2_000_000_000
"""Of a weights file, also after decompression, and of all its tensors as float32. Whisper large-v3's largest published
dictionary (1280 x 10240) has 105 MB."""
MAX_JSON_BYTES = 10_000_000


def read_json(path: Path) -> dict[str, Any]:
    """Raises `WeightsError` when it is missing, too large, or no JSON object."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise WeightsError(f"{path}: larger than {MAX_JSON_BYTES} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: a JSON object is expected")
    return content


def read_pt(path: Path) -> dict[str, np.ndarray]:
    """Tensors of a `state_dict` that torch saved, as float32 (integers as they are).

    `torch.load(weights_only=True)` builds tensors and plain containers and calls nothing else. Raises `WeightsError`
    for a file that holds anything else, is over `MAX_BYTES` packed or unpacked, or is not torch's zip format.
    """
    _check_size(path)
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError) as error:
        raise WeightsError(
            f"{path}: not a file as torch.save has written since version 1.6 ({error}); save it again with a newer one"
        ) from error
    if unpacked > MAX_BYTES:
        raise WeightsError(f"{path}: {unpacked} bytes when unpacked; at most {MAX_BYTES} are read")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise WeightsError(f"{path}: holds more than tensors, or is broken, so it is not read ({reason})") from error
    if not isinstance(state, Mapping):
        raise WeightsError(f"{path}: a state_dict is expected, not a {type(state).__name__}")
    tensors = {}
    for name, value in state.items():
        value = torch.tensor(value) if isinstance(value, bool | int | float) else value
        if isinstance(name, str) and isinstance(value, torch.Tensor):
            tensors[name] = value
    return _as_numpy(path, tensors)


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """All tensors, as float32 (integers as they are). Raises `WeightsError` for a broken or too large file."""
    _check_size(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    except (OSError, SafetensorError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be read as safetensors ({error})") from error
    return _as_numpy(path, tensors)


def _check_size(path: Path) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from error
    if size > MAX_BYTES:
        raise WeightsError(f"{path}: {size} bytes; at most {MAX_BYTES} are read")


def _as_numpy(path: Path, tensors: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    # A few stored numbers can stand for a huge tensor (stride 0), so what counts is what it would become.
    if sum(tensor.numel() for tensor in tensors.values()) * 4 > MAX_BYTES:
        raise WeightsError(f"{path}: its tensors would take more than {MAX_BYTES} bytes")
    if sparse := [name for name, tensor in tensors.items() if tensor.layout is not torch.strided]:
        raise WeightsError(f"{path}: tensor {sparse[0]} is sparse; dense ones are expected")
    return {
        name: (tensor.float() if tensor.is_floating_point() else tensor).detach().contiguous().numpy()
        for name, tensor in tensors.items()
    }


def need(tensors: Mapping[str, np.ndarray], path: Path, *names: str) -> list[np.ndarray]:
    """The named tensors. Raises `WeightsError` that says which are missing, and what there is."""
    if missing := [name for name in names if name not in tensors]:
        raise WeightsError(f"{path}: {', '.join(missing)} missing; it has {', '.join(sorted(tensors)) or 'nothing'}")
    return [tensors[name] for name in names]


def integer(value: object, what: str, path: Path) -> int:
    """Raises `WeightsError` for anything but a whole number."""
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "iuf" or float(array.reshape(())) % 1 != 0:
        raise WeightsError(f"{path}: {what} is {value!r}, not a whole number")
    return int(array.reshape(()))
