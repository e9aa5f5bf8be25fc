"""Fixtures that several packages' tests share. Nothing here reaches a network."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported, so before everything else
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # several processes: threads of their own would only get in the way

import numpy as np
import pytest

from steer_asr.audio import decode_audio
from steer_asr.errors import ModelError
from steer_asr.models import ModelFiles, find_model
from tests.own_ray import own_ray
from tests.tiny_whisper import write_tiny_whisper

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in jobs that a shell put into the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # or no test of Ctrl-C could work

ROOT = Path(__file__).parents[1]
ON_RAY = ("test_cluster.py", "test_ray_run.py", "test_ray_training.py", "test_reconfigure.py")
"""Modules that start Ray, or Serve on it: one process runs them all, so that there is one cluster."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several processes (pytest-xdist): a module stays in one of them, since its fixtures are shared."""
    for item in items:
        name = item.path.name
        item.add_marker(pytest.mark.xdist_group("ray" if name in ON_RAY else name))


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same random numbers in every run, whatever ran before."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  (for libraries; our own code takes a Generator)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Ray in this process until the end of the run: `own_ray`."""
    with own_ray(tmp_path_factory.mktemp("home")) as environment:
        yield environment


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The collection of real audio, which is not part of the project: $STEER_ASR_DATA, or shared/data beside it."""
    folder = Path(os.environ.get("STEER_ASR_DATA") or ROOT.parent / "shared" / "data")
    if not (folder / "manifests").is_dir():
        pytest.skip(f"needs the audio collection; there is none at {folder} (set STEER_ASR_DATA)")
    return folder


@pytest.fixture(scope="session")
def speech() -> np.ndarray:
    """Seven seconds of a read sentence, float32 at 16 kHz."""
    return decode_audio(ROOT / "benchmarks" / "demo" / "clips" / "speech.flac")


@pytest.fixture(scope="session")
def tiny_en() -> ModelFiles:
    return _installed("tiny.en")


@pytest.fixture(scope="session")
def base() -> ModelFiles:
    return _installed("base")


@pytest.fixture(scope="session")
def tiny_whisper_dir(tmp_path_factory: pytest.TempPathFactory, tiny_en: ModelFiles) -> Path:
    """A CTranslate2 directory of a tiny random English-only Whisper."""
    return write_tiny_whisper(tmp_path_factory.mktemp("models") / "tiny-random", like=tiny_en.path)


@pytest.fixture(scope="session")
def tiny_multilingual_dir(tmp_path_factory: pytest.TempPathFactory, base: ModelFiles) -> Path:
    """The same, multilingual."""
    return write_tiny_whisper(tmp_path_factory.mktemp("models") / "tiny-random-multilingual", like=base.path)


def _installed(name: str) -> ModelFiles:
    try:
        return find_model(name, local_files_only=True)
    except ModelError as error:
        pytest.skip(f"needs the weights of {name}: {error}")
