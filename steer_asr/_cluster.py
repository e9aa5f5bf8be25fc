"""Work on a Ray cluster: for the command lines that have `--ray`. The library itself needs no Ray.

check_ray("10.0.0.1:6379")
with cluster("local"), quiet_data():
    ray.data.from_items(rows).flat_map(Worker, compute=ActorPoolStrategy(size=2)).iter_rows()
"""

from __future__ import annotations

import importlib.util
import logging
import os
import secrets
import socket
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from steer_asr.errors import SteerOptionError

PACKAGES = ("ray", "pandas", "pyarrow")
"""What `steer-asr[ray]` brings."""
CONNECT_S = 5.0
MAX_LOSSES = 3
"""Ray starts a lost worker again. One piece of work that takes so many with it stops the run."""
ENVIRONMENT = {
    # What fails is raised in Python too; the log warns of what Ray Data does.
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Unless it says otherwise."""
LOCAL_TRIES = 3
"""A node dies when a helper of it takes more than 15 s to start, as on a busy machine (ray-project/ray#65983)."""
OBJECT_STORE_BYTES = 256 << 20
"""Of a Ray started here. Workers read and write files; only texts and numbers pass through it."""


def check_ray(address: str, packages: Sequence[str] = PACKAGES) -> None:
    """Raises `SteerOptionError` when Ray is not installed, or nobody answers at the address."""
    for package in packages:
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
        os.environ |= ENVIRONMENT | dict(os.environ) | (private_ray() if address == "local" else {})
    import ray

    if ray.is_initialized():
        yield
        return
    own: dict[str, Any] = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    for tries_left in reversed(range(LOCAL_TRIES if address == "local" else 1)):
        try:
            ray.init(address=address, **quiet, **(own if address == "local" else {}))
            break
        except Exception as error:  # a node that did not start in time is a bare one
            if not tries_left:
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


@contextmanager
def quiet_data() -> Iterator[None]:
    """Ray Data without its own progress bars and plans."""
    from ray.data import DataContext

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current().copy()
    context.enable_progress_bars = context.print_on_execution_start = False
    with DataContext.current(context):
        yield


def pool_size(
    nodes: Sequence[Mapping[str, Any]], *, wanted: int, cpus_each: int, pieces: int, gpu: bool
) -> tuple[int, int]:
    """(workers, CPUs of each): as many as wanted, and as the cluster's nodes, as `ray.nodes()` has them, can hold.

    `wanted` 0 is as many as fit. `cpus_each` 0 shares the CPUs among those that are wanted, and is 1 otherwise. With
    `gpu`, each worker has a GPU; (0, CPUs) when no node has one. There are no more workers than `pieces` of work.
    """
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    node_cpus = [int(resources.get("CPU", 0)) for resources in alive]
    cpus = cpus_each or (sum(node_cpus) // wanted if wanted else 1)
    cpus = max(1, min(cpus, max(node_cpus, default=1)))
    places = [n // cpus for n in node_cpus]
    if gpu:
        places = [min(n, int(resources.get("GPU", 0))) for n, resources in zip(places, alive, strict=True)]
        if not any(places):
            return 0, cpus
    return max(1, min(wanted or sum(places), sum(places), pieces)), cpus


class Losses:
    """Counts, in a Ray actor of its own, how often a piece of work was begun and never ended."""

    def __init__(self) -> None:
        self._begun: set[str] = set()
        self._lost: Counter[str] = Counter()

    def begin(self, piece: str) -> int:
        """How often the piece was lost before."""
        self._lost[piece] += piece in self._begun
        self._begun.add(piece)
        return self._lost[piece]

    def end(self, piece: str) -> None:
        self._begun.discard(piece)
