"""Sends damaged files to a running server, and looks at what it answers.

    python -m tests.serving.fuzz -n 5000 -o docs/fuzz.md        # make fuzz N=5000

Each file is made from small clips by one kind of damage, from a seed and its number alone, so `--first 17 -n 1` sends
file 17 again. Every answer has to be 200 or a documented refusal in OpenAI's envelope, in time; memory has to stay
bounded; and the server has to transcribe a sound file correctly all along.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import socket
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import httpx2
import typer
import uvicorn
from fastapi import FastAPI

from tests.serving.damage import DAMAGE, case, clip

REFUSALS = {400, 413, 415, 422}
"""Statuses that docs/serving.md allows for a bad file."""
SETTINGS: dict[str, Any] = {
    "max_audio_s": 30,
    "max_upload_bytes": 4 << 20,
    "decode_processes": 2,
    "decode_cpu_s": 10,
    "cpus_per_replica": 1,
}
"""Small limits, so that bombs reach them; one thread, since more would be busy waiting for each other."""
ANSWER_S = 120.0
"""Longer is a hang: more than the decoder's limits add up to."""
MAX_GROWTH_BYTES = 256 * 2**20
"""How much the server may grow between its first answers and its last: an upload and its samples a few times over."""
MAX_DECODER_BYTES = 512 * 2**20
CLIENTS = 4
EVERY = 50
"""Files between two sound ones that must be transcribed."""


@dataclass
class Report:
    """What came of it."""

    seed: int
    answers: Counter[tuple[str, str]] = field(default_factory=Counter)
    """{(damage, status and code): how many}."""
    failures: list[str] = field(default_factory=list)
    sound_files: int = 0
    """Sound files in between, all transcribed correctly unless `failures` says otherwise."""
    first_bytes: int = 0
    peak_bytes: int = 0
    """Resident memory of the server after its first answers, and the most seen later."""
    decoder_bytes: int = 0
    """The most that a decoder process has ever had."""

    @property
    def n(self) -> int:
        return self.answers.total()

    def check_memory(self) -> None:
        grown = self.peak_bytes - self.first_bytes
        if grown > MAX_GROWTH_BYTES:
            self.failures.append(f"the server grew by {grown >> 20} MiB")
        if self.decoder_bytes > MAX_DECODER_BYTES:
            self.failures.append(f"a decoder had {self.decoder_bytes >> 20} MiB")


def verdict(status: int, body: bytes) -> tuple[str, str | None]:
    """(status and code, what is wrong with such an answer to a damaged file or None)."""
    if status == 200:
        return "200", None if isinstance(_json(body).get("text"), str) else "200 without a text"
    error = _json(body).get("error")
    if not isinstance(error, dict) or set(error) != {"message", "type", "param", "code"}:
        return str(status), f"{status} without OpenAI's envelope: {body[:200]!r}"
    label = f"{status} {error['code']}"
    return label, None if status in REFUSALS else f"{label}: {error['message']}"


def fuzz(
    url: str, model: str, expected: str, *, seed: int, first: int, n: int, step: Callable[[], None] = lambda: None
) -> Report:
    """Sends n files to a server in this process and its decoders, a few at a time."""
    report = Report(seed)
    lock = threading.Lock()

    def post(client: httpx2.Client, name: str, data: bytes) -> httpx2.Response:
        address = f"{url}/v1/audio/transcriptions"
        return client.post(address, files={"file": (name, data)}, data={"model": model}, timeout=ANSWER_S)

    def send(client: httpx2.Client, number: int) -> None:
        sent = case(seed, number)
        try:
            answer = post(client, sent.name, sent.data)
            label, wrong = verdict(answer.status_code, answer.content)
        except httpx2.HTTPError as error:
            label, wrong = type(error).__name__, f"no answer: {error!r}"
        with lock:
            report.answers[sent.damage, label] += 1
            if wrong:
                report.failures.append(f"file {number} ({sent.damage}, {sent.name!r}): {wrong}")
            step()

    with httpx2.Client() as client, ThreadPoolExecutor(CLIENTS) as clients:
        for start in range(first, first + n, EVERY):
            list(clients.map(functools.partial(send, client), range(start, min(start + EVERY, first + n))))
            _measure(report)
            answer = post(client, "a.wav", clip("wav"))
            report.sound_files += 1
            if answer.status_code != 200 or answer.json()["text"] != expected:
                report.failures.append(f"after file {start + EVERY - 1}, a sound file: {answer.text[:200]}")
    report.check_memory()
    return report


def table(report: Report) -> str:
    """The report in Markdown."""
    labels = sorted({label for _, label in report.answers})
    rows = [["damage", *labels, "files"]]
    for damage in DAMAGE:
        counts = [report.answers[damage.__name__, label] for label in labels]
        rows.append([damage.__name__.replace("_", " "), *[str(count or "") for count in counts], str(sum(counts))])
    rows.append(["all", *[str(sum(n for (_, of), n in report.answers.items() if of == label)) for label in labels]])
    rows[-1].append(str(report.n))
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "| --- |" + " ---: |" * (len(labels) + 1))
    mib = 1 << 20
    memory = (
        f"Resident memory of the server: {report.first_bytes // mib} MiB after the first {EVERY} files, "
        f"{report.peak_bytes // mib} MiB at most later; of a decoder: {report.decoder_bytes // mib} MiB at most."
    )
    failures = [f"- {failure}" for failure in report.failures] or ["None."]
    return "\n".join(
        [
            "# Damaged files",
            "",
            f"{report.n} files of seed {report.seed}: `make fuzz N={report.n} SEED={report.seed}`.",
            f"After every {EVERY}, a sound file has to be transcribed: {report.sound_files} in all.",
            "`tests/serving/damage.py` makes the files, `tests/serving/fuzz.py` says what is a failure.",
            "",
            *lines,
            "",
            memory,
            "",
            "## Failures",
            "",
            *failures,
            "",
        ]
    )


@contextlib.contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """URL of the app, which uvicorn serves in a thread."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def _json(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _measure(report: Report) -> None:
    """Memory of this process now, and the most that each of its decoders has had, where the system shows it."""
    own = _memory(Path("/proc/self"), "VmRSS")
    report.first_bytes = report.first_bytes or own
    report.peak_bytes = max(report.peak_bytes, own)
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"sandbox_worker" in (folder / "cmdline").read_bytes():
                report.decoder_bytes = max(report.decoder_bytes, _memory(folder, "VmHWM"))


def _memory(folder: Path, line: str) -> int:
    try:
        text = (folder / "status").read_text()
    except OSError:
        return 0
    return next((int(row.split()[1]) << 10 for row in text.splitlines() if row.startswith(line)), 0)


def main(
    n: Annotated[int, typer.Option("-n", help="How many files.")] = 5000,
    seed: Annotated[int, typer.Option(help="Other files for another seed.")] = 0,
    first: Annotated[int, typer.Option(help="Number of the first file.")] = 0,
    output: Annotated[Path | None, typer.Option("-o", help="File for the table; else it is printed.")] = None,
) -> None:
    """Send damaged files to a server with a tiny model, and end with status 1 if it does anything wrong."""
    from steer_asr._files import write_text
    from steer_asr._progress import Progress
    from steer_asr_serving.api import create_api
    from steer_asr_serving.deployment import LocalTranscriber, TranscriberReplica
    from steer_asr_serving.served import Catalogue
    from steer_asr_serving.settings import Settings
    from tests.serving.scripted_whisper import TEXT, installed, write_scripted_whisper

    with tempfile.TemporaryDirectory() as folder, Progress(total=n, unit="file", label="fuzz") as progress:
        model = write_scripted_whisper(Path(folder) / "scripted", like=installed("tiny.en"))
        settings = Settings(models=(str(model),), steer="off", allowed_packs=(), compute_type="float32", **SETTINGS)
        catalogue = Catalogue.find(settings)
        transcriber = LocalTranscriber(TranscriberReplica(settings, catalogue))
        with serving(create_api(settings, catalogue, transcriber)) as url:
            report = fuzz(url, "scripted", TEXT, seed=seed, first=first, n=n, step=progress.advance)
    if output is None:
        typer.echo(table(report))
    else:
        write_text(output, table(report))
    for failure in report.failures:
        typer.echo(failure, err=True)
    raise typer.Exit(bool(report.failures))


if __name__ == "__main__":
    typer.run(main)
