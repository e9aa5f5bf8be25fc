"""`steer-asr-train fit --ray`: each batch of a fit spread over the workers of a Ray cluster.

    fit_layers(config, store, "sae/base", points, on=RayTrainer("10.0.0.1:6379", workers=4))

Ray Train starts the workers and starts them again when one is lost; PyTorch's DistributedDataParallel averages their
gradients. All draw the same batches and take a share of each, so that a step is that of one process, up to rounding.
Every worker reads the store and the folder of the run by the same paths (a shared file system); the checkpoint in that
folder is the one that `fit` writes, so that either of the two goes on where the other was interrupted.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from steer_asr._cluster import PACKAGES, check_ray, cluster
from steer_asr._progress import Progress
from steer_asr.errors import SteerASRError, SteerOptionError, WorkerError
from steer_asr_training.batches import StoreBatches
from steer_asr_training.fit import store_batches, train
from steer_asr_training.fit_config import FitConfig
from steer_asr_training.fit_run import CHECKPOINT_FILE, FitRun
from steer_asr_training.store import ActivationStore

MAX_FAILURES = 3
"""Ray starts the workers again, from the last checkpoint, so often."""
LOOK_EVERY_S = 0.5
REPORT_EVERY_S = 1.0
RAY_FOLDER = "ray"
"""What Ray Train writes down of a run; gone when the run is done."""


@dataclass(frozen=True)
class Share:
    """What a worker has to know. Paths are absolute."""

    config: FitConfig
    store: str
    folder: str
    points: tuple[str, ...]
    tensorboard: bool = False


@dataclass(frozen=True)
class RayTrainer:
    """Trains as `fit.train` does, on a Ray cluster: `address` is HOST:PORT, "auto", or "local" for one of its own.

    `workers` 0 is one for each GPU, or, where there are none, one for each node.
    """

    address: str = "local"
    workers: int = 0

    def __call__(self, run: FitRun, batches: StoreBatches, *, tensorboard: bool = False) -> None:
        """Brings a run that was started or resumed to its last step.

        Raises `SteerOptionError` when Ray is missing, cannot be reached or has no room, `WorkerError` when workers are
        lost again and again, and what they raise.
        """
        check_ray(self.address, (*PACKAGES, "requests"))
        if self.workers > run.config.batch_frames:
            raise SteerOptionError(f"--workers {self.workers}: a batch has {run.config.batch_frames} frames to share")
        if run.step >= run.config.steps:
            return
        run.save(batches)  # where the workers begin
        points, folder = tuple(batches.points), run.folder.resolve()
        share = Share(run.config, str(batches.store.folder.resolve()), str(folder), points, tensorboard)
        with cluster(self.address):
            _train_on_ray(share, self.workers, run.step)
        run.resume(batches, points)


def train_share(share: Share, rank: int, world: int, progress: Progress) -> None:
    """Trains from the checkpoint in the run's folder on, in one of `world` processes of a torch.distributed group."""
    run = FitRun(share.config, Path(share.folder))
    store = ActivationStore(share.store)
    batches = store_batches(share.config, store, share.points, (rank, world))
    if not run.resume(batches, share.points):
        raise SteerOptionError(f"{share.folder}: {CHECKPOINT_FILE} cannot be seen from here; it needs a shared folder")
    run.spread(rank)
    train(run, batches, tensorboard=share.tensorboard and rank == 0, progress=progress)


def places(nodes: Sequence[Mapping[str, Any]], workers: int, *, gpu: bool) -> tuple[int, int]:
    """(workers, CPUs of each) for the nodes of a cluster, as `ray.nodes()` has them.

    Raises `SteerOptionError` when they cannot hold so many.
    """
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    cpus = [int(resources.get("CPU", 0)) for resources in alive]
    gpus = [int(resources.get("GPU", 0)) if gpu else 0 for resources in alive]
    n = workers or (sum(gpus) if gpu else sum(map(bool, cpus)))
    for each in range(max(cpus, default=0), 0, -1):
        fit_in = [c // each for c in cpus]
        if gpu:
            fit_in = [min(c, g) for c, g in zip(fit_in, gpus, strict=True)]
        if 0 < n <= sum(fit_in):
            return n, each
    kind = "GPU" if gpu else "CPU"
    raise SteerOptionError(f"--workers {workers}: the Ray cluster has {sum(gpus if gpu else cpus)} {kind}s")


class Board:
    """How far the workers are, in a Ray actor of its own."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._step, self._note = 0, ""

    def begin(self, step: int) -> None:
        """The workers begin, again perhaps, behind `step` updates."""
        self._starts.append(step)
        self._step = step

    def report(self, step: int, note: str) -> None:
        self._step, self._note = step, note

    def read(self) -> tuple[list[int], int, str]:
        """(step of each start, step, note)."""
        return self._starts, self._step, self._note


class BoardProgress(Progress):
    """Progress of the worker of rank 0, shown by the driver; of the others, shown by nobody."""

    def __init__(self, board: Any | None) -> None:
        super().__init__(total=0, unit="step", label="fit")
        self.board, self._told = board, 0.0

    def advance(self, n: int = 1, note: str = "") -> None:
        first, self.done = self._told == 0.0, self.done + n
        if self.board is None or (not first and time.monotonic() - self._told < REPORT_EVERY_S):
            return
        self._told = time.monotonic()
        import ray

        ray.get(self.board.begin.remote(self.done) if first else self.board.report.remote(self.done, note))


def _train_on_ray(share: Share, workers: int, step: int) -> None:
    import ray
    from ray.exceptions import RayError
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError

    has_gpu = any(node["Alive"] and node["Resources"].get("GPU", 0) >= 1 for node in ray.nodes())
    gpu = share.config.device == "cuda" or (share.config.device == "auto" and has_gpu)
    n, cpus = places(ray.nodes(), workers, gpu=gpu)
    board: Any = ray.remote(num_cpus=0)(Board).remote()
    shutil.rmtree(Path(share.folder) / RAY_FOLDER, ignore_errors=True)
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"share": share, "board": board, "cpus": cpus, "cwd": os.getcwd()},
        scaling_config=ScalingConfig(
            num_workers=n, use_gpu=gpu, resources_per_worker={"CPU": cpus} | ({"GPU": 1} if gpu else {})
        ),
        run_config=RunConfig(
            name=RAY_FOLDER, storage_path=share.folder, failure_config=FailureConfig(max_failures=MAX_FAILURES)
        ),
    )
    try:
        _watch(trainer, board, share.config.steps, step)
    except WorkerGroupError as error:
        for failure in error.worker_failures.values():
            if isinstance(failure, SteerASRError):
                raise failure from error
        raise WorkerError(
            f"the Ray workers failed {MAX_FAILURES + 1} times; the same command resumes. {error}"
        ) from error
    except (RayError, TrainingFailedError) as error:
        raise WorkerError(f"Ray failed; the same command resumes. {error}") from error
    finally:
        with contextlib.suppress(RayError):
            ray.kill(board)  # workers that are still there then end, too
        shutil.rmtree(Path(share.folder) / RAY_FOLDER, ignore_errors=True)


def _worker(given: Mapping[str, Any]) -> None:
    """What Ray Train runs in each worker, once the process group is there."""
    import ray.train

    if os.path.isdir(given["cwd"]):  # relative paths then mean what they mean to the driver
        os.chdir(given["cwd"])
    torch.set_num_threads(given["cpus"])
    context = ray.train.get_context()
    rank = context.get_world_rank()
    train_share(given["share"], rank, context.get_world_size(), BoardProgress(None if rank else given["board"]))


def _watch(trainer: Any, board: Any, steps: int, step: int) -> None:
    """Runs the trainer, beside this thread: in the main one it would take Ctrl-C away from us."""
    import ray

    raised: list[BaseException] = []

    def run() -> None:
        try:
            trainer.fit()
        except BaseException as error:  # raised below
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    with Progress(total=steps, unit="step", label="fit") as progress:
        progress.advance(step)
        starts = 1
        while thread.is_alive():
            thread.join(LOOK_EVERY_S)
            begun, reached, note = ray.get(board.read.remote())
            if len(begun) > starts:
                starts = len(begun)
                tqdm.write(f"fit: a worker was lost; on from step {begun[-1]}", file=sys.stderr)
            progress.advance(reached - progress.done, note)
        if raised:
            raise raised[0]
        progress.advance(steps - progress.done)
