"""WHAM! noise (Wichern et al. 2019): restaurants, cafes, bars and parks, in `tr`, `cv` and `tt`.

Stretches with intelligible speech were cut out by its authors; the babble that stayed is like speech, so all is marked.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from steer_asr_benchmarks.datasets.base import VOICES, Row, first, nonspeech, read_table, require

PARTS = ("tr", "cv", "tt")


class Wham:
    name = "wham_noise"
    title = "WHAM! noise"
    looks_like = "metadata/noise_meta_{tr,cv,tt}.csv, tr/, cv/ or tt/ with .wav files"
    holds = "non-speech, splits tr, cv, tt; all of it category voices (babble); group is the original recording"
    licence = "CC BY-NC 4.0"
    home = "http://wham.whisper.ai"

    def find(self, root: Path) -> Path | None:
        tables = "metadata/noise_meta_*.csv"
        if first(root, tables) is None and not all((root / part).is_dir() for part in PARTS):
            return None
        require(self.title, root, {tables: "metadata/noise_meta_*.csv", "[tc][rvt]/*.wav": "tr/, cv/ or tt/"})
        for part in _parts(root):
            table = f"metadata/noise_meta_{part}.csv"
            require(self.title, root, {table: table})
        return root

    def rows(self, base: Path, root: Path) -> Iterator[Row]:  # noqa: ARG002
        for part in _parts(base):
            for row in read_table(base / "metadata" / f"noise_meta_{part}.csv", ("utterance_id", "File ID")):
                yield nonspeech(
                    base / part / row["utterance_id"],
                    label=f"location {row['Location ID']}" if row.get("Location ID") else "",
                    source=self.name,
                    group=f"{self.name}/{row['File ID']}",
                    split=part,
                    category=VOICES,
                    licence=self.licence,
                )


def _parts(root: Path) -> list[str]:
    return [part for part in PARTS if first(root, f"{part}/*.wav") is not None]
