"""`steer-asr-bench datasets`."""

from __future__ import annotations

from typing import Annotated

import typer


def datasets_command(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PATH...]", help="Dataset roots or manifests, PATH or PATH::SPLIT; none lists layouts."
        ),
    ] = None,
) -> None:
    """List the dataset layouts that run recognises, or say what a folder is and holds."""
    from steer_asr_benchmarks.datasets.describe import describe_contents, describe_layouts
    from steer_asr_benchmarks.datasets.source import Source, read_source

    if not paths:
        typer.echo(describe_layouts())
    for i, path in enumerate(paths or ()):
        typer.echo("\n" * bool(i) + describe_contents(path, read_source(Source.parse(path))))
