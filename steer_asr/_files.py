"""Files that are either whole or not there: write to a temporary name beside the target, then rename."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from steer_asr.errors import OutputError


@contextmanager
def atomic_path(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path next to `target`; it becomes `target` if the block succeeds and vanishes if not.

    Works for a file or a folder (an existing folder is replaced). An `OSError` inside the block, a full disk say,
    is raised as `OutputError` that names the target.
    """
    target = Path(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        holder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from error
    try:
        yield holder / target.name
        _put(holder / target.name, target, aside=holder / "replaced")
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}; nothing was changed") from error
    finally:
        shutil.rmtree(holder, ignore_errors=True)


def _put(made: Path, target: Path, *, aside: Path) -> None:
    if not (target.is_dir() and made.is_dir()):
        os.replace(made, target)
        return
    os.replace(target, aside)  # a folder cannot be renamed over one that is not empty
    try:
        os.replace(made, target)
    except OSError:
        os.replace(aside, target)
        raise


def write_text(target: str | os.PathLike[str], text: str) -> None:
    """Writes `text` as UTF-8, whole or not at all."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256_of(*paths: Path) -> str:
    """SHA-256, in hex, of the files' bytes joined in order."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
