"""Where a run of the laboratory keeps what.

    RUN/lab.json                       the recipe as it was run, versions, how long each job took
    RUN/log.txt                        what the commands said
    RUN/manifests/{train,dev}/         manifests without short clips, where the recipe asks for that
    RUN/activations/{train,dev}/       written by collect
    RUN/fit/seed0/HOOK POINT/sae/      written by fit
    RUN/results/HOOK POINT/            written by evaluate, features, search, phonemes and boundaries
    RUN/results/HOOK POINT/probe-LABEL/, erase-LABEL-VALUE/, stability-SEED-SEED/

The commands write the same files by hand: only the names of files, and the hook point inside of them, matter to
`steer-asr-train report`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

LAB_FILE = "lab.json"


@dataclass(frozen=True)
class RunFolder:
    """Paths inside of a run."""

    path: Path

    @property
    def lab_file(self) -> Path:
        return self.path / LAB_FILE

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    def manifests(self, part: str) -> Path:
        return self.path / "manifests" / part

    def activations(self, part: str) -> Path:
        """`part` is "train" or "dev"."""
        return self.path / "activations" / part

    def fit(self, seed: int) -> Path:
        return self.path / "fit" / f"seed{seed}"

    def sae(self, seed: int, point: str) -> Path:
        return self.fit(seed) / point / "sae"

    def results(self, point: str, *parts: str) -> Path:
        """The folder of one analysis; `parts` name what it was asked about, where it can be asked about several."""
        folder = self.path / "results" / point
        return folder / "-".join(re.sub(r"[^\w.]+", "_", part) for part in parts) if parts else folder
