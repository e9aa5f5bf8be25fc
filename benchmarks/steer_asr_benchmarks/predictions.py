"""`predictions.jsonl`: one line per clip, system and mode, appended as a run goes on. Metrics come from it alone.

    with PredictionLog(folder / "predictions.jsonl") as log:
        log.append(record)
    for where, record in read_predictions(folder): ...

An interrupt or a full disk leaves at worst an unfinished last line. Readers ignore it; the next run cuts it off.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from steer_asr.errors import ManifestError, OutputError
from steer_asr_benchmarks.clips import BenchClip, Shard
from steer_asr_benchmarks.moments import speech_times
from steer_asr_benchmarks.systems.base import Decoding, Prediction

Key = tuple[str, str, str]
"""(clip, system, mode): what a line is about."""


def predictions_name(shard: Shard) -> str:
    """Name of the file that a shard's predictions go to."""
    return "predictions.jsonl" if shard.count == 1 else f"predictions-{shard.index}-of-{shard.count}.jsonl"


def make_record(
    named: BenchClip, system: str, decoding: Decoding, prediction: Prediction, seconds: float
) -> dict[str, Any]:
    """The line for one prediction. `seconds` is the wall-clock time of transcribing, decoding the file not counted."""
    clip, windows = named.clip, prediction.windows
    told = any(window.frames is not None for window in windows or ())
    spans = speech_times(clip) if told else [[span.start_s, span.end_s] for span in clip.spans]
    if told and spans is None:  # nobody knows what is so: no use for what the gate said
        windows = tuple(replace(window, start_s=None, frames=None) for window in windows or ())
    return {
        "clip": named.id,
        "system": system,
        "mode": decoding.mode,
        "kind": clip.kind,
        "source": clip.source,
        "label": clip.label,
        "category": clip.category,
        "group": clip.group,
        "lang": clip.lang,
        "duration_s": clip.duration_s,
        "snr_db": clip.snr_db,
        "spans": spans or [],
        "reference": clip.text,
        "text": prediction.text,
        "language": prediction.language,
        "language_forced": prediction.language_forced,
        "seconds": round(seconds, 4),
        "nobody_speaks": prediction.nobody_speaks,
        "edited_share": prediction.edited_share,
        "segments": [asdict(segment) for segment in prediction.segments],
        "windows": None if windows is None else [asdict(window) for window in windows],
    }


def read_predictions(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """All finished lines of a run's folder, all shards, as (file:line, record).

    Raises `ManifestError` when there are no predictions, when a line is broken, or when one is there twice.
    """
    empty = True
    for found in _records(folder):
        empty = False
        yield found
    if empty:
        raise ManifestError(f"{folder}: no predictions in it; steer-asr-bench run -o {folder} makes them")


def done_keys(folder: Path) -> set[Key]:
    """What is finished already, by any shard; empty for a new folder. Raises as `read_predictions`."""
    return {_key(record) for _, record in _records(folder)}


def _records(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    seen: set[Key] = set()
    for path in sorted(folder.glob("predictions*.jsonl")):
        for number, line in enumerate(_finished_lines(path), start=1):
            where = f"{path}:{number}"
            try:
                record = json.loads(line.decode("utf-8"))
                key = _key(record)
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise ManifestError(f"{where}: not a prediction ({type(error).__name__}: {error})") from error
            if key in seen:
                raise ManifestError(f"{where}: {key} is there twice; two runs seem to have written at the same time")
            seen.add(key)
            yield where, record


def _key(record: Mapping[str, Any]) -> Key:
    return record["clip"], record["system"], record["mode"]


def _finished_lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield line


class PredictionLog:
    """Appends records to a file. Each is on disk, whole, when `append` returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab", buffering=0)
            self._end = _end_of_finished_lines(path)
            self._file.truncate(self._end)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror or error}") from error

    def __enter__(self) -> PredictionLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, record: Mapping[str, Any]) -> None:
        """Writes one line. Raises `OutputError` when it cannot (a full disk); the file then ends as it did before."""
        line = (json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")
        try:
            left = memoryview(line)
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            os.truncate(self.path, self._end)
            raise OutputError(
                f"cannot write {self.path}: {error.strerror or error}; what is in it stays, the same command resumes"
            ) from error
        self._end += len(line)


def _end_of_finished_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(len(line) for line in file if line.endswith(b"\n"))
