"""Clips transcribed by the workers of a Ray cluster, as a Ray Data job. The driver alone writes results.

    for record in on_ray(options, work, expected=transcriber.describe()):      # as they are made, in any order
        ...

Every worker must be able to read the audio, the model and the packs by the same paths as the driver (a shared file
system), and have the same versions of everything: each compares what it has with `expected` before its first clip.
"""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

from steer_asr import _cluster
from steer_asr._cluster import MAX_LOSSES, Losses, cluster, quiet_data
from steer_asr.errors import SteerASRError, SteerOptionError, WorkerError
from steer_asr_benchmarks.work import ClipWork, RunOptions, Transcriber, changes

MAX_BLOCKS = 10_000
"""Ray hands out blocks of clips, and hands back what a block gave when all of it is done. Up to here a block is one
clip; beyond, so many blocks cost more than what an interrupt loses."""


def on_ray(options: RunOptions, work: Sequence[ClipWork], expected: Mapping[str, Any]) -> Generator[dict[str, Any]]:
    """The records of `work`, as Ray's workers hand them over.

    Raises `SteerOptionError` when the cluster cannot be reached or a worker is not set up as the driver is,
    `AudioError` and the like as a worker met them, and `WorkerError` when workers are lost.
    """
    with cluster(options.ray or "local"):
        import ray
        from ray.data import ActorPoolStrategy
        from ray.exceptions import RayError

        gpu = (expected["model"] or {}).get("device") == "cuda"
        size, cpus = pool_size(options, len(work), ray.nodes(), gpu)
        losses = ray.remote(num_cpus=0)(Losses).remote()
        try:
            with quiet_data():
                rows = [{"work": pickle.dumps(one)} for one in work]
                made = ray.data.from_items(rows, override_num_blocks=min(len(rows), MAX_BLOCKS)).flat_map(
                    RayTranscriber,
                    fn_constructor_args=(options, expected, os.getcwd(), losses),
                    compute=ActorPoolStrategy(size=size),
                    num_cpus=cpus,
                    num_gpus=1 if gpu else None,
                )
                # Closed while Ray is there: left to the garbage collector, its clean-up would come after Ray's end.
                with closing(row for row in made.iter_rows()) as found:
                    yield from received(found, work)
        except RayError as error:
            raise WorkerError(f"Ray failed; what is done stays, the same command resumes. {error}") from error


def received(rows: Iterator[dict[str, Any]], work: Sequence[ClipWork]) -> Generator[dict[str, Any]]:
    """The records in rows that `RayTranscriber` made, or the error that one holds, raised.

    Ray may run a block again whose worker it lost, so that a record would come twice; the second is not passed on.
    """
    left = {job.key(one.named) for one in work for job in one.jobs}
    for row in rows:
        found = pickle.loads(row["made"])
        if isinstance(found, SteerASRError):
            raise found
        key = found["clip"], found["system"], found["mode"]
        if key in left:
            left.remove(key)
            yield found


class RayTranscriber:
    """A Ray Data actor: rows {"work": pickled `ClipWork`} in, rows {"made": pickled record or error} out.

    Errors travel as rows: an actor that raises is started again by Ray, over and over.
    """

    def __init__(self, options: RunOptions, expected: Mapping[str, Any], folder: str, losses: Any) -> None:
        self.losses = losses
        self.transcriber: Transcriber | SteerASRError
        try:
            if os.path.isdir(folder):  # relative paths then mean what they mean to the driver
                os.chdir(folder)
            self.transcriber = Transcriber(options)
            check_same(expected, self.transcriber.describe())
        except SteerASRError as error:
            self.transcriber = error

    def __call__(self, row: Mapping[str, Any]) -> Iterator[dict[str, bytes]]:
        for made in self._made(pickle.loads(row["work"])):
            yield {"made": pickle.dumps(made)}

    def _made(self, work: ClipWork) -> Iterator[dict[str, Any] | SteerASRError]:
        import ray

        if isinstance(self.transcriber, SteerASRError):
            yield self.transcriber
            return
        clip = work.named.id
        [lost] = ray.get([self.losses.begin.remote(clip)])
        if lost >= MAX_LOSSES:
            yield WorkerError(f"{clip}: {MAX_LOSSES} Ray workers died over it, perhaps for want of memory")
            return
        try:
            yield from self.transcriber.records(work)
        except SteerASRError as error:
            yield error
        self.losses.end.remote(clip)


def check_same(expected: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raises `SteerOptionError` when a worker would not predict what the driver would."""
    if differences := changes(expected, found):
        raise SteerOptionError(
            f"the Ray worker on {socket.gethostname()} is not set up as the driver is: {'; '.join(differences[:3])} "
            "(was: the driver's, is: the worker's)"
        )


def pool_size(options: RunOptions, clips: int, nodes: Sequence[Mapping[str, Any]], gpu: bool) -> tuple[int, int]:
    """(workers, CPUs of each): as many as asked for, and as the cluster's nodes, as `ray.nodes()` has them, can hold.

    Raises `SteerOptionError` when the model needs a GPU and no node has one.
    """
    size, cpus = _cluster.pool_size(
        nodes, wanted=options.jobs or 0, cpus_each=options.model.cpu_threads, pieces=clips, gpu=gpu
    )
    if not size:
        raise SteerOptionError("the model runs on a GPU here, and no node of the Ray cluster has one; --device cpu")
    return size, cpus
