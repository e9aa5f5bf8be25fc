from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from steer_asr.errors import SteerOptionError
from steer_asr_benchmarks import cli, runner
from steer_asr_benchmarks.conditions import Condition, check_names, failures
from steer_asr_benchmarks.predictions import PredictionLog
from steer_asr_benchmarks.runner import RunOptions
from tests.benchmarks.builders import record, segment

STEERED: dict[str, Any] = {
    "nonspeech": {"hallucination_rate": {"r": 0.025, "f": 0.0}, "ci": {"r": (0.009, 0.071), "f": None}},
    "speech": {"wer": None, "wer_languages": ["en", "fr"]},
    "by_source": {"demand": {"nonspeech": {"clips": 3}}, "demand.v1": {"nonspeech": {"clips": 4}}},
}
STOCK: dict[str, Any] = {"nonspeech": {"hallucination_rate": {"r": 0.98}}}
SYSTEMS = {"stock": STOCK, "steered": STEERED, "steered:0.5": {"speech": {"wer": 0.1}}, "http://a.b:80/v1+x": STOCK}
DIFFERENCES = {"steered": {"to": "stock", "wer": {"difference": -0.001, "ci": [-0.008, 0.0]}}}
REPORT: dict[str, Any] = {
    "systems": SYSTEMS,
    "differences": DIFFERENCES,
    "by_mode": {
        "timestamps": {"systems": SYSTEMS, "differences": DIFFERENCES},
        "no_timestamps": {"systems": {"steered": {"nonspeech": {"hallucination_rate": {"r": 0.5}}}}, "differences": {}},
    },
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("steered.nonspeech.hallucination_rate.r > 0", 0.025),
        ("steered:0.5.speech.wer>=.1", 0.1),
        ("http://a.b:80/v1+x.nonspeech.hallucination_rate.r<1e-3", 0.98),
        ("differences.steered.wer.difference <= -0.5", -0.001),
        ("by_mode.no_timestamps.systems.steered.nonspeech.hallucination_rate.r == +1.", 0.5),
        ("steered.nonspeech.ci.r.high > 0.05", 0.071),
        ("differences.steered.wer.ci.low > 0", -0.008),
        ("steered.by_source.demand.nonspeech.clips > 0", 3),
        ("steered.by_source.demand.v1.nonspeech.clips > 0", 4),
    ],
)
def test_paths(text: str, value: float) -> None:
    assert Condition.parse(text).measured(REPORT) == value


@pytest.mark.parametrize(
    ("operator", "below", "equal", "above"),
    [
        (">", False, False, True),
        (">=", False, True, True),
        ("<", True, False, False),
        ("<=", True, True, False),
        ("==", False, True, False),
        ("!=", True, False, True),
    ],
)
def test_operators(operator: str, below: bool, equal: bool, above: bool) -> None:
    for space in ("", " "):
        condition = Condition.parse(f"a.b{space}{operator}{space}0.5")
        assert (condition.path, condition.operator, condition.number) == ("a.b", operator, 0.5)
        assert [condition.holds(value) for value in (0.4, 0.5, 0.6)] == [below, equal, above]


def test_a_line_for_each_that_holds() -> None:
    conditions = [
        Condition.parse(" steered.nonspeech.hallucination_rate.r > 0.02 "),
        Condition.parse("stock.nonspeech.hallucination_rate.r < 0.5"),
        Condition.parse("differences.steered.wer.difference < 0"),
    ]
    assert failures(conditions, REPORT) == [
        "steered.nonspeech.hallucination_rate.r > 0.02 holds: it is 0.025",
        "differences.steered.wer.difference < 0 holds: it is -0.001",
    ]
    assert failures([], REPORT) == []


@pytest.mark.parametrize(
    "text",
    [
        *("", "steered", "> 1", "steered.speech.wer >", "steered.speech.wer = 1", "steered.speech.wer > x"),
        *("steered.speech.wer > nan", "steered.speech.wer > inf", "steered.speech.wer > 1_000", "a > 2%"),
        *("a > 1 and b > 1", "a > 1; import os", "a > __import__('os')", "a > 1\nb > x", "a > ٣"),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(SteerOptionError, match="is not PATH OP NUMBER with OP one of"):
        Condition.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sterd:0.5.speech.wer > 1", r"unknown name 'sterd:0\.5'; did you mean 'steered:0\.5'"),
        ("steered.nonspeach.clips > 1", r"unknown name under steered 'nonspeach'; did you mean 'nonspeech'"),
        ("steered.nonspeech.hallucination_rate.q > 1", r"Available: f, r"),
        ("steered.nonspeech.hallucination_rate.r.x > 1", "unknown name under steered.nonspeech.hallucination_rate.r"),
        ("steered.nonspeech. > 1", "unknown name under steered.nonspeech ''"),
        ("differences.stock.wer.difference > 1", r"unknown name under differences 'stock'.*Available: steered"),
        ("steered.nonspeech.hallucination_rate > 1", "is not a number; it holds r, f"),
        ("differences.steered.to > 1", "differences.steered.to is not a number$"),
        ("steered.speech.wer_languages > 1", "is not a number$"),
        ("steered.speech.wer > 1", r"nothing was measured there, steered\.speech\.wer is null"),
        ("steered.nonspeech.ci.f > 1", r"nothing was measured there"),
    ],
)
def test_a_path_that_leads_nowhere(text: str, message: str) -> None:
    with pytest.raises(SteerOptionError, match=message):
        failures([Condition.parse(text)], REPORT)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steerd.nonspeech.clips > 1", "unknown name 'steerd'; did you mean 'steered'"),
        (
            "by_mode.timestamp.systems.steered.x > 1",
            "name under by_mode 'timestamp'; did you mean 'timestamps'",
        ),
        ("by_mode.timestamps.systems.other.x > 1", "unknown name under by_mode.timestamps.systems 'other'"),
        ("differences.stock.wer.difference > 1", "unknown name under differences 'stock'"),
    ],
)
def test_names_are_checked_before_a_run(text: str, message: str) -> None:
    with pytest.raises(SteerOptionError, match=message):
        check_names([Condition.parse(text)], ["stock", "steered"], ["timestamps"])


def test_what_a_run_will_measure_is_not_known_before_it() -> None:
    paths = ("stock.anything", "differences.steered.x.y", "by_mode.timestamps.systems.stock.by_source.rain")
    check_names([Condition.parse(f"{path} > 1") for path in paths], ["stock", "steered"], ["timestamps"])


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["steer-asr-bench", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


def write_predictions(folder: Path) -> None:
    """Stock writes text on both non-speech clips, steered on one."""
    with PredictionLog(folder / "predictions.jsonl") as log:
        for system, texts in (("stock", (" you", " you")), ("steered", ("", " you"))):
            for i, text in enumerate(texts):
                log.append(record(segment(text), clip=f"q{i}", group=f"g{i}", system=system))


@pytest.mark.parametrize(
    ("conditions", "code", "lines"),
    [
        (["steered.nonspeech.hallucination_rate.r > 0.5"], 0, []),
        (
            ["steered.nonspeech.hallucination_rate.r >= 0.5", "stock.nonspeech.clips < 2", "stock.nonspeech.clips > 1"],
            1,
            [
                "failed: steered.nonspeech.hallucination_rate.r >= 0.5 holds: it is 0.5",
                "failed: stock.nonspeech.clips > 1 holds: it is 2",
            ],
        ),
        (
            ["stock.nonspeech.clips > 1", "steered.speech.wer > 0.1"],
            2,
            ["error: condition 'steered.speech.wer > 0.1': nothing was measured there, steered.speech.wer is null"],
        ),
    ],
)
def test_score_ends_with_the_exit_code_after_the_report(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    conditions: list[str],
    code: int,
    lines: list[str],
) -> None:
    write_predictions(tmp_path)
    options = [part for condition in conditions for part in ("--fail-if", condition)]
    assert call(monkeypatch, "score", tmp_path, *options) == code
    printed = capsys.readouterr()
    assert printed.err.splitlines() == lines
    assert "## timestamps" in printed.out
    assert set(printed.out.splitlines()) <= set((tmp_path / "report.md").read_text().splitlines())
    assert (tmp_path / "report.json").exists()


def test_score_reads_conditions_before_it_counts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write_predictions(tmp_path)
    assert call(monkeypatch, "score", tmp_path, "--fail-if", "stock") == 2
    assert capsys.readouterr().err.startswith("error: condition 'stock' is not PATH OP NUMBER")
    assert not (tmp_path / "report.json").exists()


def test_run_checks_names_first_and_fails_last(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ran: list[RunOptions] = []

    def stand_in(options: RunOptions, out: Path) -> None:
        ran.append(options)
        write_predictions(out)

    monkeypatch.setattr(runner, "run", stand_in)
    arguments = ("run", "--manifest", "a", "--timestamps", "-o", tmp_path, "--fail-if")
    assert call(monkeypatch, *arguments, "sterred.nonspeech.clips > 1") == 2
    assert "did you mean 'steered'" in capsys.readouterr().err
    assert call(monkeypatch, *arguments, "by_mode.no_timestamps.systems.stock.nonspeech.clips > 1") == 2
    assert ran == []
    assert (
        call(monkeypatch, *arguments, "by_mode.timestamps.differences.steered.hallucination_rate_r.difference < 0") == 1
    )
    assert len(ran) == 1
    assert "holds: it is -0.5" in capsys.readouterr().err


def test_a_run_that_goes_on_knows_the_systems_of_its_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = {"data": {"clips": 2}, "decoding": {"modes": ["timestamps"]}, "systems": {"stock": {}, "steered": {}}}
    (tmp_path / "run.json").write_text(json.dumps(run))
    monkeypatch.setattr(runner, "run", lambda _options, out: write_predictions(out))
    arguments = ("run", "--manifest", "a", "--systems", "steered", "-o", tmp_path)
    for path, code in (
        ("stock.nonspeech.clips", 1),
        ("differences.steered.clips", 1),
        ("steered:0.5.nonspeech.clips", 2),
    ):
        for found in tmp_path.glob("predictions*.jsonl"):
            found.unlink()
        assert call(monkeypatch, *arguments, "--fail-if", f"{path} > 1") == code
