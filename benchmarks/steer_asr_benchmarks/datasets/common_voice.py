"""Common Voice (Ardila et al. 2020): read speech of many volunteers; `LANGUAGE/{train,dev,test}.tsv` and `clips/`.

Only the three disjoint splits are read; validated.tsv and others.tsv repeat their clips or were not checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from steer_asr_benchmarks.datasets.base import (
    UNKNOWN_S,
    VERBATIM,
    Row,
    first,
    read_table,
    require,
    speech,
    whisper_language,
)

SPLITS = ("train", "dev", "test")
HEADER = ("client_id", "path", "sentence")
DURATIONS = "clip_durations.tsv"


class CommonVoice:
    name = "common_voice"
    title = "Common Voice"
    looks_like = "LANGUAGE/test.tsv (client_id, path, sentence) and LANGUAGE/clips/; a language alone also works"
    holds = "speech with transcripts, splits train, dev, test; source says language and split; group is the speaker"
    licence = "CC0 1.0"
    home = "https://commonvoice.mozilla.org/datasets"

    def find(self, root: Path) -> Path | None:
        if _tables(root):
            self._check(root)
            return root.parent
        folders = _languages(root)
        for folder in folders:
            self._check(folder)
        return root if folders else None

    def rows(self, base: Path, root: Path) -> Iterator[Row]:
        for folder in [root] if _tables(root) else _languages(base):
            durations_s = _durations(folder / DURATIONS)
            for table in _tables(folder):
                split = table.stem
                for row in read_table(table, HEADER, delimiter="\t", quoted=False):
                    yield speech(
                        folder / "clips" / row["path"],
                        row["sentence"],
                        duration_s=durations_s.get(row["path"], UNKNOWN_S),
                        label=VERBATIM,
                        source=f"{self.name}/{folder.name}/{split}",
                        group=f"{self.name}/{row['client_id']}",
                        lang=whisper_language(folder.name),
                        split=split,
                        category="utterance",
                        licence=self.licence,
                    )

    def _check(self, folder: Path) -> None:
        require(self.title, folder, {"clips": "clips/"})


def _languages(root: Path) -> list[Path]:
    return [path for path in sorted(root.iterdir()) if path.is_dir() and _tables(path)]


def _tables(folder: Path) -> list[Path]:
    """The splits' tables, known by their header: FLEURS' tables have the same names."""
    return [path for split in SPLITS if (path := folder / f"{split}.tsv").is_file() and _has_header(path)]


def _has_header(path: Path) -> bool:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return set(HEADER) <= set(file.readline(10_000).rstrip("\r\n").split("\t"))


def _durations(path: Path) -> dict[str, float]:
    """Seconds by file name, from releases that state them (in milliseconds)."""
    if first(path.parent, path.name) is None:
        return {}
    rows = read_table(path, ("clip", "duration[ms]"), delimiter="\t", quoted=False)
    return {row["clip"]: int(row["duration[ms]"]) / 1000 for row in rows if row["duration[ms]"].isdecimal()}
