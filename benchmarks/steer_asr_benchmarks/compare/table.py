"""The comparison as Markdown that also reads well in a terminal: one table per mode and pair of systems."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from steer_asr_benchmarks.stats import wilson
from steer_asr_benchmarks.table import grid, interval, percent, plain

COLUMNS = ("", "A", "B", "B - A", "95 %", "only A : only B", "p", "clips", "groups")
BRIEF_COLUMNS = (
    "",
    "non-speech clips",
    "R %, A : B",
    "95 % of B",
    "F %, A : B",
    "speech clips (groups)",
    "words",
    "WER %, A : B",
    "B - A",
    "95 %",
    "missed %, A : B",
    "95 % of B - A",
    "newly empty",
)
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
        for division, strata in comparison["strata"].items():
            lines += ["", f"By {division}:", "", strata_table(strata)] if strata else []
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


def strata_table(strata: Mapping[str, Mapping[str, Any]]) -> str:
    """One short row per stratum, or per any other name for a comparison: A, B, and what they differ by."""
    return grid([BRIEF_COLUMNS, *(brief_row(name, comparison) for name, comparison in strata.items())])


def brief_row(name: str, comparison: Mapping[str, Any]) -> tuple[str, ...]:
    """A comparison in the columns `BRIEF_COLUMNS`."""
    quiet, speech = comparison["nonspeech"]["hallucination_rate"], comparison["speech"]
    wer, missed, empty = speech["wer"], speech["missed_speech_rate"], speech["newly_empty"]
    r = quiet["r"]
    of_b = None if r["b"] is None else wilson(round(r["b"] * r["clips"]), r["clips"])
    return (
        name,
        str(r["clips"]),
        f"{percent(r['a'])} : {percent(r['b'])}",
        interval(of_b),
        f"{percent(quiet['f']['a'])} : {percent(quiet['f']['b'])}",
        f"{missed['clips']} ({missed['groups']})",
        str(wer["words"]),
        f"{percent(wer['a'], 2)} : {percent(wer['b'], 2)}",
        percent(wer["difference"], 2, sign="+"),
        interval(wer["ci"], sign="+", digits=2),
        f"{percent(missed['a'], 2)} : {percent(missed['b'], 2)}",
        interval(missed["ci"], sign="+", digits=2),
        str(empty["count"]),
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
