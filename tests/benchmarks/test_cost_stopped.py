"""`--measure-cost` where it cannot go on: processes killed and interrupted for real, options that cannot be."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from steer_asr.errors import WorkerError
from steer_asr_benchmarks import cli, cost, runner
from steer_asr_benchmarks.cost import COST_FILE, measure, peak_rss_bytes, read_cost
from steer_asr_benchmarks.runner import RunOptions
from steer_asr_benchmarks.workers import Child, child_process


def signalled(number: signal.Signals, *, child_itself: bool) -> Any:
    """`child_process`, with a signal to the child, or to this process, as soon as the child has been started."""

    @contextmanager
    def start(*arguments: Any) -> Iterator[Child]:
        with child_process(*arguments) as child:
            os.kill((child.process.pid or 0) if child_itself else os.getpid(), number)
            yield child

    return start


def test_a_killed_measurement_leaves_what_was_there(
    tiny_run: RunOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / COST_FILE).write_text('{"systems": {}}')
    monkeypatch.setattr(cost, "child_process", signalled(signal.SIGKILL, child_itself=True))
    with pytest.raises(WorkerError, match="the process measuring what stock costs was killed"):
        measure(tiny_run, tmp_path, clips=1)
    assert [path.name for path in tmp_path.iterdir()] == [COST_FILE]
    assert read_cost(tmp_path) == {"systems": {}}


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["steer-asr-bench", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


def test_an_interrupted_measurement_writes_nothing(
    tiny_run: RunOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runner, "run", lambda *_: None)  # the main run is done
    monkeypatch.setattr(cost, "child_process", signalled(signal.SIGINT, child_itself=False))
    manifest, model = tiny_run.manifests[0], tiny_run.model.name
    assert call(monkeypatch, "run", "--manifest", manifest, "--model", model, "-o", tmp_path, "--measure-cost") == 130
    assert capsys.readouterr().err.splitlines()[-1] == "interrupted; the same command resumes"
    assert list(tmp_path.iterdir()) == []
    assert multiprocessing.active_children() == []


def test_the_number_of_clips_is_checked_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[Any] = []
    monkeypatch.setattr(runner, "run", lambda *_: ran.append(1))
    assert call(monkeypatch, "run", "--manifest", "a.jsonl", "-o", tmp_path, "--measure-cost", "0") == 2
    assert "--measure-cost 0 is not at least 1 clip" in capsys.readouterr().err
    assert ran == []


@pytest.mark.parametrize("status", ["Name:\tpython\n", None])
def test_peak_memory_where_the_system_does_not_list_it(status: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in some sandboxes, and on macOS, which has no /proc."""
    listed = peak_rss_bytes()

    def read_text(*_: Any, **__: Any) -> str:
        if status is None:
            raise FileNotFoundError
        return status

    monkeypatch.setattr(Path, "read_text", read_text)
    assert listed - (8 << 20) <= peak_rss_bytes() < 100 * listed
