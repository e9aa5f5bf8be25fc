"""LibriSpeech (Panayotov et al. 2015): read English; `SPLIT/SPEAKER/CHAPTER/*.flac` with one transcript per chapter."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from steer_asr_benchmarks.datasets.base import VERBATIM, Row, first, read_lines, require, speech

SPLIT = re.compile(r"(train|dev|test)-(clean|other)(-\d+)?")
FLAC = "[0-9]*/[0-9]*/[0-9]*-[0-9]*-[0-9]*.flac"
TRANSCRIPT = "[0-9]*/[0-9]*/[0-9]*-[0-9]*.trans.txt"


class LibriSpeech:
    name = "librispeech"
    title = "LibriSpeech"
    looks_like = "test-clean/SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt beside .flac files; a split alone also works"
    holds = (
        "English speech with transcripts, splits test-clean, dev-other, ...; source has the split, group is the speaker"
    )
    licence = "CC BY 4.0"
    home = "https://www.openslr.org/12"

    def find(self, root: Path) -> Path | None:
        if not SPLIT.fullmatch(root.name):
            parts = _splits(root)
            for part in parts:
                self._check(part)
            return root if parts else None
        if first(root, FLAC, TRANSCRIPT) is None:
            return None
        self._check(root)
        return root.parent

    def rows(self, base: Path, root: Path) -> Iterator[Row]:
        for part in [root] if root != base else _splits(base):
            for transcript in sorted(part.glob(TRANSCRIPT)):
                for line in read_lines(transcript):
                    name, _, text = line.strip().partition(" ")
                    yield speech(
                        transcript.parent / f"{name}.flac",
                        text,
                        label=VERBATIM,
                        source=f"{self.name}/{part.name}",
                        group=f"{self.name}/{transcript.parent.parent.name}",
                        lang="en",
                        split=part.name,
                        category="utterance",
                        licence=self.licence,
                    )

    def _check(self, part: Path) -> None:
        require(self.title, part, {FLAC: "SPEAKER/CHAPTER/*.flac", TRANSCRIPT: "SPEAKER/CHAPTER/*.trans.txt"})


def _splits(root: Path) -> list[Path]:
    return [
        path
        for path in sorted(root.iterdir())
        if SPLIT.fullmatch(path.name) and path.is_dir() and first(path, FLAC, TRANSCRIPT) is not None
    ]
