"""UrbanSound8K (Salamon et al. 2014): 8732 clips of up to 4 s in ten classes and ten folds.

Papers count all of it as non-speech. Children at play are heard to call, and street music may be sung: both are marked.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from steer_asr_benchmarks.datasets.base import VOICES, Row, first, nonspeech, read_table, require

TABLE = "metadata/UrbanSound8K.csv"
CATEGORIES = {"children_playing": VOICES, "street_music": VOICES, "dog_bark": "animal"}


class UrbanSound8K:
    name = "urbansound8k"
    title = "UrbanSound8K"
    looks_like = "metadata/UrbanSound8K.csv, audio/foldN/FSID-CLASS-OCCURRENCE-SLICE.wav"
    holds = (
        "non-speech, splits fold1 to fold10; children_playing and street_music are category voices; "
        "group is the Freesound recording"
    )
    licence = "CC BY-NC 3.0"
    home = "https://urbansounddataset.weebly.com/urbansound8k.html"

    def find(self, root: Path) -> Path | None:
        audio = "audio/fold[0-9]*/[0-9]*-[0-9]*-[0-9]*-[0-9]*.wav"
        if first(root, TABLE, audio) is None:
            return None
        require(self.title, root, {TABLE: TABLE, audio: "audio/foldN/"})
        return root

    def rows(self, base: Path, root: Path) -> Iterator[Row]:  # noqa: ARG002
        for row in read_table(base / TABLE, ("slice_file_name", "fsID", "fold", "class")):
            yield nonspeech(
                base / "audio" / f"fold{row['fold']}" / row["slice_file_name"],
                label=row["class"],
                source=self.name,
                group=f"{self.name}/{row['fsID']}",
                split=f"fold{row['fold']}",
                category=CATEGORIES.get(row["class"], "urban"),
                licence=self.licence,
            )
