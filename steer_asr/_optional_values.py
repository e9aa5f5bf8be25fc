"""Options of a command line that may stand without their value, which Typer cannot say: `--ray`, `--ray HOST:PORT`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar

from typer.core import TyperCommand

RAY = {"--ray": "local"}
RAY_ADDRESS = r"auto|local|.*://.*|[^/]*:\d+"
"""What behind `--ray` is its value, where files may follow it, too."""


class OptionalValues(TyperCommand):
    """A command that gives its `bare` options their value where they stand without.

    `value` is a pattern of what may be the value of one; without it anything but an option, for commands without
    positional arguments.
    """

    bare: ClassVar[Mapping[str, str]] = {}
    value: ClassVar[str] = r"[^-].*|"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, with_values(args, self.bare, self.value))


class RayOption(OptionalValues):
    """A command with `--ray [ADDRESS]` and with positional arguments."""

    bare: ClassVar = RAY
    value: ClassVar = RAY_ADDRESS


def with_values(args: Sequence[str], bare: Mapping[str, str], value: str = OptionalValues.value) -> list[str]:
    """`args` with the value from `bare` behind every such option that no `value` follows."""
    filled = []
    for arg, following in pairwise([*args, "-"]):
        filled.append(arg)
        if arg in bare and not re.fullmatch(value, following, re.DOTALL):
            filled.append(bare[arg])
    return filled
