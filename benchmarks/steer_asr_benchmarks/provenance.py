"""What a result file must say so that it can be trusted without the code: commit, versions, hashes."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import steer_asr

PACKAGES = ("faster-whisper", "ctranslate2", "numpy", "jiwer", "whisper-normalizer", "av")


def git_sha(file: Path = Path(__file__)) -> str | None:
    """Commit of the checkout that `file` belongs to, "-dirty" when something differs from it; None outside of one."""
    try:
        _git(file, "ls-files", "--error-unmatch", file.name)  # an environment may lie in somebody else's checkout
        return _git(file, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return None


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    return {
        "steer_asr": steer_asr.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        **{name.replace("-", "_"): version(name) for name in PACKAGES},
    }


def _git(file: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", file.resolve().parent, *arguments], capture_output=True, text=True, check=True, timeout=30
    )
    return done.stdout.strip()
