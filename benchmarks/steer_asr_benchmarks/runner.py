"""Runs systems over clips and writes down what they said. No metric is computed here.

    run(RunOptions(manifests=(Path("test.jsonl"),), systems=("stock", "steered")), Path("results"))

The folder holds `run.json` (what was run, fixed by the first start) and `predictions.jsonl`. Stopped at any point, the
same call goes on where it was; a call that names further systems adds them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from steer_asr._files import write_text
from steer_asr._progress import Progress
from steer_asr.audio import SAMPLE_RATE_HZ, decode_audio
from steer_asr.errors import OutputError, SteerOptionError, unknown_name
from steer_asr_benchmarks.clips import BenchClip, Shard, describe_source, load_clips
from steer_asr_benchmarks.predictions import Key, PredictionLog, done_keys, make_record, predictions_name
from steer_asr_benchmarks.provenance import git_sha, versions
from steer_asr_benchmarks.systems import ModelOptions, Models, make_systems
from steer_asr_benchmarks.systems.base import FIXED_DECODING, MODES, Decoding, Mode, System

SCHEMA_VERSION = 1
RUN_FILE = "run.json"
WARM_UP_S = 1.0


@dataclass(frozen=True)
class RunOptions:
    """One benchmark run."""

    manifests: tuple[str | Path, ...]
    """Manifests and dataset roots, PATH or PATH::SPLIT."""
    systems: tuple[str, ...] = ("stock", "steered")
    """Names as in `steer_asr_benchmarks.systems`; the first is what the others are compared with."""
    model: ModelOptions = field(default_factory=ModelOptions)
    steer: str = "default"
    """What the system `steered` means."""
    modes: tuple[Mode, ...] = MODES
    language: str = "en"
    """A language code, "auto" (detected) or "manifest" (each clip's own; detected where the manifest has none).
    English-only models take everything for English."""
    beam_size: int = 1
    limit: int | None = None
    """At most so many clips of each manifest: for trying out."""
    shard: Shard = field(default_factory=Shard)

    def decoding(self, named: BenchClip, mode: Mode) -> Decoding:
        """How a clip is decoded in this run."""
        by_policy = {"auto": None, "manifest": named.clip.lang or None}
        return Decoding(mode, by_policy.get(self.language, self.language), self.beam_size)


@dataclass(frozen=True)
class Job:
    """One line of predictions.jsonl to be made."""

    system: System
    mode: Mode

    def key(self, named: BenchClip) -> Key:
        return named.id, self.system.name, self.mode


def run(options: RunOptions, out: Path) -> None:
    """Runs what is not done yet. All input is checked before the first clip.

    Raises `ManifestError`, `AudioError`, `ModelError`, `PackError`, `SteerOptionError` (also when `out` holds a run
    with other settings), `OutputError`.
    """
    clips = load_clips(options.manifests, options.limit)
    models = Models(options.model)
    systems = make_systems(options.systems, models, options.steer)
    check_decoding(options, clips, models)
    start_or_resume(out, describe_run(options, clips, models, systems))
    jobs = [Job(system, mode) for system in systems for mode in options.modes]
    done = done_keys(out)
    todo = {named.id: [job for job in jobs if job.key(named) not in done] for named in options.shard.of(clips)}
    with (
        PredictionLog(out / predictions_name(options.shard)) as log,
        Progress(total=sum(map(len, todo.values())), unit="prediction", label="bench") as progress,
    ):
        warm_up([job for job in jobs if any(job in left for left in todo.values())], options)
        for named in clips:
            if not todo.get(named.id):
                continue
            audio = decode_audio(named.clip.audio_path)
            for job in todo[named.id]:
                decoding = options.decoding(named, job.mode)
                started = time.perf_counter()
                prediction = job.system.transcribe(audio, decoding)
                seconds = time.perf_counter() - started
                log.append(make_record(named, job.system.name, decoding, prediction, seconds))
                progress.advance(note=named.clip.source)


def check_decoding(options: RunOptions, clips: Sequence[BenchClip], models: Models) -> None:
    """Raises `SteerOptionError` when a language or the beam size cannot be used."""
    known = models.loaded.supported_languages
    asked = {named.clip.lang for named in clips} if options.language == "manifest" else {options.language}
    if models.loaded.model.is_multilingual or options.language != "manifest":
        for language in sorted(asked - {"", "auto", *known}):
            raise SteerOptionError(unknown_name("language", language, ("auto", "manifest", *known)))
    if options.beam_size < 1:
        raise SteerOptionError(f"beam size {options.beam_size} is not at least 1")


def warm_up(jobs: Sequence[Job], options: RunOptions) -> None:
    """Transcribes a little silence with everything, so that first-call costs do not count as latency."""
    silence = np.zeros(int(WARM_UP_S * SAMPLE_RATE_HZ), np.float32)
    for job in jobs:
        job.system.transcribe(silence, Decoding(job.mode, "en", options.beam_size))


def describe_run(
    options: RunOptions, clips: Sequence[BenchClip], models: Models, systems: Sequence[System]
) -> dict[str, Any]:
    """Everything that decides the predictions, as JSON. The shard does not."""
    return {
        "schema_version": SCHEMA_VERSION,
        "git_sha": git_sha(),
        "versions": versions(),
        "model": models.describe(),
        "decoding": {
            "language": options.language,
            "beam_size": options.beam_size,
            "modes": list(options.modes),
            **FIXED_DECODING,
            "front_end": "faster-whisper",
        },
        "data": {
            "manifests": [describe_source(source) for source in options.manifests],
            "limit": options.limit,
            "clips": len(clips),
        },
        "systems": {system.name: dict(system.options) for system in systems},
    }


def start_or_resume(out: Path, description: Mapping[str, Any]) -> None:
    """Writes `run.json`, or checks that the one that is there describes the same run, commit aside.

    Systems may be added to a run that is there; what the others said already stays.
    """
    path = out / RUN_FILE
    description = json.loads(json.dumps(description))
    if not path.exists():
        if any(out.glob("predictions*.jsonl")):
            raise OutputError(f"{out} holds predictions but no {RUN_FILE} that says of what; give another folder")
        _write_run(path, description)
        return
    run = read_run(out)
    added = {name: options for name, options in description["systems"].items() if name not in run["systems"]}
    extended = {**run, "systems": {**run["systems"], **added}}
    before, now = _flat({**extended, "git_sha": None}), _flat({**description, "git_sha": None})
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if changed:
        details = "; ".join(f"{key} was {before.get(key)!r}, is {now.get(key)!r}" for key in changed[:3])
        raise SteerOptionError(
            f"{out} holds a run with other settings: {details}. Give the same settings, or another folder"
        )
    if added:
        _write_run(path, extended | {"git_sha": description["git_sha"]})


def _write_run(path: Path, description: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(description, indent=1, ensure_ascii=False) + "\n")


def read_run(out: Path) -> dict[str, Any]:
    """`run.json` of a folder; raises `OutputError` when it is broken."""
    try:
        found = json.loads((out / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(f"{out / RUN_FILE}: cannot be read ({error}); give another folder") from error
    if not isinstance(found, dict) or not {"data", "decoding", "systems"} <= found.keys():
        raise OutputError(f"{out / RUN_FILE}: does not describe a run; give another folder")
    return found


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested JSON as {"decoding.beam_size": 1, ...}."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    return {
        name: leaf for key, inner in value.items() for name, leaf in _flat(inner, f"{prefix}.{key}".lstrip(".")).items()
    }
