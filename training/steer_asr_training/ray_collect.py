"""`steer-asr-train collect --ray`: shards of activations made by the workers of a Ray cluster, as a Ray Data job.

    collect_on_ray(config, "acts/base", address="10.0.0.1:6379", workers=4)

A shard is written by the worker that made it, with the code of `collect` and into the same folder, so that its content
is the same and either of the two goes on where the other was interrupted. Every worker has to read the audio and the
model, and write the folder, by the same paths as the driver (a shared file system); each checks before its first shard
that it would make what the driver would.
"""

from __future__ import annotations

import os
import pickle
import platform
import socket
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

import steer_asr
from steer_asr._cluster import MAX_LOSSES, Losses, check_ray, cluster, pool_size, quiet_data
from steer_asr._progress import Progress
from steer_asr.errors import SteerASRError, SteerOptionError, WorkerError
from steer_asr_training.collect import WINDOWS_PER_SHARD, CollectConfig, Collector
from steer_asr_training.encoders import native_bfloat16
from steer_asr_training.store import has_shard, open_store

MAX_BLOCKS = 10_000
"""Up to here a block, which is what Ray hands out, is one shard."""


def collect_on_ray(config: CollectConfig, folder: str | Path, *, address: str = "local", workers: int = 0) -> Path:
    """`collect`, on a Ray cluster: `address` is HOST:PORT, "auto", or "local" for one of its own.

    `workers` 0 is one for each GPU, or, where there are none, for each CPU. Raises what `collect` raises;
    `SteerOptionError` also when Ray is missing or cannot be reached, or a worker is not set up as the driver is;
    `WorkerError` when workers are lost.
    """
    check_ray(address)
    folder, collector = Path(folder).resolve(), Collector(config)
    open_store(folder, collector.header)
    todo = [index for index in range(collector.n_shards) if not has_shard(folder, index)]
    if not todo:
        return folder
    expected = description(collector)
    label = f"collect {collector.encoder.name}"
    del collector  # a model that only the workers need
    with cluster(address):
        import ray
        from ray.data import ActorPoolStrategy
        from ray.exceptions import RayError

        gpu = any(node["Alive"] and node["Resources"].get("GPU", 0) >= 1 for node in ray.nodes())
        size, cpus = pool_size(ray.nodes(), wanted=workers, cpus_each=0, pieces=len(todo), gpu=gpu)
        losses = ray.remote(num_cpus=0)(Losses).remote()
        precision = None if gpu or config.precision != "auto" else "bfloat16" if native_bfloat16("cpu") else "float32"
        try:
            with quiet_data(), Progress(total=len(todo) * WINDOWS_PER_SHARD, unit="window", label=label) as progress:
                rows = [{"shard": index} for index in todo]
                actor: Any = RayCollector
                made = ray.data.from_items(rows, override_num_blocks=min(len(rows), MAX_BLOCKS)).map(
                    actor,
                    fn_constructor_args=(config, str(folder), expected, precision, cpus, os.getcwd(), losses),
                    compute=ActorPoolStrategy(size=size),
                    num_cpus=cpus,
                    num_gpus=1 if gpu else None,
                )
                # Closed while Ray is there: left to the garbage collector, its clean-up would come after Ray's end.
                with closing(row for row in made.iter_rows()) as found:
                    for row in found:
                        if row["error"]:
                            raise pickle.loads(row["error"])
                        progress.advance(WINDOWS_PER_SHARD)
        except RayError as error:
            raise WorkerError(f"Ray failed; what is done stays, the same command resumes. {error}") from error
    return folder


def description(collector: Collector) -> dict[str, Any]:
    """What has to be the same everywhere for shards to be the same."""
    versions = {module.__name__: module.__version__ for module in (steer_asr, np, torch, transformers)}
    return collector.header | {"versions": versions | {"python": platform.python_version()}}


class RayCollector:
    """A Ray Data actor: rows {"shard": index} in; out, once it is written, {"shard": index, "error": pickled or b""}.

    Errors travel as rows: an actor that raises is started again by Ray, over and over.
    """

    def __init__(
        self,
        config: CollectConfig,
        folder: str,
        expected: Mapping[str, Any],
        precision: str | None,
        cpus: int,
        cwd: str,
        losses: Any,
    ) -> None:
        self.folder, self.losses = Path(folder), losses
        self.collector: Collector | SteerASRError
        try:
            if os.path.isdir(cwd):  # relative paths then mean what they mean to the driver
                os.chdir(cwd)
            torch.set_num_threads(cpus)
            self.collector = Collector(config, precision=precision)
            check_same(expected, description(self.collector))
        except SteerASRError as error:
            self.collector = error

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        error = self._write(int(row["shard"]))
        return {"shard": row["shard"], "error": b"" if error is None else pickle.dumps(error)}

    def _write(self, index: int) -> SteerASRError | None:
        import ray

        if isinstance(self.collector, SteerASRError):
            return self.collector
        shard = f"shard {index}"
        [lost] = ray.get([self.losses.begin.remote(shard)])
        if lost >= MAX_LOSSES:
            return WorkerError(f"{shard}: {MAX_LOSSES} Ray workers died over it, perhaps for want of memory")
        try:
            if not has_shard(self.folder, index):  # Ray may hand out again what a lost worker had made
                self.collector.write(self.folder, index)
        except SteerASRError as error:
            return error
        self.losses.end.remote(shard)
        return None


def check_same(expected: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raises `SteerOptionError` when a worker would not make what the driver would."""
    if different := sorted(key for key in expected if expected[key] != found[key]):
        raise SteerOptionError(
            f"the Ray worker on {socket.gethostname()} is not set up as the driver is: {different[0]} is "
            f"{found[different[0]]!r} there and {expected[different[0]]!r} here"
        )
