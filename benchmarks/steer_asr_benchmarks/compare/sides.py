"""The two sides of a comparison: what each folder holds, and what stands between them.

side = Side.read("results/base:steered")
side.scores["timestamps"]["steered"]           # ClipScore by clip
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steer_asr.errors import SteerOptionError, unknown_name
from steer_asr_benchmarks.predictions import read_predictions
from steer_asr_benchmarks.runner import RUN_FILE, read_run
from steer_asr_benchmarks.scoring import ClipScore, score_record
from steer_asr_benchmarks.text import PACKAGE

DESCRIPTION = ("kind", "lang", "duration_s", "reference")
"""What must be equal on both sides for a clip to be the same clip. Its group is taken from B."""


@dataclass(frozen=True)
class Side:
    """The predictions of one result folder, counted."""

    name: str
    """As it was asked for."""
    folder: Path
    run: Mapping[str, Any]
    """run.json; empty without one."""
    normalizer: str | None
    """Version that the folder's report was made with, or its run; None where neither says."""
    scores: Mapping[str, Mapping[str, Mapping[str, ClipScore]]]
    """By mode, then system, then clip."""
    clips: Mapping[str, tuple[Any, ...]]
    """The `DESCRIPTION` of each clip."""

    @classmethod
    def read(cls, text: str) -> Side:
        """`FOLDER` or `FOLDER:SYSTEM`; of the prefixes that are folders, the longest.

        Raises `SteerOptionError` when there is no such folder or system, `ManifestError` when its predictions are
        missing or broken, `OutputError` when its run.json is.
        """
        folder, system = _folder_and_system(text)
        scores: dict[str, dict[str, dict[str, ClipScore]]] = defaultdict(lambda: defaultdict(dict))
        clips: dict[str, tuple[Any, ...]] = {}
        systems: dict[str, None] = {}
        for where, record in read_predictions(folder):
            systems[record["system"]] = None
            if system in (None, record["system"]):
                score = score_record(where, record)
                scores[score.mode][score.system][score.clip] = score
                clips[score.clip] = tuple(record[key] for key in DESCRIPTION)
        if not scores:
            raise SteerOptionError(f"{folder}: " + unknown_name("system", system or "", systems))
        run = read_run(folder) if (folder / RUN_FILE).exists() else {}
        return cls(text, folder, run, _normalizer_version(folder, run), scores, clips)

    @property
    def systems(self) -> list[str]:
        return list(dict.fromkeys(name for by_system in self.scores.values() for name in by_system))

    @property
    def shared_encoder(self) -> bool:
        """Then only the first system to see a window paid for it, and times compare nothing."""
        return bool((self.run.get("model") or {}).get("shared_encoder"))


def _folder_and_system(text: str) -> tuple[Path, str | None]:
    ends = [len(text), *(i for i in range(len(text) - 1, 0, -1) if text[i] == ":")]
    for end in ends:
        if Path(text[:end]).is_dir():
            return Path(text[:end]), text[end + 1 :] or None
    raise SteerOptionError(f"{text!r} is neither a result folder nor FOLDER:SYSTEM")


def _normalizer_version(folder: Path, run: Mapping[str, Any]) -> str | None:
    try:
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        return str(report["scoring"]["normalizer"]["version"])
    except (OSError, ValueError, KeyError, TypeError):  # no report, or another program's: the run may say
        return (run.get("versions") or {}).get(PACKAGE.replace("-", "_"))
