"""Draws all pictures that a report has the numbers for.

drawn = draw_pictures(read_report(folder), folder)
drawn.written, drawn.skipped
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from steer_asr.errors import ManifestError
from steer_asr_benchmarks.plots.pareto import draw_pareto
from steer_asr_benchmarks.plots.sources import draw_by_source
from steer_asr_benchmarks.plots.strata import draw_duration, draw_snr
from steer_asr_benchmarks.plots.style import SUFFIXES, NothingToDraw, save, style

PICTURES: dict[str, Callable[[Mapping[str, Any]], Figure]] = {
    "pareto": draw_pareto,
    "by_source": draw_by_source,
    "snr": draw_snr,
    "duration": draw_duration,
}


@dataclass(frozen=True)
class Drawn:
    """What became of the pictures."""

    written: list[Path] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    """Name of a picture: why there is none."""


def read_report(folder: Path) -> dict[str, Any]:
    """report.json of a folder. Raises `ManifestError` when there is none, or it is not one of `steer-asr-bench`."""
    path = folder / "report.json"
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ManifestError(
            f"{path}: cannot be read ({error.strerror or error}); steer-asr-bench score {folder} makes it"
        ) from error
    except ValueError as error:
        raise ManifestError(f"{path}: is not JSON ({error}); steer-asr-bench score {folder} makes it again") from error
    if not isinstance(report, dict) or not isinstance(report.get("by_mode"), dict):
        raise ManifestError(f"{path}: is not a report; steer-asr-bench score {folder} makes it again")
    return report


def draw_pictures(report: Mapping[str, Any], folder: Path) -> Drawn:
    """Writes each picture into `folder` as PNG and SVG; one that cannot be drawn now is taken away if it was there.

    Raises `ManifestError` for a report whose keys are not those of `steer_asr_benchmarks.report`, `OutputError` when
    a file cannot be written.
    """
    drawn = Drawn()
    with style():
        for name, draw in PICTURES.items():
            try:
                drawn.written.extend(save(draw(report), folder, name))
            except NothingToDraw as nothing:
                drawn.skipped[name] = str(nothing)
                for suffix in SUFFIXES:
                    (folder / f"{name}{suffix}").unlink(missing_ok=True)
            except (KeyError, TypeError, AttributeError) as error:
                raise ManifestError(
                    f"picture {name}: the report is not of this version ({type(error).__name__}: {error}); "
                    f"steer-asr-bench score {folder} makes it again"
                ) from error
    return drawn
