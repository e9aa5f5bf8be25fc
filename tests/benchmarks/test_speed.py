"""`steer-asr-bench speed` on a random Whisper of two layers. That it measures, not how fast anything is."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steer_asr.compile import FORMAT_VERSION
from steer_asr.ct2 import load_model
from steer_asr.errors import SteerOptionError
from steer_asr.models import find_model
from steer_asr.pack import save_pack
from steer_asr_benchmarks.speed import measure
from steer_asr_benchmarks.speed.command import batch_numbers, lines, speed_command
from steer_asr_benchmarks.speed.floor import FRAMES, edit_floor
from steer_asr_benchmarks.speed.measure import SpeedOptions, in_turns
from tests.benchmarks.conftest import write_noise
from tests.steer_asr.packs import axis_features, open_gate, random_pack
from tests.tiny_whisper import WIDTH


def test_calls_take_turns_and_the_first_round_does_not_count() -> None:
    order: list[str] = []

    def call(name: str, seconds: float) -> Any:
        def run() -> None:
            time.sleep(0.5 if name not in order else seconds)
            order.append(name)

        return run

    found = in_turns({"a": call("a", 0.02), "b": call("b", 0.0)}, 2)
    assert order == ["a", "b"] * 3
    assert 0.02 <= found["a"] < 0.5
    assert found["b"] < found["a"]


def test_the_floor_counts_what_an_edit_has_to_do() -> None:
    features = axis_features(n=3, d_in=4)
    one, eight = edit_floor(features, 1), edit_floor(features, 8)
    assert one.flops == 2 * (2 * FRAMES * 4 * 3)
    assert one.bytes == 3 * FRAMES * 4 * 4 + 2 * 4 * 3 * 4
    assert eight.flops == 8 * one.flops
    assert one.seconds == max(one.flops / one.flops_per_s, one.bytes / one.bytes_per_s)
    assert one.bound in ("compute", "memory")


def test_all_of_it(
    tiny_whisper_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = random_pack(WIDTH, find_model(tiny_whisper_dir).sha256, gate=open_gate(16))
    saved = save_pack(pack, tmp_path / "pack", card="")
    write_noise(tmp_path / "a.wav", seconds=1.0, seed=0)
    monkeypatch.setattr(measure, "LONG_S", 3.0)
    monkeypatch.setattr(measure, "MEMORY", "print(50_000_000 + 1024 * {steer!r} if {steer!r} else 50_000_000)")
    out = tmp_path / "speed.json"
    speed_command(
        speech=tmp_path / "a.wav",
        nonspeech=tmp_path / "a.wav",
        model=str(tiny_whisper_dir),
        steer=str(saved),
        compute_types="float32",
        batch_sizes="1,2",
        cpu_threads=1,
        repeats=1,
        out=out,
    )
    printed = capsys.readouterr().out.splitlines()
    found = json.loads(out.read_text())
    assert json.loads(printed[-1]) == found
    assert printed[0].startswith("floor of an edit")
    assert list(found["edit"]) == ["float32/1", "float32/2"]
    for edit in found["edit"].values():
        assert edit["added"] == pytest.approx(edit["edit_s"] / (edit["encode_s"] + edit["decode_s"]))
        assert 0 < edit["floor_s"] < edit["edit_s"]
    silence = found["silence"]["float32"]
    assert silence["stock_over_steered"] == pytest.approx(silence["stock_s"] / silence["steered_s"])
    assert silence["audio_s"] == 1.0
    assert found["memory"]["float32"]["added_bytes"] == 1024
    assert found["imports"]["faster_whisper_s"] > 0
    assert len(list(lines(found))) == len(printed) - 1


def test_a_compiled_directory_is_timed_beside_the_model(tiny_whisper_dir: Path, tmp_path: Path) -> None:
    """Here it is the model itself, so it answers alike."""
    model = load_model(tiny_whisper_dir, compute_type="float32", cpu_threads=1)
    found = measure.compiled_cost(model, model.model, np.zeros(16_000, np.float32), 2, 1)
    assert found["same_tokens"] is True
    assert found["tokens"] > 0
    assert found["added"] == pytest.approx(
        (found["compiled_encode_s"] + found["compiled_decode_s"]) / (found["stock_encode_s"] + found["stock_decode_s"])
        - 1
    )
    made = {"base_model": "other", "base_sha256": "1" * 64, "pack": "p", "strength": 1.0, "rule": "window", "layers": 2}
    unknown = {"sigma": 1.0, "silence": 1.0, "silenced": 0.0, "missed": 0.0, "format_version": FORMAT_VERSION}
    (tmp_path / "compiled.json").write_text(json.dumps(made | unknown))
    options = SpeedOptions(str(tiny_whisper_dir), compiled=str(tmp_path))
    with pytest.raises(SteerOptionError, match="made of 'other'"):
        measure.load_compiled(options, "float32", model.files.sha256)


@pytest.mark.parametrize("text", ["", "0", "1,x", "-1", "1,,2"])
def test_batch_sizes_are_positive_numbers(text: str) -> None:
    with pytest.raises(SteerOptionError, match="positive numbers"):
        batch_numbers(text)
    assert batch_numbers("1, 8") == (1, 8)


def test_what_steers_nothing_has_no_cost(tmp_path: Path) -> None:
    with pytest.raises(SteerOptionError, match="steers nothing"):
        speed_command(speech=tmp_path / "a.wav", steer="off")


def test_noise_is_the_same_every_time() -> None:
    from steer_asr_benchmarks.speed.command import quiet_audio

    assert np.array_equal(quiet_audio(None), quiet_audio(None))
    assert len(quiet_audio(None)) == 30 * 16_000
