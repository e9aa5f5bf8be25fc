"""What is in the wheel and the sdist: the four packages and the packs, nothing else, and nothing forgotten."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SOURCE_ROOTS = {
    "steer_asr": ROOT,
    "steer_asr_training": ROOT / "training",
    "steer_asr_serving": ROOT / "serving",
    "steer_asr_benchmarks": ROOT / "benchmarks",
}


def build(kind: str, root: Path, out: Path) -> Path:
    """Builds without isolation, so without a network; what it makes lands in `out` alone."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(out)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    [built] = out.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    return zipfile.ZipFile(build("wheel", ROOT, tmp_path_factory.mktemp("wheel")))


def packaged(names: list[str]) -> set[str]:
    return {name for name in names if ".dist-info/" not in name}


def test_the_wheel_holds_the_four_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    on_disk = {
        path.relative_to(root).as_posix()
        for package, root in SOURCE_ROOTS.items()
        for path in (root / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packaged(wheel.namelist()) == on_disk
    for package in SOURCE_ROOTS:
        assert {f"{package}/__init__.py", f"{package}/py.typed"} <= on_disk


def test_every_pack_is_whole(wheel: zipfile.ZipFile) -> None:
    """Each folder below steer_asr/packs holds exactly the files of a pack, at most 1 MB of them."""
    sizes: dict[str, dict[str, int]] = {}
    for info in wheel.infolist():
        if info.filename.startswith("steer_asr/packs/"):
            _, _, pack, file = info.filename.split("/", 3)
            sizes.setdefault(pack, {})[file] = info.file_size
    assert {"base", "tiny.en"} <= sizes.keys(), "make packs"
    for pack, files in sizes.items():
        needed = {"README.md", "cfg.json", "sae_weights.safetensors", "steer.json"}
        assert files.keys() - {"strength.svg", "readout.safetensors"} == needed, pack
        assert sum(files.values()) <= 1_000_000, pack


def test_the_metadata_says_what_pyproject_says(wheel: zipfile.ZipFile) -> None:
    [entry_points] = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    scripts = dict(re.findall(r"^(\S+) = (\S+)$", wheel.read(entry_points).decode(), re.MULTILINE))
    assert scripts == PROJECT["project"]["scripts"]
    assert scripts.keys() == {"steer-asr", "steer-asr-train", "steer-asr-serve", "steer-asr-bench"}
    [metadata] = [name for name in wheel.namelist() if name.endswith("METADATA")]
    text = wheel.read(metadata).decode()
    assert re.search(r"^Name: steer-asr$", text, re.MULTILINE)
    from steer_asr import __version__

    assert re.search(rf"^Version: {re.escape(__version__)}$", text, re.MULTILINE)
    licences = {Path(name).name for name in wheel.namelist() if "/licenses/" in name}
    assert licences == {"LICENSE", "NOTICE"}


def test_all_means_every_extra() -> None:
    extras: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
    [every] = extras["all"]
    assert set(re.findall(r"[\w-]+", every.partition("[")[2])) == extras.keys() - {"all"}


def test_the_sdist_makes_the_same_wheel(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    with tarfile.open(build("sdist", ROOT, tmp_path / "sdist")) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
        sdist.extractall(tmp_path / "unpacked", filter="data")
    needed = {"Makefile", "README.md", "LICENSE", "NOTICE", "CHANGELOG.md", ".ci/run", "tests/conftest.py"}
    assert needed <= names
    assert not [name for name in names if name.startswith((".venv", ".git/", "runs/", "out/", "dist/"))]
    [unpacked] = (tmp_path / "unpacked").iterdir()
    again = zipfile.ZipFile(build("wheel", unpacked, tmp_path / "wheel"))
    assert packaged(again.namelist()) == packaged(wheel.namelist())
