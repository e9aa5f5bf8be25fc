"""FSD50K (Fonseca et al. 2022): Freesound clips of 0.3 to 30 s, each with every AudioSet class up to the root.

The labels of eval are complete, those of dev may lack a class, so a dev clip may still hold a word. Papers filter eval
differently (8621, 9127 or 6414 clips), so numbers compare only on the same clips. Group is the uploader, where
`FSD50K.metadata` is there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from steer_asr_benchmarks.datasets.base import DatasetError, LeftOut, Row, first, nonspeech, read_table, require
from steer_asr_benchmarks.datasets.voices import category_of, leaves_out

PARTS = ("dev", "eval")
LICENCES = {"publicdomain/zero": "CC0", "licenses/by-nc": "CC BY-NC", "licenses/by": "CC BY", "sampling+": "Sampling+"}


class Fsd50k:
    name = "fsd50k"
    title = "FSD50K"
    looks_like = "FSD50K.ground_truth/{dev,eval}.csv, FSD50K.dev_audio/ or FSD50K.eval_audio/"
    holds = (
        "non-speech, splits train, val (both of dev) and eval; clips of a class in which words may be heard (speech, "
        "singing, shouting, crowds) are left out; laughing, coughing, steps are category human"
    )
    licence = "per clip (FSD50K.metadata): CC0, CC BY, CC BY-NC or Sampling+"
    home = "https://zenodo.org/records/4060432"

    def find(self, root: Path) -> Path | None:
        if first(root, "FSD50K.ground_truth", "FSD50K.dev_audio", "FSD50K.eval_audio") is None:
            return None
        require(self.title, root, {"FSD50K.*_audio": "FSD50K.dev_audio/ or FSD50K.eval_audio/"})
        for part in _parts(root):
            table = f"FSD50K.ground_truth/{part}.csv"
            require(self.title, root, {table: table})
        return root

    def rows(self, base: Path, root: Path) -> Iterator[Row]:  # noqa: ARG002
        for part in _parts(base):
            uploads = _uploads(base / "FSD50K.metadata" / f"{part}_clips_info_FSD50K.json")
            for row in read_table(base / "FSD50K.ground_truth" / f"{part}.csv", ("fname", "labels", "mids")):
                yield self._row(
                    base / f"FSD50K.{part}_audio" / f"{row['fname']}.wav", row, uploads.get(row["fname"], {})
                )

    def _row(self, path: Path, row: Mapping[str, str], upload: Mapping[str, Any]) -> Row:
        ids, split = row["mids"].split(","), row.get("split") or "eval"
        if words := leaves_out(ids):
            return LeftOut(path, f"words may be heard: {words}", split)
        return nonspeech(
            path,
            label=row["labels"].split(",")[0],
            source=self.name,
            group=f"{self.name}/{upload.get('uploader') or row['fname']}",
            split=split,
            category=category_of(ids),
            licence=_licence(str(upload.get("license", ""))),
        )


def _parts(root: Path) -> list[str]:
    return [part for part in PARTS if (root / f"FSD50K.{part}_audio").is_dir()]


def _uploads(path: Path) -> dict[str, dict[str, Any]]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: cannot be read ({error})") from error
    if not isinstance(found, dict) or not all(isinstance(about, dict) for about in found.values()):
        raise DatasetError(f"{path}: does not say of each clip who made it")
    return found


def _licence(url: str) -> str:
    return next((name for part, name in LICENCES.items() if part in url), url)
