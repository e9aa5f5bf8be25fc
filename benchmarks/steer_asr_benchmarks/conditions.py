"""Conditions on a report that fail a run, for use in CI: `PATH OP NUMBER`.

    condition = Condition.parse("steered:0.5.nonspeech.hallucination_rate.r > 0.02")
    check_names([condition], systems=["stock", "steered:0.5"], modes=["timestamps"])     # before the run
    failures([condition], report)                                                        # after it

OP is one of `> >= < <= == !=`. NUMBER is a plain decimal: rates are fractions, as in report.json. PATH is a path of
keys, joined by dots, into one of

| starts with | leads into |
| --- | --- |
| a system's name | `systems` of the report: the first decoding mode |
| `differences.SYSTEM` | differences to the first system |
| `by_mode.MODE.systems.SYSTEM`, `by_mode.MODE.differences.SYSTEM` | the same for any mode |

The ends of an interval are called `low` and `high`: `steered.nonspeech.ci.r.high > 0.05`. Names with dots in them need
no quotes: of the names that fit at a place, the longest is meant, so `steered:0.5.speech` is `speech` of `steered:0.5`.
"""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steer_asr.errors import SteerOptionError, unknown_name

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
EXAMPLE = "'steered.nonspeech.hallucination_rate.r > 0.02'"
_NUMBER = r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?"
_CONDITION = re.compile(
    rf"\s*(?P<path>[^\s<>][^<>\n]*?)\s*(?P<operator>{'|'.join(OPERATORS)})\s*(?P<number>{_NUMBER})\s*",
    re.IGNORECASE | re.ASCII,
)
_NOT_RUN_YET = object()
"""Stands for what only the report will say; any path leads on from it."""


@dataclass(frozen=True)
class Condition:
    """One condition, as it was written and taken apart."""

    text: str
    path: str
    operator: str
    number: float

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Raises `SteerOptionError` for anything but `PATH OP NUMBER`."""
        found = _CONDITION.fullmatch(text)
        if found is None:
            raise SteerOptionError(
                f"condition {text!r} is not PATH OP NUMBER with OP one of {' '.join(OPERATORS)}, for example {EXAMPLE}"
            )
        return cls(text.strip(), found["path"], found["operator"], float(found["number"]))

    def measured(self, report: Mapping[str, Any]) -> float:
        """The number in `report` that the path leads to.

        Raises `SteerOptionError` when it leads nowhere, to something that is not a number, or to null.
        """
        value = _follow(_roots(report["systems"], report["differences"], report["by_mode"]), self)
        if value is None:
            raise SteerOptionError(f"condition {self.text!r}: nothing was measured there, {self.path} is null")
        if isinstance(value, bool) or not isinstance(value, int | float):
            inside = _children(value)
            hint = f"; it holds {', '.join(inside)}" if inside else ""
            raise SteerOptionError(f"condition {self.text!r}: {self.path} is not a number{hint}")
        return value

    def holds(self, value: float) -> bool:
        return OPERATORS[self.operator](value, self.number)


def check_names(conditions: Sequence[Condition], systems: Sequence[str], modes: Sequence[str]) -> None:
    """Checks what can be checked before a run: that each path names a system and a mode that the run will have.

    `systems` stand in the run's order; the first has no differences. Raises `SteerOptionError` with the nearest names.
    """
    found = dict.fromkeys(systems, _NOT_RUN_YET)
    changes = dict.fromkeys(systems[1:], _NOT_RUN_YET)
    roots = _roots(found, changes, {mode: {"systems": found, "differences": changes} for mode in modes})
    for condition in conditions:
        _follow(roots, condition)


def failures(conditions: Sequence[Condition], report: Mapping[str, Any]) -> list[str]:
    """A line for every condition that holds in `report`. Raises as `Condition.measured`."""
    values = [(condition, condition.measured(report)) for condition in conditions]
    return [f"{condition.text} holds: it is {value:.6g}" for condition, value in values if condition.holds(value)]


def _roots(systems: Mapping[str, Any], differences: Mapping[str, Any], by_mode: Mapping[str, Any]) -> dict[str, Any]:
    return {**systems, "differences": differences, "by_mode": by_mode}


def _follow(node: Any, condition: Condition) -> Any:
    """What lies at the end of the condition's path, from `node` on."""
    rest: str | None = condition.path
    done = ""
    while rest is not None and node is not _NOT_RUN_YET:
        known = _children(node)
        fitting = [name for name in known if f"{rest}.".startswith(f"{name}.")]
        if not fitting:
            where = f" under {done}" if done else ""
            raise SteerOptionError(
                f"condition {condition.text!r}: " + unknown_name(f"name{where}", _unknown_part(rest, known), known)
            )
        name = max(fitting, key=len)
        node, done = known[name], f"{done}.{name}".lstrip(".")
        rest = None if rest == name else rest[len(name) + 1 :]
    return node


def _children(node: Any) -> dict[str, Any]:
    """What a path may name next."""
    if isinstance(node, Mapping):
        return dict(node)
    if isinstance(node, list | tuple) and len(node) == 2 and all(isinstance(end, int | float) for end in node):
        return dict(zip(("low", "high"), node, strict=True))
    return {}


def _unknown_part(rest: str, known: Mapping[str, Any]) -> str:
    """So much of `rest` as resembles a known name most: `sterd:0.5` of `sterd:0.5.speech`."""
    parts = rest.split(".")
    lengths = {name.count(".") + 1 for name in known} or {1}
    candidates = [".".join(parts[:length]) for length in sorted(lengths)]
    return max(candidates, key=lambda part: max((_likeness(part, name) for name in known), default=0.0))


def _likeness(a: str, b: str) -> float:
    return difflib.SequenceMatcher(None, a, b).ratio()
