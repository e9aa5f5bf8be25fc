"""Clips transcribed by the workers of a Ray cluster, as a Ray Data job. The driver alone writes results.

    for record in on_ray(options, work, expected=transcriber.describe()):      # as they are made, in any order
        ...

Every worker must be able to read the audio, the model and the packs by the same paths as the driver (a shared file
system), and have the same versions of everything: each compares what it has with `expected` before its first clip.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import pickle
import secrets
import socket
import sys
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any

from steer_asr.errors import SteerASRError, SteerOptionError
from steer_asr_benchmarks.work import ClipWork, RunOptions, Transcriber, WorkerError, changes

PACKAGES = ("ray", "pandas", "pyarrow")
"""What `steer-asr[ray]` brings."""
CONNECT_S = 5.0
MAX_BLOCKS = 10_000
"""Ray hands out blocks of clips, and hands back what a block gave when all of it is done. Up to here a block is one
clip; beyond, so many blocks cost more than what an interrupt loses."""
MAX_LOSSES = 3
"""Ray starts a lost worker again. One clip that takes so many with it stops the run."""
QUIET = {"RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_USAGE_STATS_ENABLED": "0"}
"""Environment, unless it says otherwise. What fails is raised in Python too; the log warns of what Ray Data does."""
OBJECT_STORE_BYTES = 256 << 20
"""Of a Ray started here. Only texts pass through it."""


def on_ray(options: RunOptions, work: Sequence[ClipWork], expected: Mapping[str, Any]) -> Generator[dict[str, Any]]:
    """The records of `work`, as Ray's workers hand them over.

    Raises `SteerOptionError` when the cluster cannot be reached or a worker is not set up as the driver is,
    `AudioError` and the like as a worker met them, and `WorkerError` when workers are lost.
    """
    with cluster(options.ray or "local"):
        import ray
        from ray.data import ActorPoolStrategy, DataContext
        from ray.exceptions import RayError

        gpu = (expected["model"] or {}).get("device") == "cuda"
        size, cpus = pool_size(options, len(work), ray.nodes(), gpu)
        losses = ray.remote(num_cpus=0)(Losses).remote()
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = DataContext.get_current().copy()
        context.enable_progress_bars = context.print_on_execution_start = False
        try:
            with DataContext.current(context):
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


class Losses:
    """Counts, in a Ray actor of its own, how often a clip was begun and never ended."""

    def __init__(self) -> None:
        self._begun: set[str] = set()
        self._lost: Counter[str] = Counter()

    def begin(self, clip: str) -> int:
        """How often the clip was lost before."""
        self._lost[clip] += clip in self._begun
        self._begun.add(clip)
        return self._lost[clip]

    def end(self, clip: str) -> None:
        self._begun.discard(clip)


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
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    node_cpus = [int(resources.get("CPU", 0)) for resources in alive]
    cpus = options.model.cpu_threads or (sum(node_cpus) // options.jobs if options.jobs else 1)
    cpus = max(1, min(cpus, max(node_cpus, default=1)))
    places = [n // cpus for n in node_cpus]
    if gpu:
        places = [min(n, int(resources.get("GPU", 0))) for n, resources in zip(places, alive, strict=True)]
        if not any(places):
            raise SteerOptionError("the model runs on a GPU here, and no node of the Ray cluster has one; --device cpu")
    return max(1, min(options.jobs or sum(places), sum(places), clips)), cpus


def check_ray(address: str) -> None:
    """Raises `SteerOptionError` when Ray is not installed, or nobody answers at the address."""
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise SteerOptionError(f"--ray needs {package}: pip install 'steer-asr[ray]'")
    if "://" in address:
        raise SteerOptionError(f"--ray {address}: Ray Data does not run through Ray's client; give HOST:PORT, or auto")
    host, colon, port = address.rpartition(":")
    if not colon:
        if address not in ("local", "auto"):
            raise SteerOptionError(f"--ray {address!r} is not HOST:PORT, auto or local")
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
    except (OSError, ValueError, OverflowError) as error:  # Ray itself would try for minutes
        raise SteerOptionError(f"--ray {address}: no Ray cluster answers there ({error})") from error


@contextmanager
def cluster(address: str) -> Iterator[None]:
    """A connection to the cluster at `address`, or to one of this block's own ("local").

    Where this process is connected to a cluster already, that one is used and left connected. Raises
    `SteerOptionError` when there is no connection to be had.
    """
    if "ray" not in sys.modules:  # which reads these once, when it is imported
        os.environ |= QUIET | dict(os.environ) | (private_ray() if address == "local" else {})
    import ray
    from ray.exceptions import RayError

    if ray.is_initialized():
        yield
        return
    own: dict[str, Any] = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    try:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        ray.init(address=address, **quiet, **(own if address == "local" else {}))
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        raise SteerOptionError(f"--ray {address}: no connection to a Ray cluster ({error})") from error
    try:
        yield
    finally:
        ray.shutdown()


def private_ray() -> dict[str, str]:
    """Environment for a Ray that is only ours: its ports, which accept code, on loopback and behind a fresh token."""
    return {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # despite its name: 0 makes Ray on any system bind to loopback
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
