"""`steer-asr-bench matrix`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from steer_asr._files import write_text


def matrix_command(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="Folders written by run.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write OUT.md and OUT.json: the table, and all numbers.")
    ] = None,
    a: Annotated[str, typer.Option(help="The system that others are compared with.")] = "stock",
    b: Annotated[str, typer.Option(help="The system that is compared.")] = "steered",
) -> None:
    """One pair of systems under every condition they were run in: a row per decoding mode and modifier."""
    from steer_asr_benchmarks.compare.matrix import markdown, matrix
    from steer_asr_benchmarks.compare.sides import Side

    found = matrix([Side.read(str(folder)) for folder in folders], a, b)
    text = markdown(found)
    if out is not None:
        write_text(out.with_suffix(".md"), text)
        write_text(out.with_suffix(".json"), json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    typer.echo(text, nl=False)
