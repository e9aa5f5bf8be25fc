"""DEMAND (Thiemann et al. 2013): 18 places, five minutes each, recorded by 16 microphones. The first one is taken."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from steer_asr_benchmarks.datasets.base import VOICES, DatasetError, LeftOut, Row, first, nonspeech

PLACES = {
    **{"DKITCHEN": "domestic", "DLIVING": "domestic", "DWASHING": "domestic"},
    **{"NFIELD": "nature", "NPARK": "nature", "NRIVER": "nature"},
    **{"OHALLWAY": VOICES, "OMEETING": "", "OOFFICE": "office"},
    **{"PCAFETER": VOICES, "PRESTO": VOICES, "PSTATION": VOICES},
    **{"SCAFE": VOICES, "SPSQUARE": VOICES, "STRAFFIC": "urban"},
    **{"TBUS": VOICES, "TCAR": "urban", "TMETRO": VOICES},
}
"""Category of each; a meeting is nothing but people who talk."""
FIRST = "ch01.wav"


class Demand:
    name = "demand"
    title = "DEMAND"
    looks_like = "DKITCHEN/ch01.wav, NPARK/ch01.wav, ... any of the 18 places"
    holds = (
        "non-speech, first channel only; cafes, halls, stations, buses and trains are category voices; OMEETING is "
        "left out; no splits"
    )
    licence = "CC BY-SA 3.0"
    home = "https://zenodo.org/records/1227121"

    def find(self, root: Path) -> Path | None:
        places = [place for place in PLACES if first(root, f"{place}/ch[0-9][0-9].wav") is not None]
        without = [f"{place}/{FIRST}" for place in places if not (root / place / FIRST).is_file()]
        if without:
            raise DatasetError(f"{root} looks like {self.title}, but {' and '.join(without)} is missing")
        return root if places else None

    def rows(self, base: Path, root: Path) -> Iterator[Row]:  # noqa: ARG002
        for place, category in PLACES.items():
            path = base / place / FIRST
            if not path.is_file():
                continue
            if not category:
                yield LeftOut(path, "words may be heard: a meeting")
                continue
            yield nonspeech(
                path,
                label=place,
                source=self.name,
                group=f"{self.name}/{place}",
                category=category,
                licence=self.licence,
            )
