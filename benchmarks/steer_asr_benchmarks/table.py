"""The report as a table for people, in Markdown that also reads well in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

COLUMNS = (
    "system",
    "text, R %",
    "95 %",
    "F %",
    "D %",
    "words/min",
    "WER %",
    "95 %",
    "WER change",
    "95 %",
    "missed %",
    "newly empty %",
    "RTF",
)


def markdown(report: Mapping[str, Any]) -> str:
    """report.md: one table per decoding mode, what the columns mean, and what was run."""
    parts = ["# Text when nobody speaks, and what silencing it costs\n"]
    progress = report["progress"]
    if progress["complete"] is False:
        parts.append(f"**Incomplete: {progress['predictions']} of {progress['expected']} predictions.**\n")
    if limit := (report["data"] or {}).get("limit"):
        parts.append(f"**At most {limit} clips of each manifest: for trying out, not for quoting.**\n")
    for mode, found in report["by_mode"].items():
        parts.append(f"## {mode.replace('_', ' ')}\n\n{_counts(found)}\n\n{mode_table(found)}\n")
    parts.append(_explanation(report))
    return "\n".join(parts)


def mode_table(found: Mapping[str, Any]) -> str:
    """One row per system of one mode."""
    return _grid([COLUMNS, *(_row(name, found) for name in found["systems"])])


def _row(name: str, found: Mapping[str, Any]) -> tuple[str, ...]:
    system, change = found["systems"][name], found["differences"].get(name, {})
    quiet, speech, rate = system["nonspeech"], system["speech"], system["nonspeech"]["hallucination_rate"]
    wer_change = change.get("wer", {})
    return (
        name,
        _percent(rate["r"]),
        _interval(quiet["ci"]["r"]),
        _percent(rate["f"]),
        _percent(rate["d"]),
        _plain(quiet["words_per_min"]),
        _percent(speech["wer"], 2),
        _interval(speech["ci"]["wer"]),
        _percent(wer_change.get("difference"), 2, sign="+"),
        _interval(wer_change.get("ci"), sign="+"),
        _percent(speech["missed_speech_rate"], 2),
        _percent(speech.get("newly_empty_rate"), 2),
        _plain(system["cost"]["rtf"], 3),
    )


def _counts(found: Mapping[str, Any]) -> str:
    first = next(iter(found["systems"].values()))
    quiet, speech = first["nonspeech"], first["speech"]
    languages = ", ".join(filter(None, speech["wer_languages"])) or "any language"
    return (
        f"{quiet['clips']} non-speech clips ({quiet['minutes']:.1f} min), {speech['clips']} speech clips, "
        f"{speech['wer_clips']} of them in WER ({speech['words']} words, {speech['wer_groups']} groups, {languages})."
    )


def _explanation(report: Mapping[str, Any]) -> str:
    lines = [
        "R: non-speech clips with any word after normalisation; F: after dropping segments with no_speech_prob > 0.6; "
        "D: by Whisper's own rule (no_speech_prob < 0.6 or avg_logprob > -1). P and W are in report.json. "
        "WER change: points against the first system, bootstrap by group. Missed: speech clips without a word. "
        "Newly empty: without one where the first system wrote one.",
        "",
        "Stock Whisper may not answer nothing while suppress_blank is on (its default), which is part of a rate near "
        "100 %; the system `stock+empty` shows it without.",
    ]
    if model := report["model"]:
        decoding = report["decoding"]
        lines += [
            "",
            f"Model {model['name']} ({model['sha256'][:15]}), {model['compute_type']} on {model['device']}; language "
            f"{decoding['language']}, beam {decoding['beam_size']}, temperature {decoding['temperature']}, no "
            f"thresholds; commit {report['git_sha'] or 'unknown'}.",
        ]
    for name, system in report["systems"].items():
        if pack := (system["options"] or {}).get("pack"):
            digest = (pack["sha256"] or "not from a file")[:15]
            lines.append(f"{name}: pack {pack['name']} ({digest}), strength {system['options']['strength']}.")
    return "\n".join(lines) + "\n"


def _grid(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(lines)


def _percent(rate: float | None, digits: int = 1, sign: str = "") -> str:
    return "-" if rate is None else f"{100 * rate:{sign}.{digits}f}"


def _interval(ends: Sequence[float] | None, sign: str = "") -> str:
    return "-" if ends is None else f"{100 * ends[0]:{sign}.1f} to {100 * ends[1]:{sign}.1f}"


def _plain(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
