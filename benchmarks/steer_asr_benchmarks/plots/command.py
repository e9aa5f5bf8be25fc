"""`steer-asr-bench plot`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def plot_command(folder: Annotated[Path, typer.Argument(help="Folder with a report.json.")]) -> None:
    """Draw the pictures of a report again, as PNG and SVG, beside it."""
    from steer_asr_benchmarks.plots.pictures import draw_pictures, read_report

    drawn = draw_pictures(read_report(folder), folder)
    for path in drawn.written:
        typer.echo(str(path))
    for name, reason in drawn.skipped.items():
        typer.echo(f"no picture {name}: {reason}", err=True)
