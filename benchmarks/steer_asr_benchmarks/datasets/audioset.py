"""AudioSet (Gemmeke et al. 2017) as people keep it: Google's segment lists and a folder of clips named by video.

A list has a line "YTID, start_seconds, end_seconds, positive_labels" per clip; a clip is `YTID`, `YYTID`, or either
with "_START" or "_START_END" behind it (seconds or milliseconds), with any audio ending, in any folder under the root.
Few copies are whole, so lines without a file are left out and counted. Labels are weak: a class may be missing.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from steer_asr_benchmarks.datasets.base import (
    DatasetError,
    LeftOut,
    Row,
    audio_files,
    first,
    nonspeech,
    read_lines,
    read_table,
)
from steer_asr_benchmarks.datasets.voices import category_of, leaves_out

SUFFIX = "_segments"
NAMES_TABLE = "class_labels_indices.csv"
TABLE_FOLDERS = ("", "csv/", "metadata/")
"""Where in the root the tables may lie."""


class AudioSet:
    name = "audioset"
    title = "AudioSet-style CSV"
    looks_like = (
        "*.csv (also in csv/ or metadata/) with the header '# YTID, start_seconds, end_seconds, positive_labels', "
        "clips named by YTID"
    )
    holds = (
        "non-speech, one split per list (eval, balanced_train, ...); clips of a class in which words may be heard, and "
        "lines without a file, are left out; class_labels_indices.csv, if there, gives the labels' names"
    )
    licence = "lists CC BY 4.0; the audio is the uploaders'"
    home = "https://research.google.com/audioset/"

    def find(self, root: Path) -> Path | None:
        if not _lists(root):
            return None
        if next(audio_files(root), None) is None:
            raise DatasetError(f"{root} looks like {self.title}, but a folder of clips is missing")
        return root

    def rows(self, base: Path, root: Path) -> Iterator[Row]:  # noqa: ARG002
        names, clips = _names(base), {path.stem: path for path in audio_files(base)}
        for path in _lists(base):
            split = path.stem.removesuffix(SUFFIX)
            for video, start, end, labels in _segments(path):
                found = next((clips[name] for name in _file_names(video, start, end) if name in clips), None)
                yield self._row(
                    found or base / split / video, video, labels.split(","), names, split, found is not None
                )

    def _row(self, path: Path, video: str, ids: list[str], names: dict[str, str], split: str, there: bool) -> Row:
        if not there:
            return LeftOut(path, "no file for this line", split)
        if words := leaves_out(ids):
            return LeftOut(path, f"words may be heard: {words}", split)
        return nonspeech(
            path,
            label=names.get(ids[0], ids[0]),
            source=self.name,
            group=f"{self.name}/{video}",
            split=split,
            category=category_of(ids),
        )


def _lists(root: Path) -> list[Path]:
    return sorted(path for folder in TABLE_FOLDERS for path in root.glob(f"{folder}*.csv") if _is_list(path))


def _is_list(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            head = [file.readline(1000) for _ in range(4)]
    except OSError:
        return False
    return any("YTID" in line and "positive_labels" in line for line in head)


def _segments(path: Path) -> Iterator[list[str]]:
    lines = [line for line in read_lines(path) if not line.startswith(("#", "YTID"))]
    for number, row in enumerate(csv.reader(lines, skipinitialspace=True), start=1):
        if len(row) != 4:
            raise DatasetError(f"{path}: clip {number} has {len(row)} columns, not YTID, start, end, labels")
        yield [field.strip() for field in row]


def _file_names(video: str, start: str, end: str) -> list[str]:
    """How a clip's file may be called, without its ending."""
    try:
        seconds = float(start), float(end)
    except ValueError as error:
        raise DatasetError(f"AudioSet clip {video}: {start!r} or {end!r} is not a number of seconds") from error
    spellings = [(start, end), *((f"{a:g}", f"{b:g}") for a, b in (seconds, (seconds[0] * 1000, seconds[1] * 1000)))]
    times = ["", *(f"_{a}" for a, _ in spellings), *(f"_{a}_{b}" for a, b in spellings)]
    return [f"{prefix}{video}{time}" for prefix in ("", "Y") for time in times]


def _names(root: Path) -> dict[str, str]:
    path = first(root, *(folder + NAMES_TABLE for folder in TABLE_FOLDERS))
    rows = read_table(path, ("mid", "display_name")) if path else []
    return {row["mid"]: row["display_name"] for row in rows}
