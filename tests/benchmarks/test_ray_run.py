"""`--ray`: a real cluster on this machine, with tiny random models, killed and interrupted for real."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from steer_asr._cluster import MAX_LOSSES, Losses, check_ray
from steer_asr.errors import AudioError, SteerOptionError, WorkerError
from steer_asr_benchmarks.clips import load_clips
from steer_asr_benchmarks.predictions import Key, PredictionLog, done_keys
from steer_asr_benchmarks.ray_run import RayTranscriber, pool_size, received
from steer_asr_benchmarks.runner import RunOptions, run
from steer_asr_benchmarks.systems import ModelOptions
from steer_asr_benchmarks.work import ClipWork, Job, Transcriber
from tests.benchmarks.conftest import N_CLIPS, predicted, write_noise
from tests.benchmarks.test_jobs import processes, wait_for
from tests.own_ray import ray_workers

# Ray Data warns of settings of its own, whenever it reads them.
pytestmark = pytest.mark.filterwarnings("ignore:`use_:DeprecationWarning")
STOP_S = 60
Predicted = dict[Key, dict[str, Any]]


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_ray_predicts_what_one_process_does_however_it_was_stopped(
    tiny_run: RunOptions,
    by_one_process: Predicted,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    append = PredictionLog.append

    def append_one(log: PredictionLog, record: dict[str, Any]) -> None:
        append(log, record)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(PredictionLog, "append", append_one)
        run(replace(tiny_run, ray="local"), tmp_path)
    assert len(done_keys(tmp_path)) == 1
    capfd.readouterr()
    run(replace(tiny_run, ray="local", jobs=2), tmp_path)
    assert predicted(tmp_path) == by_one_process
    assert capfd.readouterr().err.startswith(f"bench: {4 * N_CLIPS - 1}/{4 * N_CLIPS - 1} predictions")
    before = (tmp_path / "predictions.jsonl").read_bytes()
    run(replace(tiny_run, ray="local"), tmp_path)
    assert (tmp_path / "predictions.jsonl").read_bytes() == before


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_lost_worker_is_replaced(
    tiny_run: RunOptions, by_one_process: Predicted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = PredictionLog.append
    killed = []

    def kill_one(log: PredictionLog, record: dict[str, Any]) -> None:
        append(log, record)
        if not killed:
            killed.append(transcribers()[0])
            os.kill(killed[0], signal.SIGKILL)

    monkeypatch.setattr(PredictionLog, "append", kill_one)
    run(replace(tiny_run, ray="local", jobs=1), tmp_path)
    assert predicted(tmp_path) == by_one_process
    assert killed


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_errors_of_a_worker_are_the_ones_of_one_process(tiny_run: RunOptions, tmp_path: Path) -> None:
    write_noise(tmp_path / "0.wav", seconds=0.5, seed=0)
    manifest = tmp_path / "bad.jsonl"
    manifest.write_text(json.dumps({"audio_filepath": "0.wav", "duration": 1}))
    (tmp_path / "0.wav").write_bytes(b"not audio")
    options = replace(tiny_run, manifests=(manifest,), ray="local")
    with pytest.raises(AudioError, match=r"0\.wav") as kept:
        run(options, tmp_path / "out")
    assert done_keys(tmp_path / "out") == set()
    wait_for(lambda: not transcribers())  # they end with the run, not when the error is forgotten
    del kept


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_clip_that_workers_die_over_is_named(tiny_run: RunOptions) -> None:
    import ray

    [named, *_] = load_clips(tiny_run.manifests)
    work = ClipWork(named, (Job("stock", "timestamps"),))
    remote: Any = ray.remote(num_cpus=0)
    losses = remote(Losses).remote()
    [made] = rows(RayTranscriber(tiny_run, Transcriber(tiny_run).describe(), os.getcwd(), losses), work)
    assert made["clip"] == named.id
    ray.get([losses.begin.remote(named.id) for _ in range(MAX_LOSSES)])
    [error] = rows(RayTranscriber(tiny_run, Transcriber(tiny_run).describe(), os.getcwd(), losses), work)
    with pytest.raises(WorkerError, match=r"m\.jsonl:0\.wav: 3 Ray workers died over it"):
        list(received(iter([{"made": pickle.dumps(error)}]), [work]))


@pytest.mark.slow
def test_an_interrupt_ends_the_cluster_that_was_started(
    tiny_run: RunOptions, by_one_process: Predicted, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The command as people run it; the signal goes to every process of the group, as a terminal sends it."""
    pytest.importorskip("ray")
    mark = f"STEER_ASR_TEST_RUN={uuid.uuid4()}"
    environment = os.environ | dict([mark.split("=")]) | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "steer_asr_benchmarks.cli", "run", "--ray", "-o", str(tmp_path)]
    command += ["--manifest", str(tiny_run.manifests[0]), "--systems", ",".join(tiny_run.systems)]
    command += ["--model", tiny_run.model.name, "--device", "cpu", "--cpu-threads", "1"]
    log = tmp_path_factory.mktemp("log") / "stderr"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=stderr, start_new_session=True
        )
    predictions = tmp_path / "predictions.jsonl"
    wait_for(lambda: predictions.exists() and predictions.stat().st_size > 0, process)
    assert len(processes(mark)) > 5
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(STOP_S) == 130, log.read_text()
    assert log.read_text().splitlines()[-1] == "interrupted; the same command resumes"
    assert "Traceback" not in log.read_text()
    wait_for(lambda: not processes(mark))
    assert 0 < len(done_keys(tmp_path)) < 4 * N_CLIPS
    run(tiny_run, tmp_path)
    assert predicted(tmp_path) == by_one_process


def test_a_worker_that_is_set_up_otherwise_transcribes_nothing(tiny_run: RunOptions) -> None:
    described = Transcriber(tiny_run).describe()
    expected = {**described, "versions": {**described["versions"], "ctranslate2": "1.0"}}
    worker = RayTranscriber(tiny_run, expected, os.getcwd(), losses=None)
    [error] = rows(worker, ClipWork(load_clips(tiny_run.manifests)[0], (Job("stock", "timestamps"),)))
    assert isinstance(error, SteerOptionError)
    assert f"{socket.gethostname()} is not set up as the driver is: versions.ctranslate2 was '1.0'" in str(error)


def test_a_worker_stands_where_the_driver_stood(tiny_run: RunOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that relative paths of audio, models and packs are the same files."""
    model = Path(tiny_run.model.name)
    options = replace(tiny_run, systems=("stock",), model=replace(tiny_run.model, name=model.name))
    monkeypatch.chdir(model.parent)
    expected = Transcriber(options).describe()
    monkeypatch.chdir("/")
    worker = RayTranscriber(options, expected, str(model.parent), losses=None)
    assert isinstance(worker.transcriber, Transcriber)


def test_records_that_come_twice_count_once(tiny_run: RunOptions) -> None:
    named, *_ = load_clips(tiny_run.manifests)
    record = {"clip": named.id, "system": "stock", "mode": "timestamps"}
    other = {**record, "mode": "no_timestamps"}
    made = [{"made": pickle.dumps(one)} for one in (record, other, record)]
    work = [ClipWork(named, (Job("stock", "timestamps"), Job("stock", "no_timestamps")))]
    assert list(received(iter(made), work)) == [record, other]


def test_losses_are_clips_begun_and_never_ended() -> None:
    losses = Losses()
    assert [losses.begin("a"), losses.begin("b")] == [0, 0]
    losses.end("a")
    assert [losses.begin("a"), losses.begin("b"), losses.begin("b")] == [0, 1, 2]


def node(cpus: float, gpus: float = 0, alive: bool = True) -> dict[str, Any]:
    return {"Alive": alive, "Resources": {"CPU": cpus} | ({"GPU": gpus} if gpus else {})}


@pytest.mark.parametrize(
    ("jobs", "cpu_threads", "clips", "nodes", "size"),
    [
        (None, 0, 100, [node(8), node(4)], (12, 1)),
        (None, 4, 100, [node(8), node(6)], (3, 4)),
        (None, 16, 100, [node(8), node(6)], (1, 8)),
        (3, 0, 100, [node(8), node(4)], (3, 4)),
        (40, 0, 100, [node(8), node(4)], (12, 1)),
        (2, 0, 100, [node(8), node(8, alive=False)], (2, 4)),
        (None, 0, 5, [node(8)], (5, 1)),
        (None, 0, 5, [node(0)], (1, 1)),
    ],
)
def test_as_many_workers_as_the_nodes_hold(
    jobs: int | None, cpu_threads: int, clips: int, nodes: list[Any], size: tuple[int, int]
) -> None:
    options = RunOptions((), jobs=jobs, model=ModelOptions(cpu_threads=cpu_threads))
    assert pool_size(options, clips, nodes, gpu=False) == size


def test_workers_on_gpus_have_one_each() -> None:
    assert pool_size(RunOptions(()), 100, [node(8, gpus=2), node(8)], gpu=True) == (2, 1)
    with pytest.raises(SteerOptionError, match="no node of the Ray cluster has one"):
        pool_size(RunOptions(()), 100, [node(8)], gpu=True)


def test_what_ray_needs_is_named(tiny_run: RunOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pyarrow" else find(name))
    with pytest.raises(SteerOptionError, match=r"--ray needs pyarrow: pip install 'steer-asr\[ray\]'"):
        run(replace(tiny_run, ray="local"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_addresses_that_lead_nowhere(tiny_run: RunOptions, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]  # nobody listens
        with pytest.raises(SteerOptionError, match=f"127.0.0.1:{port}: no Ray cluster answers there"):
            run(replace(tiny_run, ray=f"127.0.0.1:{port}"), tmp_path / "out")
        for address, said in (
            ("ray://host:10001", "give HOST:PORT, or auto"),
            ("host", "'host' is not HOST:PORT, auto or local"),
            ("host:port", "no Ray cluster answers there"),
            ("127.0.0.1:99999", "no Ray cluster answers there"),
        ):
            with pytest.raises(SteerOptionError, match=said):
                check_ray(address)
    assert not (tmp_path / "out").exists()


def rows(worker: RayTranscriber, work: ClipWork) -> list[Any]:
    """What the worker makes of a clip, in the driver's hands."""
    return [pickle.loads(row["made"]) for row in worker({"work": pickle.dumps(work)})]


def transcribers() -> list[int]:
    return ray_workers("RayTranscriber")
