"""`--measure-cost`: real processes with a tiny random model."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from steer_asr.errors import OutputError, SteerOptionError, WorkerError
from steer_asr.manifest import Clip, Kind
from steer_asr_benchmarks import cost
from steer_asr_benchmarks.clips import BenchClip
from steer_asr_benchmarks.cost import (
    COST_FILE,
    check_clips,
    cost_clips,
    earlier_systems,
    measure,
    peak_rss_bytes,
    read_cost,
)
from steer_asr_benchmarks.runner import RunOptions


def test_each_system_and_mode_is_measured_alone(
    tiny_run: RunOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[RunOptions, Sequence[BenchClip]]] = []
    child_process = cost.child_process

    def seen(target: Any, options: RunOptions, clips: Sequence[BenchClip]) -> Any:
        started.append((options, clips))
        return child_process(target, options, clips)

    monkeypatch.setattr(cost, "child_process", seen)
    held = resident(400 << 20)  # a large parent is not what a system costs
    shared = replace(tiny_run, model=replace(tiny_run.model, share_encoder=True))
    measure(shared, tmp_path, clips=2)
    del held
    alone = [(*options.systems, *options.modes) for options, _ in started]
    assert alone == [(name, mode) for name in tiny_run.systems for mode in tiny_run.modes]
    assert not any(options.model.share_encoder for options, _ in started)
    found = read_cost(tmp_path)
    assert found is not None
    assert list(found["systems"]) == list(tiny_run.systems)
    assert found["clips"] == ["m.jsonl:1.wav", "m.jsonl:4.wav"]
    assert found["audio_s"] == 0.75 + 1.5
    assert found["model"]["shared_encoder"] is False
    for by_mode in found["systems"].values():
        assert list(by_mode) == ["timestamps", "no_timestamps"]
        for one in by_mode.values():
            assert one["rtf"] == pytest.approx(1 / one["rtfx"])
            assert 0 < one["latency_p50_s"] <= one["latency_p95_s"] <= one["rtf"] * found["audio_s"]
            assert one["rtf"] * found["audio_s"] == pytest.approx(2 * one["latency_p50_s"], abs=2e-3)
            assert one["load_s"] > 0
            assert 30 << 20 < one["peak_rss_bytes"] < peak_rss_bytes() - (100 << 20)
            assert (one["clips"], one["cpu_threads"]) == (2, 1)


def test_a_system_that_dies_leaves_no_half_measure(
    tiny_run: RunOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / COST_FILE).write_text('{"systems": {"before": {}}}')
    monkeypatch.setattr(cost, "measure_alone", die)
    with pytest.raises(WorkerError, match="the process measuring what stock costs ended with exit code 3"):
        measure(tiny_run, tmp_path, clips=1)
    assert read_cost(tmp_path) == {"systems": {"before": {}}}
    assert [path.name for path in tmp_path.iterdir()] == [COST_FILE]


def test_systems_measured_before_are_kept_if_nothing_else_changed(tmp_path: Path) -> None:
    now = {"git_sha": "b", "model": {"name": "m"}, "clips": ["a"], "cpus": 2}
    before = now | {"git_sha": "a", "systems": {"stock": {"timestamps": {"rtf": 0.5}}}}
    (tmp_path / COST_FILE).write_text(json.dumps(before))
    assert earlier_systems(tmp_path, now) == before["systems"]
    assert earlier_systems(tmp_path, now | {"clips": ["a", "b"]}) == {}
    (tmp_path / COST_FILE).write_text("{")
    assert earlier_systems(tmp_path, now) == {}


def die(*_: Any) -> None:
    sys.exit(3)


def clip(kind: Kind, seconds: float) -> BenchClip:
    return BenchClip(f"{kind}{seconds}", Clip(Path(f"{seconds}.wav"), seconds, "", kind))


def test_clips_are_spread_over_kinds_and_durations() -> None:
    speech = [clip("speech", s) for s in (5, 1, 4, 2, 3)]
    quiet = [clip("nonspeech", s) for s in (10, 30, 20)]
    mixed = [clip("mixed", 100)]
    ids = [named.id for named in cost_clips([*speech, *quiet, *mixed], 6)]
    assert ids == ["mixed100", "nonspeech10", "nonspeech20", "nonspeech30", "speech2", "speech4"]
    assert [named.id for named in cost_clips(speech, 1)] == ["speech3"], "the median"
    assert len(cost_clips([*speech, *quiet], 100)) == 8
    assert len({named.id for named in cost_clips([*speech, *quiet], 7)}) == 7
    assert cost_clips(speech[::-1], 2) == cost_clips(speech, 2)


@pytest.mark.parametrize("broken", ["{", "[]", "{}", '{"systems": []}'])
def test_a_broken_file_is_told(tmp_path: Path, broken: str) -> None:
    assert read_cost(tmp_path) is None
    (tmp_path / COST_FILE).write_text(broken)
    with pytest.raises(OutputError, match=r"cost\.json: .*--measure-cost makes it again"):
        read_cost(tmp_path)


def test_a_number_of_clips_is_positive() -> None:
    with pytest.raises(SteerOptionError, match="--measure-cost 0"):
        check_clips(0)


def test_the_peak_is_that_of_the_process() -> None:
    """Also when that process comes from a larger one."""
    held = resident(400 << 20)
    script = (
        "from steer_asr_benchmarks.cost import peak_rss_bytes\n"
        "small = peak_rss_bytes()\n"
        "b'1' * (200 << 20)\n"
        "print(small, peak_rss_bytes())"
    )
    environment = {"PYTHONPATH": ":".join(sys.path)}
    printed = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=True).stdout
    small, large = json.loads(f"[{printed.decode().replace(' ', ',')}]")
    assert large - small == pytest.approx(200 << 20, rel=0.1)
    assert small < peak_rss_bytes() - (100 << 20)
    del held


def resident(n: int) -> bytes:
    """Memory that is really taken."""
    return b"1" * n
