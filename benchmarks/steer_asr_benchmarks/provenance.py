"""What a result file must say so that it can be trusted without the code: commit, versions, hashes."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import steer_asr

PACKAGES = ("faster-whisper", "ctranslate2", "numpy", "jiwer", "whisper-normalizer", "av")

NOT_CODE = (":(top,exclude)benchmarks/results",)
"""Results that a run replaces do not decide what it finds."""


def git_sha(file: Path = Path(__file__)) -> str | None:
    """Commit of the checkout that `file` belongs to, "-dirty" when something differs from it; None outside of one."""
    try:
        _git(file, "ls-files", "--error-unmatch", file.name)  # an environment may lie in somebody else's checkout
        changed = _git(file, "status", "--porcelain", "--untracked-files=no", "--", ":/", *NOT_CODE)
        return _git(file, "rev-parse", "HEAD") + ("-dirty" if changed else "")
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
