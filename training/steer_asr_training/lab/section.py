"""The parts of a report: what `sections.py` makes and `report.py` prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from steer_asr_training.lab.pictures import BLUE, GREEN, GREY, RED, Picture

DOMAIN_LINES = {"speech": (BLUE, "o"), "music": (RED, "s"), "sounds": (GREEN, "^"), "all": (GREY, "D")}
"""Colour and marker."""


@dataclass(frozen=True)
class Table:
    """Cells as text; the first row is the head."""

    title: str
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True, eq=False)
class Section:
    """One analysis."""

    key: str
    title: str
    text: str
    """What the numbers are; plain text."""
    make: str
    """The command that makes what it shows."""
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = field(default_factory=tuple)
    missing: Sequence[str] = ()
    """What was asked for and could not be done, with the reason."""

    @property
    def is_empty(self) -> bool:
        return not self.pictures and not self.tables
