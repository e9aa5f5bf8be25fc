"""ESC-50 (Piczak 2015): 2000 clips of 5 s in 50 classes and five folds; `meta/esc50.csv` says what each is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from steer_asr_benchmarks.datasets.base import HUMAN, Row, first, nonspeech, read_table, require

BRANCHES = ("animal", "nature", HUMAN, "domestic", "urban")
"""Ten classes each, in the order of `target`."""


class Esc50:
    name = "esc50"
    title = "ESC-50"
    looks_like = "meta/esc50.csv, audio/FOLD-CLIP-TAKE-TARGET.wav"
    holds = (
        "non-speech, splits fold1 to fold5; crying, laughing, coughing and the like are category human; "
        "group is the Freesound recording"
    )
    licence = "CC BY-NC 3.0, the ESC-10 classes CC BY 3.0"
    home = "https://github.com/karolpiczak/ESC-50"

    def find(self, root: Path) -> Path | None:
        audio = "audio/[1-5]-[0-9]*-[A-Z]-[0-9]*.wav"
        if first(root, "meta/esc50.csv", audio) is None:
            return None
        require(self.title, root, {"meta/esc50.csv": "meta/esc50.csv", audio: "audio/"})
        return root

    def rows(self, base: Path, root: Path) -> Iterator[Row]:  # noqa: ARG002
        columns = ("filename", "fold", "target", "category", "esc10", "src_file")
        for row in read_table(base / "meta" / "esc50.csv", columns):
            yield nonspeech(
                base / "audio" / row["filename"],
                label=row["category"],
                source=self.name,
                group=f"{self.name}/{row['src_file']}",
                split=f"fold{row['fold']}",
                category=BRANCHES[int(row["target"]) // 10],
                licence="CC BY 3.0" if row["esc10"] == "True" else "CC BY-NC 3.0",
            )
