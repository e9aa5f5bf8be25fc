"""Options of a command line that may stand without their value, which Typer cannot say: `--ray`, `--ray HOST:PORT`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar

from typer.core import TyperCommand


class OptionalValues(TyperCommand):
    """A command without positional arguments that gives its `bare` options their value where they stand without."""

    bare: ClassVar[Mapping[str, str]] = {}

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, with_values(args, self.bare))


def with_values(args: Sequence[str], bare: Mapping[str, str]) -> list[str]:
    """`args` with the value from `bare` behind every such option that another option, or nothing, follows."""
    filled = []
    for arg, following in pairwise([*args, "-"]):
        filled.append(arg)
        if arg in bare and following.startswith("-"):
            filled.append(bare[arg])
    return filled
