"""The run loop, with stand-ins for model and systems: what runs once, what resumes, what is refused."""

from __future__ import annotations

import json
import wave
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from steer_asr import _progress
from steer_asr.errors import AudioError, OutputError, SteerOptionError
from steer_asr_benchmarks import runner, work
from steer_asr_benchmarks.clips import Shard
from steer_asr_benchmarks.predictions import done_keys, read_predictions
from steer_asr_benchmarks.runner import RunOptions, run
from steer_asr_benchmarks.systems.base import MODES, Decoding, PredictedSegment, Prediction, Window


class EchoSystem:
    """Says how long the audio was and how it was asked to decode it."""

    def __init__(self, name: str, calls: list[tuple[str, str, str | None]]) -> None:
        self.name, self.calls = name, calls
        self.options: Mapping[str, Any] = {"kind": name}
        self.fail_after: int | None = None

    def transcribe(self, audio: np.ndarray, decoding: Decoding) -> Prediction:
        if self.fail_after is not None and len(self.calls) >= self.fail_after:
            raise KeyboardInterrupt
        self.calls.append((self.name, decoding.mode, decoding.language))
        text = f" {len(audio) / 16000:.1f} seconds"
        segments = (PredictedSegment(0.0, 1.0, text, 0.1, -0.5, 1.0),)
        return Prediction("en", decoding.language is not None, segments, (Window(0.1, -0.5, 1.0, (1,)),))


class StandInModels:
    """Knows two languages and loads nothing."""

    multilingual = True
    used = True

    def __init__(self, options: Any) -> None:
        self.options = options
        self.loaded = SimpleNamespace(
            supported_languages=["en", "fr"], model=SimpleNamespace(is_multilingual=self.multilingual)
        )

    def describe(self) -> dict[str, Any]:
        return {"name": self.options.name, "sha256": "0" * 64}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str | None]]:
    made: list[tuple[str, str, str | None]] = []
    monkeypatch.setattr(work, "Models", StandInModels)
    monkeypatch.setattr(work, "make_systems", lambda names, *_: [EchoSystem(name, made) for name in names])
    return made


@pytest.fixture
def options(tmp_path: Path) -> RunOptions:
    rows = []
    for i, lang in enumerate(("en", "fr", "")):
        with wave.open(str(tmp_path / f"{i}.wav"), "wb") as file:
            file.setparams((1, 2, 16000, 0, "NONE", ""))
            file.writeframes(bytes(2 * 1600 * (i + 1)))
        rows.append({"audio_filepath": f"{i}.wav", "duration": 0.1 * (i + 1), "lang": lang, "source": f"s{i}"})
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("\n".join(map(json.dumps, rows)))
    return RunOptions((manifest,), systems=("stock", "steered"))


Calls = list[tuple[str, str, "str | None"]]


def test_every_clip_goes_through_every_system_in_every_mode(options: RunOptions, calls: Calls, tmp_path: Path) -> None:
    run(options, tmp_path / "out")
    records = [record for _, record in read_predictions(tmp_path / "out")]
    assert [(r["clip"], r["text"], r["system"], r["mode"]) for r in records] == [
        (f"m.jsonl:{i}.wav", f"{0.1 * (i + 1):.1f} seconds", system, mode)
        for i in range(3)
        for system in ("stock", "steered")
        for mode in ("timestamps", "no_timestamps")
    ]
    assert len(calls) == 12 + 4, "and a warm-up of each system in each mode"
    assert all(record["seconds"] >= 0 for record in records)


def test_a_finished_run_does_nothing_more(options: RunOptions, calls: Calls, tmp_path: Path) -> None:
    run(options, tmp_path / "out")
    before = (tmp_path / "out" / "predictions.jsonl").read_bytes()
    calls.clear()
    run(options, tmp_path / "out")
    assert calls == []
    assert (tmp_path / "out" / "predictions.jsonl").read_bytes() == before


def test_an_interrupted_run_goes_on_where_it_was(
    options: RunOptions, calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = work.make_systems

    def failing(names: tuple[str, ...], *rest: Any) -> list[Any]:
        systems: list[Any] = make(names, *rest)
        for system in systems:
            system.fail_after = 4 + 5
        return systems

    with monkeypatch.context() as patched:
        patched.setattr(work, "make_systems", failing)
        with pytest.raises(KeyboardInterrupt):
            run(options, tmp_path / "out")
    assert len(done_keys(tmp_path / "out")) == 5
    calls.clear()
    run(options, tmp_path / "out")
    assert len(calls) == 4 + 7
    assert len(done_keys(tmp_path / "out")) == 12


def test_progress_counts_what_is_left_and_says_where_it_is(
    options: RunOptions,
    calls: Calls,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(replace(options, systems=("stock",)), tmp_path / "out")
    capsys.readouterr()
    calls.clear()
    monkeypatch.setattr(_progress, "LINE_EVERY_S", -1)
    run(replace(options, modes=MODES), tmp_path / "out")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("bench: 1/6 predictions")
    assert [line.rpartition("  ")[2] for line in lines[:6]] == [f"steered, s{i // 2}" for i in range(6)]


def test_shards_share_a_folder_and_a_whole_run_takes_over(options: RunOptions, calls: Calls, tmp_path: Path) -> None:
    run(replace(options, shard=Shard(1, 2)), tmp_path / "out")
    assert len(done_keys(tmp_path / "out")) == 8
    run(replace(options, shard=Shard(2, 2)), tmp_path / "out")
    assert len(done_keys(tmp_path / "out")) == 12
    assert {path.name for path in (tmp_path / "out").glob("pred*")} == {
        "predictions-1-of-2.jsonl",
        "predictions-2-of-2.jsonl",
    }
    calls.clear()
    run(options, tmp_path / "out")
    assert calls == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"beam_size": 5}, "decoding.beam_size was 1, is 5"),
        ({"systems": ("stock",)}, "systems.steered.kind was 'steered', is None"),
        ({"limit": 2}, "data.limit was None, is 2"),
        ({"modes": ("timestamps",)}, "decoding.modes was"),
    ],
)
def test_a_run_with_other_settings_is_refused(
    options: RunOptions, calls: Calls, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    run(options, tmp_path / "out")
    calls.clear()
    with pytest.raises(SteerOptionError, match="holds a run with other settings") as error:
        run(replace(options, **change), tmp_path / "out")
    assert said in str(error.value)
    assert calls == []


def test_systems_can_be_added_to_a_run(options: RunOptions, calls: Calls, tmp_path: Path) -> None:
    run(replace(options, systems=("stock",)), tmp_path / "out")
    calls.clear()
    run(options, tmp_path / "out")
    assert {system for system, *_ in calls} == {"steered"}
    assert list(runner.read_run(tmp_path / "out")["systems"]) == ["stock", "steered"]
    assert len(done_keys(tmp_path / "out")) == 12


def test_a_changed_manifest_is_refused_and_a_new_commit_is_not(
    options: RunOptions, calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(options, tmp_path / "out")
    monkeypatch.setattr(runner, "git_sha", lambda: "another")
    run(options, tmp_path / "out")
    manifest = Path(options.manifests[0])
    manifest.write_text(manifest.read_text() + "\n")
    with pytest.raises(SteerOptionError, match=r"data\.manifests was"):
        run(options, tmp_path / "out")
    assert len(calls) == 16


def test_a_description_without_predictions_gives_way(options: RunOptions, calls: Calls, tmp_path: Path) -> None:
    """As in a fresh checkout, which has reports and descriptions of other settings, and no predictions."""
    run(options, tmp_path / "out")
    for path in (tmp_path / "out").glob("predictions*.jsonl"):
        path.unlink()
    calls.clear()
    run(replace(options, limit=2), tmp_path / "out")
    assert runner.read_run(tmp_path / "out")["data"]["limit"] == 2
    assert calls


def test_predictions_of_unknown_origin_are_not_added_to(options: RunOptions, calls: Calls, tmp_path: Path) -> None:
    run(options, tmp_path / "out")
    (tmp_path / "out" / "run.json").unlink()
    calls.clear()
    with pytest.raises(OutputError, match=r"no run\.json"):
        run(options, tmp_path / "out")
    assert calls == []


@pytest.mark.parametrize(
    ("language", "asked"), [("en", ["en"] * 3), ("auto", [None] * 3), ("manifest", ["en", "fr", None])]
)
def test_languages(options: RunOptions, calls: Calls, tmp_path: Path, language: str, asked: list[str | None]) -> None:
    run(replace(options, language=language, systems=("stock",), modes=("timestamps",)), tmp_path / "out")
    assert [call[2] for call in calls[1:]] == asked


def test_unknown_languages(options: RunOptions, calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SteerOptionError, match="unknown language 'eng'; did you mean 'en'"):
        run(replace(options, language="eng"), tmp_path / "out")
    manifest = Path(options.manifests[0])
    manifest.write_text(manifest.read_text().replace('"fr"', '"xx"'))
    with pytest.raises(SteerOptionError, match="unknown language 'xx'"):
        run(replace(options, language="manifest"), tmp_path / "out")
    assert calls == []
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(StandInModels, "multilingual", False)
    run(replace(options, language="manifest"), tmp_path / "out")
    assert len(calls) == 16, "English-only models take everything for English"


def test_beam_size_is_positive(options: RunOptions, calls: Calls, tmp_path: Path) -> None:
    with pytest.raises(SteerOptionError, match="beam size 0"):
        run(replace(options, beam_size=0), tmp_path / "out")
    assert calls == []


def test_audio_that_cannot_be_read_stops_the_run_and_keeps_what_is_done(
    options: RunOptions, calls: Calls, tmp_path: Path
) -> None:
    (tmp_path / "1.wav").write_bytes(b"not audio")
    with pytest.raises(AudioError, match=r"1\.wav"):
        run(options, tmp_path / "out")
    assert len(done_keys(tmp_path / "out")) == 4
    assert len(calls) == 4 + 4
