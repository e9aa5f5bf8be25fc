"""`--jobs`, `--ray` and `--measure-cost` on the command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from steer_asr._optional_values import RAY_ADDRESS, with_values
from steer_asr_benchmarks import cli, cost, runner

Asked = list[tuple[str, Any]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """What is called, with what it is called with; nothing runs."""
    calls: Asked = []
    monkeypatch.setattr(runner, "run", lambda options, _: calls.append(("run", (options.jobs, options.ray))))
    monkeypatch.setattr(cost, "measure", lambda _options, _out, clips: calls.append(("measure", clips)))
    monkeypatch.setattr(cli, "report_command", lambda *_: calls.append(("report", None)))
    return calls


def call(monkeypatch: pytest.MonkeyPatch, out: Path, *options: str) -> int:
    monkeypatch.setattr(sys, "argv", ["steer-asr-bench", "run", *options, "--manifest", "a", "-o", str(out)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


@pytest.mark.parametrize(
    ("options", "calls"),
    [
        ([], [("run", (None, None))]),
        (["--jobs", "3"], [("run", (3, None))]),
        (["--ray"], [("run", (None, "local"))]),
        (["--ray", "host:6379", "--jobs", "2"], [("run", (2, "host:6379"))]),
        (["--ray=auto"], [("run", (None, "auto"))]),
        (["--measure-cost", "--ray"], [("run", (None, "local")), ("measure", 8)]),
        (["--measure-cost", "20"], [("run", (None, None)), ("measure", 20)]),
    ],
)
def test_values_may_be_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, asked: Asked, options: list[str], calls: Asked
) -> None:
    assert call(monkeypatch, tmp_path, *options) == 0
    assert asked == [*calls, ("report", None)]


def test_as_the_last_word() -> None:
    assert with_values(["--ray"], {"--ray": "local"}) == ["--ray", "local"]
    assert with_values([], {"--ray": "local"}) == []


@pytest.mark.parametrize(
    ("args", "filled"),
    [
        (["--ray", "recipe.yaml", "acts"], ["--ray", "local", "recipe.yaml", "acts"]),
        (["--ray", "host:6379", "acts"], ["--ray", "host:6379", "acts"]),
        (["--ray", "[::1]:6379", "acts"], ["--ray", "[::1]:6379", "acts"]),
        (["--ray", "auto", "acts"], ["--ray", "auto", "acts"]),
        (["--ray", "ray://host:10001"], ["--ray", "ray://host:10001"]),
        (["acts", "--ray", "-o", "out"], ["acts", "--ray", "local", "-o", "out"]),
    ],
)
def test_beside_files_only_an_address_is_a_value(args: list[str], filled: list[str]) -> None:
    assert with_values(args, {"--ray": "local"}, RAY_ADDRESS) == filled


def test_a_wrong_number_of_clips_shows_before_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, tmp_path, "--measure-cost", "0") == 2
    assert asked == []
    assert capsys.readouterr().err == "error: --measure-cost 0 is not at least 1 clip\n"


def test_an_interrupted_measurement_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cost, "measure", interrupted)
    assert call(monkeypatch, tmp_path, "--measure-cost") == 130
    assert asked == [("run", (None, None))], "and no report"
    assert capsys.readouterr().err == "interrupted; the same command resumes\n"
