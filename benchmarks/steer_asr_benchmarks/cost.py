"""What each system costs: memory, loading and latency, measured alone. Written to `cost.json`.

    measure(options, Path("results"), clips=8)
    read_cost(Path("results"))["systems"]["steered"]["timestamps"]["peak_rss_bytes"]

In a run all systems share one process, so its peak memory is nobody's, and other processes may slow it down. Here each
system and mode gets a fresh process, one after the other, without a shared encoder.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from steer_asr._files import write_text
from steer_asr._progress import Progress
from steer_asr.errors import OutputError, SteerOptionError
from steer_asr_benchmarks.clips import BenchClip, load_clips
from steer_asr_benchmarks.provenance import git_sha
from steer_asr_benchmarks.systems import SystemName
from steer_asr_benchmarks.systems.base import Mode
from steer_asr_benchmarks.work import ClipWork, Job, RunOptions, Transcriber
from steer_asr_benchmarks.workers import child_process

COST_FILE = "cost.json"
SCHEMA_VERSION = 1


def measure(options: RunOptions, out: Path, clips: int) -> None:
    """Measures every system of `options` in every mode, and writes cost.json, whole or not at all.

    Systems that an earlier call measured on the same clips, with the same model and versions, are kept.

    Keys: `schema_version, git_sha, versions, model, cpus, clips, audio_s, systems`; `systems.<name>.<mode>` holds
    `rtf, rtfx, latency_p50_s, latency_p95_s, peak_rss_bytes, load_s, clips, cpu_threads`. `load_s` is from an imported
    program to a system that has transcribed a second of silence. Of a system that asks a server, memory is that of
    the client alone.

    Raises as `steer_asr_benchmarks.runner.run` does.
    """
    check_clips(clips)
    chosen = cost_clips(load_clips(options.manifests, options.limit), clips)
    options = replace(options, model=replace(options.model, share_encoder=False))
    measured: dict[str, dict[Mode, dict[str, Any]]] = {SystemName.parse(name).text: {} for name in options.systems}
    described: dict[str, Any] = {}
    with Progress(total=len(measured) * len(options.modes), unit="measurement", label="cost") as progress:
        for name, system in zip(measured, options.systems, strict=True):
            for mode in options.modes:
                alone = replace(options, systems=(system,), modes=(mode,))
                with child_process(measure_alone, alone, chosen) as child:
                    now, measured[name][mode] = child.receive(f"measuring what {name} costs")
                described = now | {"model": now["model"] or described.get("model")}
                progress.advance(note=f"{name}, {mode}")
    found = {
        "schema_version": SCHEMA_VERSION,
        "git_sha": git_sha(),
        **described,
        "cpus": os.cpu_count(),
        "clips": [named.id for named in chosen],
        "audio_s": round(sum(named.clip.duration_s for named in chosen), 3),
    }
    found["systems"] = earlier_systems(out, found) | measured
    write_text(out / COST_FILE, json.dumps(found, indent=1, ensure_ascii=False) + "\n")


def earlier_systems(out: Path, now: dict[str, Any]) -> dict[str, Any]:
    """What an earlier call measured on the same clips, model and versions: it stands beside what is measured now."""
    try:
        before = read_cost(out) or {}
    except OutputError:
        return {}
    now["model"] = now["model"] or before.get("model")  # a server has none, and goes with any
    same = all(before.get(key) == now[key] for key in now if key not in ("git_sha", "model"))
    return before["systems"] if same and before.get("model") in (None, now["model"]) else {}


def check_clips(clips: int) -> None:
    """Raises `SteerOptionError` when that many cannot be measured on."""
    if clips < 1:
        raise SteerOptionError(f"--measure-cost {clips} is not at least 1 clip")


def read_cost(folder: Path) -> dict[str, Any] | None:
    """`cost.json` of a folder, None when nothing was measured. Raises `OutputError` when it is broken."""
    path = folder / COST_FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise OutputError(f"{path}: cannot be read ({error}); --measure-cost makes it again") from error
    if not isinstance(found, dict) or not isinstance(found.get("systems"), dict):
        raise OutputError(f"{path}: does not say what systems cost; --measure-cost makes it again")
    return found


def cost_clips(clips: Sequence[BenchClip], n: int) -> list[BenchClip]:
    """`n` clips, as many of every kind as there are, spread evenly over the durations of each; the same every time."""
    kinds: dict[str, list[BenchClip]] = {}
    for named in sorted(clips, key=lambda named: (named.clip.kind, named.clip.duration_s, named.id)):
        kinds.setdefault(named.clip.kind, []).append(named)
    shares = dict.fromkeys(kinds, 0)
    for _ in range(min(n, len(clips))):
        open_kinds = [kind for kind in kinds if shares[kind] < len(kinds[kind])]
        shares[min(open_kinds, key=lambda kind: shares[kind])] += 1
    return [found[(2 * i + 1) * len(found) // (2 * shares[k])] for k, found in kinds.items() for i in range(shares[k])]


def measure_alone(connection: Connection, options: RunOptions, clips: Sequence[BenchClip]) -> None:
    """Sends (description, cost) of the one system and mode of `options`, in the process of which this is all."""
    started = time.perf_counter()
    transcriber = Transcriber(options)
    job = Job(next(iter(transcriber.systems)), options.modes[0])
    transcriber.warm_up(job)
    load_s = time.perf_counter() - started
    seconds = [record["seconds"] for named in clips for record in transcriber.records(ClipWork(named, (job,)))]
    audio_s, work_s = sum(named.clip.duration_s for named in clips), sum(seconds)
    described = transcriber.describe()
    del described["systems"]
    p50, p95 = np.percentile(seconds, (50, 95))
    cost = {
        "rtf": work_s / audio_s,
        "rtfx": audio_s / work_s,
        "latency_p50_s": round(float(p50), 4),
        "latency_p95_s": round(float(p95), 4),
        "peak_rss_bytes": peak_rss_bytes(),
        "load_s": round(load_s, 3),
        "clips": len(clips),
        "cpu_threads": options.model.cpu_threads,
    }
    connection.send((described, cost))


def peak_rss_bytes() -> int:
    """The most memory this process has had resident.

    From /proc where that says it: `ru_maxrss` of Linux starts at the mark of the process that this one came from.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        status = ""
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
