"""Runs systems over clips and writes down what they said. No metric is computed here.

    run(RunOptions(manifests=(Path("test.jsonl"),), systems=("stock", "steered")), Path("results"))

The folder holds `run.json` (what was run, fixed by the first start) and `predictions.jsonl`. Stopped at any point, the
same call goes on where it was; a call that names further systems adds them. How many processes do the work, and
where, is not part of what is fixed.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from steer_asr._cluster import check_ray
from steer_asr._files import write_text
from steer_asr._progress import Progress
from steer_asr.errors import OutputError, SteerOptionError, unknown_name
from steer_asr_benchmarks import ray_run, workers
from steer_asr_benchmarks.clips import BenchClip, describe_source, load_clips
from steer_asr_benchmarks.predictions import Key, PredictionLog, done_keys, predictions_name
from steer_asr_benchmarks.provenance import git_sha
from steer_asr_benchmarks.systems import Models
from steer_asr_benchmarks.systems.base import FIXED_DECODING
from steer_asr_benchmarks.work import DESCRIBED, ClipWork, Job, RunOptions, Transcriber, changes

__all__ = ["RUN_FILE", "SCHEMA_VERSION", "RunOptions", "read_run", "run"]

SCHEMA_VERSION = 1
RUN_FILE = "run.json"


def run(options: RunOptions, out: Path) -> None:
    """Runs what is not done yet. All input is checked before the first clip.

    Raises `ManifestError`, `AudioError`, `ModelError`, `PackError`, `SteerOptionError` (also when `out` holds a run
    with other settings, and when Ray is missing or cannot be reached), `OutputError`, and `WorkerError` when a worker
    process is lost.
    """
    check_processes(options)
    clips = load_clips(options.manifests, options.limit)
    transcriber = Transcriber(options)
    check_decoding(options, clips, transcriber.models)
    description = describe_run(options, clips, transcriber)
    start_or_resume(out, description)
    jobs = [Job(system, mode) for system in transcriber.systems for mode in options.modes]
    work = left_to_do(options.shard.of(clips), jobs, done_keys(out))
    if not work:
        return
    if options.ray is not None:
        records = ray_run.on_ray(options, work, expected={key: description[key] for key in DESCRIBED})
    elif (options.jobs or 1) > 1:
        records = workers.in_processes(options, work)
    else:
        records = in_this_process(transcriber, work)
    del transcriber  # workers load their own; this process need not hold the models then
    write_records(records, options, out, total=sum(len(one.jobs) for one in work))


def check_processes(options: RunOptions) -> None:
    """Raises `SteerOptionError` when there cannot be such workers."""
    if options.jobs is not None and options.jobs < 1:
        raise SteerOptionError(f"jobs {options.jobs} is not at least 1")
    if options.ray is not None:
        check_ray(options.ray)


def left_to_do(clips: Sequence[BenchClip], jobs: Sequence[Job], done: set[Key]) -> list[ClipWork]:
    """The clips of which something is missing, with what is."""
    left = [ClipWork(named, tuple(job for job in jobs if job.key(named) not in done)) for named in clips]
    return [work for work in left if work.jobs]


def in_this_process(transcriber: Transcriber, work: Sequence[ClipWork]) -> Generator[dict[str, Any]]:
    """The records of `work`, made one after the other."""
    for one in work:
        yield from transcriber.records(one)


def write_records(records: Generator[dict[str, Any]], options: RunOptions, out: Path, total: int) -> None:
    """Writes each of `total` records as it comes, from wherever it comes: a file has one writer."""
    with (
        closing(records),
        PredictionLog(out / predictions_name(options.shard)) as log,
        Progress(total=total, unit="prediction", label="bench") as progress,
    ):
        for record in records:
            log.append(record)
            progress.advance(note=f"{record['system']}, {record['source']}")


def check_decoding(options: RunOptions, clips: Sequence[BenchClip], models: Models) -> None:
    """Raises `SteerOptionError` when a language or the beam size cannot be used. What servers know, they will say."""
    if options.beam_size < 1:
        raise SteerOptionError(f"beam size {options.beam_size} is not at least 1")
    if not models.used:
        return
    known = models.loaded.supported_languages
    asked = {named.clip.lang for named in clips} if options.language == "manifest" else {options.language}
    if models.loaded.model.is_multilingual or options.language != "manifest":
        for language in sorted(asked - {"", "auto", *known}):
            raise SteerOptionError(unknown_name("language", language, ("auto", "manifest", *known)))


def describe_run(options: RunOptions, clips: Sequence[BenchClip], transcriber: Transcriber) -> dict[str, Any]:
    """Everything that decides the predictions, as JSON. The shard and the number of processes do not."""
    return {
        "schema_version": SCHEMA_VERSION,
        "git_sha": git_sha(),
        **transcriber.describe(),
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
    }


def start_or_resume(out: Path, description: Mapping[str, Any]) -> None:
    """Writes `run.json`, or checks that the one that is there describes the same run, commit aside.

    Systems may be added to a run that is there; what the others said already stays.
    """
    path = out / RUN_FILE
    description = json.loads(json.dumps(description))
    if not any(out.glob("predictions*.jsonl")):  # as in a checkout: nothing to keep
        _write_run(path, description)
        return
    if not path.exists():
        raise OutputError(f"{out} holds predictions but no {RUN_FILE} that says of what; give another folder")
    run = read_run(out)
    model = run.get("model") or description["model"]  # None where only servers were asked, which go with any model
    run, description = {**run, "model": model}, {**description, "model": description["model"] or model}
    added = {name: options for name, options in description["systems"].items() if name not in run["systems"]}
    extended = {**run, "systems": {**run["systems"], **added}}
    changed = changes({**extended, "git_sha": None}, {**description, "git_sha": None})
    if changed:
        raise SteerOptionError(
            f"{out} holds a run with other settings: {'; '.join(changed[:3])}. "
            "Give the same settings, or another folder"
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
