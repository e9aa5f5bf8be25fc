"""FLEURS (Conneau et al. 2022): the FLoRes sentences read in 102 languages; `LANGUAGE/{train,dev,test}.tsv`.

A table has no header: sentence id, file, sentence as written, as normalised, as characters, samples at 16 kHz, gender.
Speakers are not told apart, so the group is the sentence, which several people read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from steer_asr_benchmarks.datasets.base import (
    VERBATIM,
    DatasetError,
    Row,
    first,
    read_lines,
    require,
    speech,
    whisper_language,
)

SPLITS = ("train", "dev", "test")
LANGUAGE = re.compile(r"[a-z]{2,3}(_[a-z]{4})?_([a-z]{2}|419)")
RATE_HZ = 16_000


class Fleurs:
    name = "fleurs"
    title = "FLEURS"
    looks_like = "en_us/test.tsv and en_us/audio/test/ (or en_us/test/) with .wav files; a language alone also works"
    holds = "speech with transcripts, splits train, dev, test; source says language and split; group is the sentence"
    licence = "CC BY 4.0"
    home = "https://huggingface.co/datasets/google/fleurs"

    def find(self, root: Path) -> Path | None:
        if _is_language(root):
            self._check(root)
            return root.parent
        folders = _languages(root)
        for folder in folders:
            self._check(folder)
        return root if folders else None

    def rows(self, base: Path, root: Path) -> Iterator[Row]:
        for folder in [root] if _is_language(root) else _languages(base):
            for split in SPLITS:
                audio = _audio(folder, split)
                if audio is not None:
                    yield from self._split(folder, split, audio)

    def _split(self, folder: Path, split: str, audio: Path) -> Iterator[Row]:
        table, tag = folder / f"{split}.tsv", folder.name
        for number, line in enumerate(read_lines(table), start=1):
            fields = line.rstrip("\r").split("\t")
            if len(fields) != 7 or not fields[5].isdecimal():
                raise DatasetError(f"{table}:{number}: not the seven columns of FLEURS, the sixth a number of samples")
            sentence, file, text, _, _, samples, _ = fields
            language = whisper_language(tag)
            yield speech(
                audio / file,
                text,
                duration_s=int(samples) / RATE_HZ,
                label=VERBATIM,
                source=f"{self.name}/{language}/{split}",
                group=f"{self.name}/{tag}/{sentence}",
                lang=language,
                split=split,
                category="utterance",
                licence=self.licence,
            )

    def _check(self, folder: Path) -> None:
        if all(_audio(folder, split) is None for split in SPLITS):
            raise DatasetError(
                f"{folder} looks like {self.title}, but audio/test/ (or train, dev) with .wav files is missing"
            )
        for split in SPLITS:
            if _audio(folder, split) is not None:
                require(self.title, folder, {f"{split}.tsv": f"{split}.tsv"})


def _languages(root: Path) -> list[Path]:
    return [path for path in sorted(root.iterdir()) if path.is_dir() and _is_language(path)]


def _is_language(folder: Path) -> bool:
    if not LANGUAGE.fullmatch(folder.name):
        return False
    return (
        first(folder, *(f"{split}.tsv" for split in SPLITS)) is not None or first(folder, "audio/*/*.wav") is not None
    )


def _audio(folder: Path, split: str) -> Path | None:
    """The folder of a split's recordings, wherever its archive was unpacked."""
    return next((path for path in (folder / "audio" / split, folder / split) if first(path, "*.wav") is not None), None)
