"""`steer-asr-serve` as people run it: a process of its own with a real Ray cluster, and what can be seen of it."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai

START_S, STOP_S = 400, 90
"""Much more than an idle machine takes: Ray starts a dozen processes, which import a lot each."""


@dataclass
class Server:
    process: subprocess.Popen[str]
    port: int
    mark: str
    """In the environment of every process the server starts."""
    requests_log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @functools.cached_property
    def client(self) -> Any:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="unused", max_retries=0)

    def processes(self) -> dict[int, str]:
        """{process id: command} of all processes that belong to the server."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (folder / "environ").read_bytes():
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            except OSError:  # ended meanwhile, or another user's
                continue
        return found

    def memory_bytes(self) -> int:
        """Of all its processes; what several of them share counts once."""
        total = 0
        for pid in self.processes():
            with contextlib.suppress(OSError):
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
                total += sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
        return total


@contextlib.contextmanager
def started(folder: Path, *options: str, environment: Mapping[str, str] | None = None) -> Iterator[Server]:
    """A server that is ready; its log of requests goes to `folder`. Ends it at last, if it still runs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = folder / "log"
    mark = f"STEER_ASR_TEST_RUN={uuid.uuid4()}"
    variables = {
        **os.environ,
        **(environment or {}),
        **dict([mark.split("=")]),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, "-m", "steer_asr_serving.cli", "--port", str(port), "--log-file"]
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, str(folder / "requests"), *options], stderr=output, env=variables, text=True
        )
    server = Server(process, port, mark, folder / "requests")
    try:
        deadline = time.monotonic() + START_S
        while f"ready: {server.url}/v1" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield server
    finally:
        server.client.close()
        process.terminate()
        try:
            process.wait(STOP_S)
        finally:
            for pid in server.processes():  # only if it did not end by itself
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait(STOP_S)
