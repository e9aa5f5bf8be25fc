"""How much of the engine is left behind an endpoint: throughput at several clients, and waiting times under load.

    python -m steer_asr_benchmarks.serving_load --model tiny.en --seconds 30 --rounds 3

Starts `steer-asr-serve` and `plain_server` with the same model and threads, and talks HTTP to them; the raw engine runs
in this process. All are measured one after the other, in rounds, so that a machine that changes its mind changes it for
all of them. Needs the `serve` extra, for the servers.

RTFx is seconds of audio transcribed in a second. Ratios are medians over the rounds; the last line is JSON, which `-o`
keeps too.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from steer_asr import load_model
from steer_asr._files import write_text
from steer_asr.audio import SAMPLE_RATE_HZ, decode_audio
from steer_asr.errors import SteerASRError
from steer_asr_benchmarks.systems.base import Decoding
from steer_asr_benchmarks.systems.server import make_server

CLIPS = Path(__file__).parents[1] / "demo" / "clips"
SPEECH, NONSPEECH = ("speech", "speech-short", "long-pause"), ("hum", "frogs", "drums", "near-silence")
CLIP_S = 5.0
HEAVY = 0.7
"""Share of non-speech in the second mix."""
EARLY_EXIT = '{"early_exit": true}'
"""As a request asks for it: windows in which nobody speaks are not decoded."""
LOADS = (0.5, 0.9)
READY_S = 240.0
DECODING = Decoding("timestamps", "en")

Transcribe = Callable[[np.ndarray], Any]


@dataclass(frozen=True)
class Load:
    """Waiting times of requests that arrive at random."""

    share: float
    """Of the rate that the server sustains with all clients busy."""
    rate_hz: float
    requests: int
    p50_s: float
    p95_s: float
    failed: int


@dataclass
class Result:
    """All that was measured."""

    setup: dict[str, Any]
    rtfx: dict[str, list[float]] = field(default_factory=dict)
    """{what: one number a round}."""
    latency: list[Load] = field(default_factory=list)

    def ratio(self, of: str, to: str) -> float:
        """Median over the rounds of one RTFx over another's."""
        return statistics.median(a / b for a, b in zip(self.rtfx[of], self.rtfx[to], strict=True))


def mix(nonspeech: float, n: int = 20, seed: int = 0) -> list[np.ndarray]:
    """n clips of 5 s, float32 at 16 kHz, `nonspeech` of them without speech, in random order."""
    generator = random.Random(seed)
    count = round(n * nonspeech)
    pools = [[decode_audio(CLIPS / f"{name}.flac") for name in names] for names in (NONSPEECH, SPEECH)]
    clips = [_cut(pools[0][i % len(NONSPEECH)]) for i in range(count)]
    clips += [_cut(pools[1][i % len(SPEECH)]) for i in range(n - count)]
    generator.shuffle(clips)
    return clips


def _cut(audio: np.ndarray) -> np.ndarray:
    """The first 5 s, or all of it and silence."""
    n = round(CLIP_S * SAMPLE_RATE_HZ)
    return np.pad(audio[:n], (0, max(0, n - len(audio)))).astype(np.float32)


def closed_loop(transcribe: Transcribe, clips: Sequence[np.ndarray], *, clients: int, seconds: float) -> float:
    """RTFx with so many clients, each of which sends its next clip when it has its answer."""
    end, lock, done = time.monotonic() + seconds, threading.Lock(), [0, 0.0]

    def client(first: int) -> None:
        i = first
        while time.monotonic() < end:
            clip = clips[i % len(clips)]
            transcribe(clip)
            i += clients
            with lock:
                done[0] += 1
                done[1] += len(clip) / SAMPLE_RATE_HZ

    started = time.monotonic()
    with ThreadPoolExecutor(clients) as pool:
        for future in [pool.submit(client, i) for i in range(clients)]:
            future.result()
    return done[1] / (time.monotonic() - started)


def open_loop(
    transcribe: Transcribe, clips: Sequence[np.ndarray], *, share: float, full_hz: float, seconds: float
) -> Load:
    """Requests arrive as a Poisson process whether or not earlier ones are answered; time counts from the arrival."""
    generator, rate_hz = random.Random(1), share * full_hz
    waited: list[float] = []
    failed = [0]

    def request(clip: np.ndarray, due: float) -> None:
        try:
            transcribe(clip)
            waited.append(time.monotonic() - due)
        except SteerASRError:  # refused: too many wait
            failed[0] += 1

    begun = due = time.monotonic()
    with ThreadPoolExecutor(64) as pool:
        i = 0
        while (due := due + generator.expovariate(rate_hz)) < begun + seconds:
            time.sleep(max(0.0, due - time.monotonic()))
            pool.submit(request, clips[i % len(clips)], due)
            i += 1
    ordered = sorted(waited) or [float("nan")]
    p50, p95 = (ordered[min(len(ordered) - 1, int(q * len(ordered)))] for q in (0.5, 0.95))
    return Load(share, round(rate_hz, 3), i, round(p50, 3), round(p95, 3), failed[0])


@contextlib.contextmanager
def running(module: str, *options: str, **environment: str) -> Iterator[str]:
    """URL of a server in a process of its own, once it is ready."""
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", module, "--port", str(port), *options]
    process = subprocess.Popen(command, env=os.environ | environment)
    try:
        deadline = time.monotonic() + READY_S
        while not _ready(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SteerASRError(f"{module} did not start; its last words are above")
            time.sleep(0.3)
        yield url
    finally:
        process.terminate()
        process.wait(120)


def _ready(url: str) -> bool:
    try:
        return urllib.request.urlopen(f"{url}/ready", timeout=5).status == 200
    except (urllib.error.URLError, OSError):
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _client(url: str, model: str, steer: str) -> Transcribe:
    server = make_server("server", f"{url}/v1?response_format=json&steer={urllib.parse.quote(steer)}#{model}")
    return functools.partial(server.transcribe, decoding=DECODING)


def _engine(model: str, steer: str, threads: int, workers: int, compute_type: str) -> Transcribe:
    """The steered model in this process, with as many workers and threads as the server's."""
    whisper = load_model(
        model, device="cpu", compute_type=compute_type, cpu_threads=max(1, threads // workers), num_workers=workers
    )
    return lambda audio: list(whisper.transcribe(audio, steer=steer, language="en")[0])


def measure(result: Result, ways: dict[str, Transcribe], *, clients: int, seconds: float, rounds: int) -> None:
    """RTFx of each way on its mix, in rounds; ways that end in `70 %` get the mix of mostly non-speech."""
    clips = {False: mix(0.5), True: mix(HEAVY)}
    for name, transcribe in ways.items():
        transcribe(clips[name.endswith("%")][0])  # warms up
    for _ in range(rounds):
        for name, transcribe in ways.items():
            rtfx = closed_loop(transcribe, clips[name.endswith("%")], clients=clients, seconds=seconds)
            result.rtfx.setdefault(name, []).append(round(rtfx, 3))
            print(f"{name}: RTFx {rtfx:.2f}", flush=True)


def report(result: Result) -> dict[str, Any]:
    """Prints ratios and waiting times; returns everything for the last line."""
    ratios = {
        "ours / raw engine": result.ratio("ours", "raw engine"),
        "ours / plain server": result.ratio("ours", "plain server"),
        "ours with early exit / plain server": result.ratio("ours with early exit", "plain server"),
        "ours / plain server, 70 %": result.ratio("ours, 70 %", "plain server, 70 %"),
        "ours with early exit / plain server, 70 %": result.ratio("ours with early exit, 70 %", "plain server, 70 %"),
        "ours / ours without steering, 70 %": result.ratio("ours, 70 %", "ours without steering, 70 %"),
        "ours with early exit / ours without steering, 70 %": result.ratio(
            "ours with early exit, 70 %", "ours without steering, 70 %"
        ),
    }
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.2f}")
    for load in result.latency:
        print(f"at {load.share:.0%} load: median {load.p50_s:.2f} s, 95 % {load.p95_s:.2f} s, {load.failed} refused")
    loads = [asdict(load) for load in result.latency]
    rounded = {name: round(ratio, 3) for name, ratio in ratios.items()}
    return {"setup": result.setup, "rtfx": result.rtfx, "ratios": rounded, "latency": loads}


def main(
    model: Annotated[str, typer.Option(help="Name or CTranslate2 directory.")] = "tiny.en",
    steer: Annotated[str, typer.Option(help="As requests ask for it.")] = "default",
    clients: Annotated[int, typer.Option(help="Clients at once.")] = 8,
    threads: Annotated[int, typer.Option(help="CPU threads of each: engine, our server, plain server.")] = 2,
    workers: Annotated[int, typer.Option(help="Requests that the engine and our server run at once.")] = 2,
    compute_type: Annotated[str, typer.Option(help="CTranslate2's.")] = "float32",
    seconds: Annotated[float, typer.Option(help="For each number.")] = 30.0,
    rounds: Annotated[int, typer.Option(help="How often everything is measured.")] = 3,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Also write the numbers to this JSON file.")] = None,
) -> None:
    """Measure our server against the raw engine and against a plain server, on this machine."""
    setup = {"model": model, "steer": steer, "clients": clients, "threads": threads, "workers": workers}
    result = Result(setup | {"compute_type": compute_type, "seconds": seconds, "rounds": rounds, "clip_s": CLIP_S})
    common = ["--model", model, "--compute-type", compute_type]
    ours = {"STEER_ASR_CPUS_PER_REPLICA": str(threads), "STEER_ASR_WORKERS_PER_REPLICA": str(workers)}
    with (
        running("steer_asr_serving.cli", *common, **ours) as our_url,
        running("steer_asr_benchmarks.plain_server", *common, "--threads", str(threads)) as plain_url,
    ):
        steered, plain = _client(our_url, model, steer), _client(plain_url, model, "off")
        early = _client(our_url, model, EARLY_EXIT)
        ways = {
            "raw engine": _engine(model, steer, threads, workers, compute_type),
            "ours": steered,
            "ours with early exit": early,
            "plain server": plain,
            "ours, 70 %": steered,
            "ours with early exit, 70 %": early,
            "ours without steering, 70 %": _client(our_url, model, "off"),
            "plain server, 70 %": plain,
        }
        measure(result, ways, clients=clients, seconds=seconds, rounds=rounds)
        full_hz = statistics.median(result.rtfx["ours"]) / CLIP_S
        for share in LOADS:
            result.latency.append(open_loop(steered, mix(0.5), share=share, full_hz=full_hz, seconds=2 * seconds))
    found = report(result)
    if out is not None:
        write_text(out, json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))


if __name__ == "__main__":
    typer.run(main)
