"""Keeps a server busy with good and bad requests while parts of it are killed, and looks at what comes back.

    python -m tests.serving.soak --minutes 20 -o docs/soak.md        # make soak MINUTES=20

Requests arrive at random at 90 % of the rate that the server was just seen to sustain. Each has to get its right
answer, or a clean 429 or 503 that says when to send it again, and then its right answer. Meanwhile a replica is killed
every minute, the Serve controller once, uploads drip or break off, and memory has to stay where it was.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import httpx2
import typer

from tests.serving.running import Server, started

CLIPS = Path(__file__).parents[2] / "benchmarks" / "demo" / "clips"
SPOKEN = "He might even have been made amiable himself."
REPLICA, CONTROLLER = "ray::ServeReplica:steer_asr:transcriber", "ray::ServeController"
LOAD = 0.9
CLIENTS = 12
"""Requests in progress at most. Later ones start late rather than never while a replica restarts."""
ANSWER_S, GIVE_UP_S = 120.0, 300.0
"""Longest for one try, and for a request with all of its tries."""
PAUSE_S = 5.0
"""`upload_pause_s` of the server, so that slow uploads end soon."""
CALIBRATE_S, SAMPLE_S = 10.0, 5.0
MAX_GROWTH_BYTES = 256 << 20
SEND_AGAIN = (429, 503)


@dataclass(frozen=True)
class Case:
    """A request, and the only right answer to it."""

    name: str
    share: int
    data: bytes
    status: int = 200
    text: str | None = None
    fields: dict[str, str] = field(default_factory=dict)


def cases() -> list[Case]:
    """Good ones, and some of each kind of bad ones."""
    speech, hum = ((CLIPS / f"{name}.flac").read_bytes() for name in ("speech-short", "hum"))
    return [
        Case("speech", 8, speech, text=SPOKEN),
        Case("speech, streamed", 2, speech, text=SPOKEN, fields={"stream": "true"}),
        Case("speech, verbose", 2, speech, text=SPOKEN, fields={"response_format": "verbose_json", "steer": "0.5"}),
        Case("nobody speaks", 8, hum, text=""),
        Case("cut off", 2, speech[: len(speech) // 2], 422),
        Case("no audio", 1, b"<html>not audio</html>" * 50, 415),
        Case("empty", 1, b"", 400),
        Case("unknown model", 1, speech, 404, fields={"model": "none-such"}),
        Case("bad steer", 1, speech, 400, fields={"steer": "7"}),
    ]


@dataclass
class Report:
    """What came of it."""

    minutes: float
    rate_hz: float = 0.0
    sent: Counter[str] = field(default_factory=Counter)
    """{case: requests}."""
    right: Counter[str] = field(default_factory=Counter)
    """{case: requests that got their right answer in the end}."""
    statuses: Counter[int] = field(default_factory=Counter)
    """{status: answers}, of all tries."""
    retries: int = 0
    seconds: list[float] = field(default_factory=list)
    """Of each request, all of its tries and waits included."""
    killed: Counter[str] = field(default_factory=Counter)
    slow: Counter[str] = field(default_factory=Counter)
    """{how a dripping upload ended: how many}."""
    aborted: int = 0
    memory: list[tuple[float, int]] = field(default_factory=list)
    """(seconds since the start, bytes)."""
    failures: list[str] = field(default_factory=list)

    @property
    def lost(self) -> int:
        """Requests without their right answer."""
        return self.sent.total() - self.right.total()

    @property
    def growth_bytes(self) -> int:
        """Median of the last third of the run less that of the first."""
        third = max(1, len(self.memory) // 3)
        amounts = [amount for _, amount in self.memory]
        return round(statistics.median(amounts[-third:]) - statistics.median(amounts[:third])) if amounts else 0

    def late_s(self, share: float) -> float:
        """The share's quantile of `seconds`."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class Soak:
    """One run against one server."""

    def __init__(self, server: Server, minutes: float, kill_every_s: float, seed: int = 0) -> None:
        self.server, self.kill_every_s = server, kill_every_s
        self.report = Report(minutes)
        self._cases = cases()
        self._random = random.Random(seed)
        self._lock, self._over = threading.Lock(), threading.Event()
        self._http = httpx2.Client(timeout=ANSWER_S, limits=httpx2.Limits(max_connections=2 * CLIENTS))

    def run(self, tick: Callable[[], None] = lambda: None) -> Report:
        """Takes `minutes` and what it takes to measure the rate first. `tick` is called once a second or so."""
        self.report.rate_hz = LOAD * self._sustained_hz()
        self.report.statuses.clear()
        begun = time.monotonic()
        side = [self._kill, self._drip, self._abort, self._watch_memory]
        with ThreadPoolExecutor(len(side)) as others, ThreadPoolExecutor(CLIENTS) as clients:
            running = [others.submit(work, begun) for work in side]
            try:
                self._send_all(clients, begun, tick)
            finally:
                self._over.set()
            for future in running:
                future.result()
        self._look_back()
        self._http.close()
        return self.report

    def _pick(self) -> Case:
        return self._random.choices(self._cases, [case.share for case in self._cases])[0]

    def _sustained_hz(self) -> float:
        """Requests a second that two clients get answered, one after the other."""
        counted, end = [0], time.monotonic() + CALIBRATE_S

        def client() -> None:
            while time.monotonic() < end:
                with self._lock:
                    case = self._pick()
                self._try(case)
                with self._lock:
                    counted[0] += 1

        started_s = time.monotonic()
        with ThreadPoolExecutor(2) as pool:
            for future in [pool.submit(client) for _ in range(2)]:
                future.result()
        return counted[0] / (time.monotonic() - started_s)

    def _send_all(self, clients: ThreadPoolExecutor, begun: float, tick: Callable[[], None]) -> None:
        """Arrivals are a Poisson process; when all clients are busy the next one waits for one of them."""
        free = threading.Semaphore(CLIENTS)
        sent: list[Future[None]] = []
        end, next_s, ticked = begun + 60 * self.report.minutes, begun, begun
        while (next_s := next_s + self._random.expovariate(self.report.rate_hz)) < end:
            while time.monotonic() < next_s or not free.acquire(timeout=0.5):
                time.sleep(max(0.0, min(0.5, next_s - time.monotonic())))
                if time.monotonic() - ticked > 1:
                    tick()
                    ticked = time.monotonic()
            next_s = max(next_s, time.monotonic() - 1 / self.report.rate_hz)  # what was late is not made up for
            sent.append(clients.submit(self._request, self._pick()))
            sent[-1].add_done_callback(lambda _: free.release())
        for future in sent:
            future.result()

    def _request(self, case: Case) -> None:
        """One request with all of its tries."""
        started_s, retries, wrong = time.monotonic(), 0, None
        while True:
            wait_s, wrong = self._try(case)
            if wait_s is None or time.monotonic() + wait_s > started_s + GIVE_UP_S:
                break
            retries += 1
            time.sleep(wait_s)
        with self._lock:
            self.report.sent[case.name] += 1
            self.report.retries += retries
            self.report.seconds.append(time.monotonic() - started_s)
            if wrong is None:
                self.report.right[case.name] += 1
            else:
                at = time.strftime("%H:%M:%S")
                self.report.failures.append(f"{at} {case.name}, after {retries} retries: {wrong}")

    def _try(self, case: Case) -> tuple[float | None, str | None]:
        """(seconds to wait before the next try or None, what is wrong with the answer or None)."""
        fields = {"model": "tiny.en", "steer": "default"} | case.fields
        try:
            answer = self._http.post(
                f"{self.server.url}/v1/audio/transcriptions", files={"file": ("a.flac", case.data)}, data=fields
            )
        except httpx2.HTTPError as error:
            return None, f"no answer: {error!r}"
        with self._lock:
            self.report.statuses[answer.status_code] += 1
        if answer.status_code in SEND_AGAIN:
            after = answer.headers.get("retry-after", "")
            return (float(after), "gave up") if after.isdecimal() else (None, f"{answer.status_code}, no Retry-After")
        if answer.status_code != case.status:
            return None, f"{answer.status_code} instead of {case.status}: {answer.text[:200]}"
        if case.text is None:
            return None, None if "error" in answer.json() else "an error without the envelope"
        kind, text = _text(answer)
        if kind == "error" and "unavailable" in text:
            return 1.0, "gave up"  # a stream that had begun when its replica was killed says so in an event
        return None, None if (kind, text) == ("text", case.text) else f"{kind}: {text[:200]!r}"

    def _kill(self, begun: float) -> None:
        """A replica every so often; the controller once, halfway. What is still unanswered at the end has peace."""
        controller_s, end = begun + 30 * self.report.minutes, begun + 60 * self.report.minutes
        next_s = begun + self.kill_every_s / 2
        while not self._over.wait(0.5) and time.monotonic() < end:
            if time.monotonic() > controller_s and not self.report.killed["controller"]:
                self._kill_one("controller", CONTROLLER)
            if time.monotonic() > next_s and self._kill_one("replica", REPLICA):
                next_s += self.kill_every_s

    def _kill_one(self, what: str, title: str) -> bool:
        found = [pid for pid, command in self.server.processes().items() if command.startswith(title)]
        for pid in self._random.sample(found, min(1, len(found))):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self.report.killed[what] += 1
        return bool(found)

    def _drip(self, _begun: float) -> None:
        """Uploads that announce much and send a byte now and then; the server has to end each of them."""
        head = _head(100_000)
        while not self._over.wait(1):
            try:
                with socket.create_connection(("127.0.0.1", self.server.port), timeout=1) as client:
                    client.sendall(head)
                    self.report.slow[_dripped(client)] += 1
            except OSError as error:
                self.report.slow[type(error).__name__] += 1

    def _abort(self, _begun: float) -> None:
        """Uploads whose client goes away in the middle."""
        while not self._over.wait(2):
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.server.port), timeout=5) as client:
                client.sendall(_head(100_000) + b"x" * 30_000)
            self.report.aborted += 1

    def _watch_memory(self, begun: float) -> None:
        while not self._over.wait(SAMPLE_S):
            self.report.memory.append((time.monotonic() - begun, self.server.memory_bytes()))

    def _look_back(self) -> None:
        """What has to hold when all is over."""
        report = self.report
        if report.growth_bytes > MAX_GROWTH_BYTES:
            report.failures.append(f"memory grew by {report.growth_bytes >> 20} MiB")
        if unended := {how: n for how, n in report.slow.items() if how != "408"}:
            report.failures.append(f"dripping uploads ended otherwise than with 408: {unended}")
        for what in ("replica", "controller"):
            if not report.killed[what]:
                report.failures.append(f"no {what} was there to be killed")
        deadline = time.monotonic() + ANSWER_S
        while (left := self._in_progress()) != {"requests": 1, "jobs": 0}:  # the scrape itself is one
            if time.monotonic() > deadline:
                report.failures.append(f"still in progress although nobody waits: {left}")
                break
            time.sleep(1)

    def _in_progress(self) -> dict[str, int]:
        lines = self._http.get(f"{self.server.url}/metrics").text.splitlines()
        return {
            what: int(float(line.split()[-1]))
            for what in ("requests", "jobs")
            for line in lines
            if line.startswith(f"steer_asr_{what}_in_progress ")
        }


def _text(answer: httpx2.Response) -> tuple[str, str]:
    """("text", what was transcribed) of any answer, or ("error", why) of a stream that ended with one."""
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return "text", answer.json()["text"]
    last = [line for line in answer.text.splitlines() if line.startswith("data: ")][-1]
    event: dict[str, Any] = json.loads(last.removeprefix("data: "))
    return ("text", event["text"]) if event.get("type") == "transcript.text.done" else ("error", last)


def _head(length: int) -> bytes:
    """The beginning of an upload of `length` bytes."""
    return (
        "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: test\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        f"Content-Length: {length}\r\n\r\n--x\r\n"
        'Content-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    ).encode()


def _dripped(client: socket.socket) -> str:
    """Status that the server ends the upload with."""
    deadline = time.monotonic() + 12 * PAUSE_S
    client.settimeout(0.5)
    while time.monotonic() < deadline:
        try:
            client.sendall(b"x")
            answer = client.recv(1000)
            return answer.split()[1].decode() if answer else "closed"
        except TimeoutError:
            continue
    return "not ended"


def table(report: Report, machine: str) -> str:
    """The report in Markdown."""
    rows = [f"| {name} | {n} | {report.right[name]} |" for name, n in report.sent.items()]
    statuses = ", ".join(f"{status}: {n}" for status, n in sorted(report.statuses.items()))
    step = max(1, len(report.memory) // 12)
    memory = [f"| {seconds / 60:.1f} | {amount >> 20} |" for seconds, amount in report.memory[::step]]
    drips = ", ".join(f"{how}: {n}" for how, n in report.slow.items())
    lines = [
        "# A busy server that is being killed",
        "",
        f"{report.minutes:g} minutes: `make soak MINUTES={report.minutes:g}`, {machine}. `tests/serving/soak.py` says",
        f"what is sent and what is right. Poisson arrivals, {report.rate_hz:.2f} a second: {LOAD:.0%} of what the",
        "server sustained just before.",
        "",
        "| request | sent | right answer |",
        "| --- | ---: | ---: |",
        *rows,
        f"| all | {report.sent.total()} | {report.right.total()} |",
        "",
        f"Lost: **{report.lost}**. Answers by status, of all tries: {statuses}.",
        f"Sent again after 429 or 503: {report.retries} times.",
        "",
        f"Killed: {report.killed['replica']} replicas, {report.killed['controller']} controller.",
        f"Dripping uploads by how they ended: {drips}. Uploads broken off: {report.aborted}.",
        "",
        "From the first byte of a request to its last answer, retries included: median "
        f"{report.late_s(0.5):.2f} s, 95 % {report.late_s(0.95):.2f} s, longest {report.late_s(1):.2f} s.",
        "",
        f"Memory of all processes: {report.growth_bytes / 2**20:+.0f} MiB from the first third to the last.",
        "",
        "| minute | MiB |",
        "| ---: | ---: |",
        *memory,
        "",
        "## Failures",
        "",
        *([f"- {failure}" for failure in report.failures] or ["None."]),
        "",
    ]
    return "\n".join(lines)


def main(
    minutes: Annotated[float, typer.Option(help="How long.")] = 20.0,
    replicas: Annotated[int, typer.Option(help="Processes that hold the model.")] = 2,
    kill_every_s: Annotated[float, typer.Option(help="Seconds between two killed replicas.")] = 60.0,
    seed: Annotated[int, typer.Option(help="Other arrivals for another seed.")] = 0,
    output: Annotated[Path | None, typer.Option("-o", help="File for the table; else it is printed.")] = None,
) -> None:
    """Start a server with tiny.en, keep it busy, kill parts of it, and end with status 1 if anything was lost."""
    from steer_asr._files import write_text
    from steer_asr._progress import Progress

    options = ["--model", "tiny.en", "--compute-type", "float32", "--cpus-per-replica", "1"]
    machine = f"{os.cpu_count()} cores, {replicas} replicas, tiny.en"
    with (
        tempfile.TemporaryDirectory() as folder,
        started(
            Path(folder), *options, "--replicas", str(replicas), environment={"STEER_ASR_UPLOAD_PAUSE_S": str(PAUSE_S)}
        ) as server,
        Progress(total=round(60 * minutes), unit="second", label="soak") as progress,
    ):
        report = Soak(server, minutes, kill_every_s, seed).run(progress.advance)
    if output is None:
        typer.echo(table(report, machine))
    else:
        write_text(output, table(report, machine))
    for failure in report.failures:
        typer.echo(failure, err=True)
    raise typer.Exit(bool(report.failures))


if __name__ == "__main__":
    typer.run(main)
