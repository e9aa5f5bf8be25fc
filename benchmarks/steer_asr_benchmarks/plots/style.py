"""How all pictures look, and how they are saved.

Colours are Okabe and Ito's for colour-blind readers; every system also has a marker of its own. Text is drawn as
outlines, so that a picture is the same wherever it is looked at; what it says stands in comments of the SVG.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from steer_asr._files import atomic_path

DPI = 160
SUFFIXES: dict[str, dict[str, str | None]] = {".png": {"Software": None}, ".svg": {"Date": None, "Creator": None}}
"""Kinds of files, and what matplotlib shall not write into them because it changes from day to day."""
INK, FAINT, GRID = "#1b1f24", "#59626d", "#dfe3e8"
REFERENCE = "#4d4d4d"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#e69f00", "#56b4e9")
DARKER = 0.62
"""How much of a colour is left where it is used for text."""
MARKERS = ("s", "D", "^", "v", "P", "X", "p")
"""One more than colours: together they tell 42 systems apart."""
_RC: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": FAINT,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 12,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 12.5,
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 11,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "svg.fonttype": "path",
    "svg.hashsalt": "steer-asr",
    "text.color": INK,
    "text.parse_math": False,  # a "$" in a name is a "$"
    "xtick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.color": FAINT,
    "ytick.labelcolor": INK,
}


class NothingToDraw(Exception):
    """The report lacks the numbers of a picture; the message says which."""


@dataclass(frozen=True)
class Look:
    """What a system is drawn with, the same in all pictures."""

    colour: str
    marker: str

    @property
    def ink(self) -> str:
        """The same hue for text, dark enough to be read on white."""
        red, green, blue = (DARKER * part for part in to_rgb(self.colour))
        return to_hex((red, green, blue))


def style() -> AbstractContextManager[None]:
    """All drawing and saving happens in it."""
    return mpl.rc_context(_RC)


def systems_of(report: Mapping[str, Any]) -> list[str]:
    """All systems of all modes, in the report's order."""
    return list(dict.fromkeys(name for found in report["by_mode"].values() for name in found["systems"]))


def looks(systems: Iterable[str]) -> dict[str, Look]:
    """The first system, which the others are compared with, is grey."""
    first, *others = systems
    return {first: Look(REFERENCE, "o")} | {
        name: Look(COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]) for i, name in enumerate(others)
    }


def model_name(report: Mapping[str, Any]) -> str:
    """For titles: ": Whisper base"; nothing where the report does not know."""
    return f": Whisper {shortened(Path(report['model']['name']).name)}" if report.get("model") else ""


def shortened(name: str, length: int = 24) -> str:
    """A long name without its middle."""
    half = (length - 1) // 2
    return name if len(name) <= length else f"{name[:half]}\N{HORIZONTAL ELLIPSIS}{name[-half:]}"


def mode_name(mode: str) -> str:
    return {"timestamps": "with timestamps", "no_timestamps": "without timestamps"}.get(mode, mode.replace("_", " "))


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Writes NAME.png and NAME.svg, each whole or not at all. Raises `OutputError` when a file cannot be written."""
    paths = []
    for suffix, metadata in SUFFIXES.items():
        path = folder / f"{name}{suffix}"
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format=suffix[1:], metadata=metadata)
        paths.append(path)
    return paths
