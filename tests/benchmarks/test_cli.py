from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from steer_asr_benchmarks import cli, runner
from steer_asr_benchmarks.clips import Shard
from steer_asr_benchmarks.predictions import PredictionLog
from steer_asr_benchmarks.runner import RunOptions
from steer_asr_benchmarks.systems import ModelOptions
from tests.benchmarks.builders import record, segment


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["steer-asr-bench", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[RunOptions]:
    """The options that `run` is called with; in its place one prediction is written."""
    seen: list[RunOptions] = []

    def stand_in(options: RunOptions, out: Path) -> None:
        seen.append(options)
        with PredictionLog(out / "predictions.jsonl") as log:
            log.append(record(segment(" you")))

    monkeypatch.setattr(runner, "run", stand_in)
    return seen


def test_run_reports_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], asked: list[RunOptions], tmp_path: Path
) -> None:
    assert call(monkeypatch, "run", "--manifest", "a.jsonl", "-o", tmp_path) == 0
    assert asked == [RunOptions((Path("a.jsonl"),))]
    assert json.loads((tmp_path / "report.json").read_text())["systems"]["stock"]["nonspeech"]["clips"] == 1
    printed, written = capsys.readouterr().out, (tmp_path / "report.md").read_text()
    assert set(printed.splitlines()) <= set(written.splitlines()), "the summary; the file goes on with details"
    assert "## timestamps" in printed
    assert "By source" in written


def test_run_options(monkeypatch: pytest.MonkeyPatch, asked: list[RunOptions], tmp_path: Path) -> None:
    options = (
        "--manifest a --manifest b --model tiny.en --systems stock,steered:0.5 --steer p@0.3 --vad --no-timestamps"
    )
    more = "--language fr --beam-size 5 --compute-type int8 --device cpu --cpu-threads 1 --limit 7 --shard 2/3"
    assert call(monkeypatch, "run", *options.split(), *more.split(), "-o", tmp_path) == 0
    assert asked == [
        RunOptions(
            manifests=(Path("a"), Path("b")),
            systems=("stock", "steered:0.5", "stock+vad", "steered:0.5+vad"),
            model=ModelOptions("tiny.en", "cpu", "int8", 1),
            steer="p@0.3",
            modes=("no_timestamps",),
            language="fr",
            beam_size=5,
            limit=7,
            shard=Shard(2, 3),
        )
    ]


def test_modes(monkeypatch: pytest.MonkeyPatch, asked: list[RunOptions], tmp_path: Path) -> None:
    for i, flag in enumerate(([], ["--timestamps"], ["--no-timestamps"])):
        call(monkeypatch, "run", "--manifest", "a", *flag, "-o", tmp_path / str(i))
    assert [options.modes for options in asked] == [
        ("timestamps", "no_timestamps"),
        ("timestamps",),
        ("no_timestamps",),
    ]


@pytest.mark.usefixtures("asked")
def test_score_makes_the_report_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    call(monkeypatch, "run", "--manifest", "a", "-o", tmp_path)
    first = (tmp_path / "report.json").read_bytes()
    (tmp_path / "report.json").unlink()
    capsys.readouterr()
    assert call(monkeypatch, "score", tmp_path) == 0
    assert (tmp_path / "report.json").read_bytes() == first
    assert "stock" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--manifest", "no.jsonl", "-o", "out"], "error: no.jsonl: cannot be read as a manifest"),
        (["run", "--manifest", "a", "--shard", "5/2", "-o", "out"], "error: shard '5/2'"),
        (["score", "nowhere"], "error: nowhere: no predictions in it"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, *arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(message)
    assert len(printed.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_an_interrupt_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run", interrupted)
    assert call(monkeypatch, "run", "--manifest", "a", "-o", tmp_path) == 130
    assert capsys.readouterr().err == "interrupted; the same command resumes\n"


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def missing(*_: Any) -> None:
        raise ModuleNotFoundError("No module named 'jiwer'", name="jiwer")

    monkeypatch.setattr(cli, "report_command", missing)
    assert call(monkeypatch, "score", "x") == 2
    assert capsys.readouterr().err == "error: steer-asr-bench needs jiwer: pip install 'steer-asr[bench]'\n"


def test_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "run", "--help") == 0
    printed = capsys.readouterr().out
    for option in ("--manifest", "--systems", "--steer", "--vad", "--no-timestamps", "--limit", "--shard"):
        assert option in printed
