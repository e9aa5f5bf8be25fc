"""A run that real processes can do: a tiny random Whisper, a pack for it, and clips of noise."""

from __future__ import annotations

import json
import wave
from pathlib import Path
from typing import Any

import pytest

from steer_asr.models import find_model
from steer_asr.pack import save_pack
from steer_asr_benchmarks.predictions import Key, read_predictions
from steer_asr_benchmarks.runner import RunOptions, run
from steer_asr_benchmarks.systems import ModelOptions
from tests.helpers import noise
from tests.steer_asr.packs import open_gate, random_pack
from tests.tiny_whisper import WIDTH

N_CLIPS = 6


@pytest.fixture(scope="session")
def tiny_run(tiny_whisper_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> RunOptions:
    """Six clips, two systems, both modes."""
    folder = tmp_path_factory.mktemp("tiny-run")
    rows = []
    for i in range(N_CLIPS):
        write_noise(folder / f"{i}.wav", seconds=0.5 + i / 4, seed=i)
        rows.append({"audio_filepath": f"{i}.wav", "duration": 0.5 + i / 4, "source": f"s{i % 2}"})
    manifest = folder / "m.jsonl"
    manifest.write_text("\n".join(map(json.dumps, rows)))
    pack = save_pack(random_pack(WIDTH, find_model(tiny_whisper_dir).sha256, gate=open_gate(16)), folder / "p", card="")
    return RunOptions(
        (manifest,),
        systems=("stock", f"steered:{pack}@0.5"),
        model=ModelOptions(str(tiny_whisper_dir), "cpu", "float32", 1),
    )


@pytest.fixture(scope="session")
def by_one_process(tiny_run: RunOptions, tmp_path_factory: pytest.TempPathFactory) -> dict[Key, dict[str, Any]]:
    """What one process predicts."""
    out = tmp_path_factory.mktemp("one-process")
    run(tiny_run, out)
    return predicted(out)


def predicted(out: Path) -> dict[Key, dict[str, Any]]:
    """All that a folder's predictions say, but how long they took."""
    records = [record for _, record in read_predictions(out)]
    return {(r["clip"], r["system"], r["mode"]): r | {"seconds": None} for r in records}


def write_noise(path: Path, seconds: float, seed: int) -> None:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes((noise(seconds, seed=seed) * 32767).astype("<i2").tobytes())
