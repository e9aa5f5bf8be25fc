"""The Ray cluster of a test run, and the processes of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from steer_asr._cluster import cluster


@contextmanager
def own_ray(home: Path) -> Iterator[dict[str, str]]:
    """Ray in this process; what is started with "local" meanwhile uses it and leaves it. `home`: an empty folder.

    Yields the environment in which other processes may connect to it. At most once in a process: Ray keeps the token
    of its first cluster, and the second one would refuse it.
    """
    pytest.importorskip("ray")
    before = dict(os.environ)
    os.environ["HOME"] = str(home)  # Ray may keep a token there
    os.environ["RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S"] = "60"  # 5 are few for the proxy's imports beside other tests
    try:
        with cluster("local"):
            environment = dict(os.environ)
            os.environ["HOME"] = before["HOME"]
            yield environment
    finally:
        os.environ.clear()
        os.environ.update(before)


def ray_workers(name: str) -> list[int]:
    """Process ids of this process's Ray actors of a class. They name themselves in their command line."""
    parents, named = {}, []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if name.encode() in (folder / "cmdline").read_bytes():
                named.append(int(folder.name))
        except OSError:  # ended meanwhile
            continue
    return [process for process in named if os.getpid() in _ancestors(process, parents)]


def _ancestors(process: int, parents: dict[int, int]) -> list[int]:
    found = []
    while process in parents:
        process = parents[process]
        found.append(process)
    return found
