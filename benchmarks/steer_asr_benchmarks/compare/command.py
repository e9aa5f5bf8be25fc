"""`steer-asr-bench compare`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from steer_asr._files import write_text


def compare_command(
    a: Annotated[str, typer.Argument(metavar="A", help="Folder written by run, or FOLDER:SYSTEM.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The same; differences are B minus A.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Also write what is printed to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON, with all definitions, instead of a table.")] = False,
    by: Annotated[
        list[str] | None,
        typer.Option(help="Also for each source, label, category, lang, snr or duration of the clips; repeatable."),
    ] = None,
) -> None:
    """Paired differences of two results on the same clips, with intervals. Systems are paired by name."""
    from steer_asr_benchmarks.compare.folders import compare
    from steer_asr_benchmarks.compare.sides import Side
    from steer_asr_benchmarks.compare.table import markdown

    found = compare(Side.read(a), Side.read(b), by or ())
    text = json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n" if as_json else markdown(found)
    if out is not None:
        write_text(out, text)
    typer.echo(text, nl=False)
