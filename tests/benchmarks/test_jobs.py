"""`--jobs`: real processes with tiny random models, killed and interrupted for real."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from steer_asr.errors import AudioError, ModelError, SteerOptionError, WorkerError
from steer_asr_benchmarks.clips import Shard
from steer_asr_benchmarks.predictions import Key, PredictionLog, done_keys
from steer_asr_benchmarks.runner import RunOptions, run
from steer_asr_benchmarks.systems import ModelOptions
from steer_asr_benchmarks.workers import child_process, threads_each
from tests.benchmarks.conftest import N_CLIPS, predicted, write_noise

START_S, STOP_S = 120, 30
Predicted = dict[Key, dict[str, Any]]


def test_two_processes_predict_what_one_does(
    tiny_run: RunOptions, by_one_process: Predicted, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run(replace(tiny_run, jobs=2), tmp_path)
    assert predicted(tmp_path) == by_one_process
    assert [path.name for path in tmp_path.glob("pred*")] == ["predictions.jsonl"]
    assert f"bench: {4 * N_CLIPS}/{4 * N_CLIPS} predictions" in capfd.readouterr().err
    assert multiprocessing.active_children() == []
    before = (tmp_path / "predictions.jsonl").read_bytes()
    run(replace(tiny_run, jobs=3), tmp_path)
    assert (tmp_path / "predictions.jsonl").read_bytes() == before


def test_limit_and_shard_go_with_jobs(tiny_run: RunOptions, by_one_process: Predicted, tmp_path: Path) -> None:
    half = replace(tiny_run, limit=4, shard=Shard(2, 2), jobs=2)
    run(half, tmp_path)
    assert [path.name for path in tmp_path.glob("pred*")] == ["predictions-2-of-2.jsonl"]
    clips = {clip for clip, *_ in done_keys(tmp_path)}
    assert clips == {"m.jsonl:1.wav", "m.jsonl:4.wav"}, "of the four clips 0, 1, 3, 4"
    assert predicted(tmp_path).items() <= by_one_process.items()


def test_a_killed_worker_is_told_and_the_run_resumes(
    tiny_run: RunOptions,
    by_one_process: Predicted,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    append = PredictionLog.append
    written: list[str] = []

    def kill_after_five(log: PredictionLog, record: dict[str, Any]) -> None:
        append(log, record)
        written.append(record["clip"])
        if len(written) == 5:
            for worker in multiprocessing.active_children():
                os.kill(worker.pid or 0, signal.SIGKILL)

    with monkeypatch.context() as patched:
        patched.setattr(PredictionLog, "append", kill_after_five)
        with pytest.raises(WorkerError, match=r"transcribing m\.jsonl:\d\.wav was killed, perhaps for want of memory"):
            run(replace(tiny_run, jobs=2), tmp_path)
    done = len(done_keys(tmp_path))
    assert 5 <= done < 4 * N_CLIPS
    assert multiprocessing.active_children() == []
    capfd.readouterr()
    run(tiny_run, tmp_path)  # by one process now
    assert predicted(tmp_path) == by_one_process
    left = 4 * N_CLIPS - done
    assert f"bench: {left}/{left} predictions" in capfd.readouterr().err, "counts what was left"


def test_an_interrupt_ends_all_processes(
    tiny_run: RunOptions, by_one_process: Predicted, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As a terminal does it: the signal goes to every process of the group."""
    mark = f"STEER_ASR_TEST_RUN={uuid.uuid4()}"
    environment = os.environ | dict([mark.split("=")]) | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "steer_asr_benchmarks.cli", "run", "--jobs", "2", "-o", str(tmp_path)]
    command += ["--manifest", str(tiny_run.manifests[0]), "--systems", ",".join(tiny_run.systems)]
    command += ["--model", tiny_run.model.name, "--device", "cpu", "--cpu-threads", "1"]
    log = tmp_path_factory.mktemp("log") / "stderr"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=stderr, start_new_session=True
        )
    predictions = tmp_path / "predictions.jsonl"
    wait_for(lambda: predictions.exists() and predictions.stat().st_size > 0, process)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(STOP_S) == 130, log.read_text()
    assert log.read_text().splitlines()[1:] == ["interrupted; the same command resumes"]
    wait_for(lambda: not processes(mark))
    assert 0 < len(done_keys(tmp_path)) < 4 * N_CLIPS
    run(tiny_run, tmp_path)
    assert predicted(tmp_path) == by_one_process


def test_errors_of_a_worker_are_the_ones_of_one_process(tiny_run: RunOptions, tmp_path: Path) -> None:
    for i in range(2):
        write_noise(tmp_path / f"{i}.wav", seconds=0.5, seed=i)
    manifest = tmp_path / "bad.jsonl"
    manifest.write_text('{"audio_filepath": "0.wav", "duration": 1}\n{"audio_filepath": "1.wav", "duration": 1}')
    (tmp_path / "1.wav").write_bytes(b"not audio")
    with pytest.raises(AudioError, match=r"1\.wav"):
        run(replace(tiny_run, manifests=(manifest,), jobs=2), tmp_path / "out")
    assert {clip for clip, *_ in done_keys(tmp_path / "out")} <= {"bad.jsonl:0.wav"}


def test_a_number_of_jobs_is_positive(tiny_run: RunOptions, tmp_path: Path) -> None:
    with pytest.raises(SteerOptionError, match="jobs 0"):
        run(replace(tiny_run, jobs=0), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_workers_share_the_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    options = RunOptions(())
    assert [threads_each(options, n) for n in (1, 2, 3, 16)] == [8, 4, 2, 1]
    assert threads_each(replace(options, model=ModelOptions(cpu_threads=3)), 4) == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert threads_each(options, 4) == 0


def raise_model_error(_: Any) -> None:
    raise ModelError("no such thing")


def raise_bug(_: Any) -> None:
    raise ZeroDivisionError("a bug")


def wait_for_word(connection: Any) -> None:
    connection.send("ready")
    connection.recv()


def test_how_a_child_ends_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    with child_process(raise_model_error) as child, pytest.raises(ModelError, match="no such thing"):
        child.receive("trying")
    assert capfd.readouterr().err == ""
    with child_process(raise_bug) as child, pytest.raises(WorkerError, match="the process trying ended with exit code"):
        child.receive("trying")
    assert "ZeroDivisionError: a bug" in capfd.readouterr().err
    with child_process(wait_for_word) as child:
        assert child.receive("trying") == "ready"
        os.kill(child.process.pid or 0, signal.SIGINT)  # as Ctrl-C does; it is not for the child to take
        os.kill(child.process.pid or 0, signal.SIGTERM)
        with pytest.raises(WorkerError, match="the process trying was ended by SIGTERM"):
            child.receive("trying")


def test_children_start_from_any_thread() -> None:
    """Only the main thread may set what an interrupt does."""
    heard = []

    def start() -> None:
        with child_process(wait_for_word) as child:
            heard.append(child.receive("trying"))

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert heard == ["ready"]


ORPHANED = """
import os, signal
from steer_asr_benchmarks.workers import child_process
from tests.benchmarks.test_jobs import wait_for_word
if __name__ == "__main__":
    with child_process(wait_for_word) as child:
        child.receive("starting")
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_children_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    mark = f"STEER_ASR_TEST_RUN={uuid.uuid4()}"
    environment = os.environ | dict([mark.split("=")]) | {"PYTHONPATH": os.pathsep.join(sys.path)}
    script = tmp_path / "orphaned.py"
    script.write_text(ORPHANED)
    done = subprocess.run([sys.executable, script], env=environment, stderr=subprocess.PIPE, text=True, timeout=START_S)
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, "")
    wait_for(lambda: not processes(mark))


def processes(mark: str) -> list[int]:
    """Of all that have `mark` in their environment, those that run."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:  # ended meanwhile, or another user's
            continue
    return found


def wait_for(condition: Any, process: subprocess.Popen[Any] | None = None) -> None:
    deadline = time.monotonic() + (STOP_S if process is None else START_S)
    while not condition():
        assert process is None or process.poll() is None, "ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.02)
