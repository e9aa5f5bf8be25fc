"""The comparison as Markdown that also reads well in a terminal: one table per mode and pair of systems."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from steer_asr_benchmarks.table import grid, interval, percent, plain

COLUMNS = ("", "A", "B", "B - A", "95 %", "only A : only B", "p", "clips", "groups")
EXPLANATION = (
    "Only clips that both sides have count. B - A in points, 95 % by bootstrap over groups. only A : only B: clips "
    "that count on one side only; p: McNemar's exact test on these, which takes clips for independent. R: non-speech "
    "clips with any word after normalisation; F: after dropping segments with no_speech_prob > 0.6. Missed: speech "
    "clips without a word. Newly empty: those of them where A wrote one, with Wilson's interval. RTF: the ratio B / A; "
    "times compare only when both were taken on the same idle machine."
)


def markdown(found: Mapping[str, Any]) -> str:
    """The whole comparison: sides, warnings, settings that differ, tables."""
    lines = ["# What changes from A to B", ""]
    for letter in ("a", "b"):
        side = found[letter]
        model = side["model"] or {}
        of = f": model {model['name']} ({model['sha256'][:15]})" if {"name", "sha256"} <= model.keys() else ""
        lines.append(f"- {letter.upper()} is {side['name']}{of}, commit {side['git_sha'] or 'unknown'}")
    for setting in found["settings"]:
        lines.append(f"- {setting['setting']}: {_brief(setting['a'])} in A, {_brief(setting['b'])} in B")
    for warning in found["warnings"]:
        lines += ["", f"**Warning: {warning}.**"]
    for comparison in found["comparisons"]:
        systems = " to ".join(dict.fromkeys((comparison["a"], comparison["b"])))
        lines += ["", f"## {comparison['mode'].replace('_', ' ')}: {systems}", "", _counts(comparison)]
        lines += ["", comparison_table(comparison)]
    return "\n".join([*lines, "", EXPLANATION, ""])


def comparison_table(comparison: Mapping[str, Any]) -> str:
    """One row per metric of one mode and pair of systems."""
    quiet, speech = comparison["nonspeech"], comparison["speech"]
    rate, empty, rtf = quiet["hallucination_rate"], speech["newly_empty"], comparison["rtf"]
    ratio = "-" if rtf["ratio"] is None else f"x {rtf['ratio']:.2f}"
    return grid(
        [
            COLUMNS,
            _rate_row("text, R %", rate["r"]),
            _rate_row("text, F %", rate["f"]),
            _row("words/min", quiet["words_per_min"], scale=1, digits=1),
            _row("WER %", speech["wer"], digits=2),
            _rate_row("missed %", speech["missed_speech_rate"], digits=2),
            (
                "newly empty %",
                "-",
                percent(empty["rate"], 2),
                "-",
                interval(empty["ci"]),
                "-",
                "-",
                str(empty["clips"]),
                "-",
            ),
            ("RTF", plain(rtf["a"], 3), plain(rtf["b"], 3), ratio, *"-----"),
        ]
    )


def _row(name: str, change: Mapping[str, Any], *, scale: float = 100, digits: int = 1) -> tuple[str, ...]:
    def number(value: float | None, sign: str = "") -> str:
        return "-" if value is None else f"{scale * value:{sign}.{digits}f}"

    ends = change["ci"]
    between = "-" if ends is None else f"{number(ends[0], '+')} to {number(ends[1], '+')}"
    values = (number(change["a"]), number(change["b"]), number(change["difference"], "+"))
    return name, *values, between, "-", "-", str(change["clips"]), str(change["groups"])


def _rate_row(name: str, change: Mapping[str, Any], *, digits: int = 1) -> tuple[str, ...]:
    row = _row(name, change, digits=digits)
    return *row[:5], f"{change['only_a']} : {change['only_b']}", _p(change["p"]), *row[7:]


def _p(p: float | None) -> str:
    if p is None:
        return "-"
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def _counts(comparison: Mapping[str, Any]) -> str:
    clips = comparison["clips"]
    parts = [f"{clips['both']} clips on both sides, {comparison['changed_texts']} of them with another text"]
    left = {"only in A": clips["only_a"], "only in B": clips["only_b"]}
    left["of one name but not the same clip"] = clips["described_differently"]
    parts += [f"{count} {where}, left out" for where, count in left.items() if count]
    return "; ".join(parts) + "."


def _brief(value: Any) -> str:
    """A setting in a few characters; of a pack its name and hash."""
    if isinstance(value, Mapping) and "name" in value:
        return f"{value['name']} ({str(value.get('sha256'))[:15]})"
    return json.dumps(value, ensure_ascii=False)
