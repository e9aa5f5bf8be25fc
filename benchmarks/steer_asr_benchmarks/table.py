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


def markdown(report: Mapping[str, Any], pictures: Sequence[str] = ()) -> str:
    """report.md: the summary, with the pictures that lie beside it, then sources, strings and clips of one mode."""
    mode, found = next(iter(report["by_mode"].items()))
    return f"{summary(report, pictures)}\n{details(mode, found)}{gates(found)}{costs(report['by_mode'])}"


def summary(report: Mapping[str, Any], pictures: Sequence[str] = ()) -> str:
    """The answer: one table per decoding mode, what the columns mean, and what was run."""
    parts = ["# Text when nobody speaks, and what silencing it costs\n"]
    progress = report["progress"]
    if progress["complete"] is False:
        parts.append(f"**Incomplete: {progress['predictions']} of {progress['expected']} predictions.**\n")
    if limit := (report["data"] or {}).get("limit"):
        parts.append(f"**At most {limit} clips of each manifest: for trying out, not for quoting.**\n")
    for mode, found in report["by_mode"].items():
        parts.append(f"## {_title(mode)}\n")
        parts += [f"{_counts(found)}\n\n{mode_table(found)}\n"] if _has_clips(found) else []
        parts += [f"**{line}**\n" for line in _warnings(found)]
        parts += [f"{mixed_table(found)}\n"] if _has_mixed(found) else []
    if pictures:
        parts += [f"![{name.replace('_', ' ')}]({name}.png)\n" for name in pictures]
    parts.append(_explanation(report))
    parts += _left_out(report["data"])
    return "\n".join(parts)


def mode_table(found: Mapping[str, Any]) -> str:
    """One row per system of one mode."""
    return grid([COLUMNS, *(_row(name, found) for name in found["systems"])])


def _title(mode: str) -> str:
    return mode.replace("_", " ")


def _warnings(found: Mapping[str, Any]) -> list[str]:
    """Systems that did nothing."""
    unchanged = [(name, change["to"]) for name, change in found["differences"].items() if change["unchanged"]]
    return [f"{name} changed nothing: every text is the one of {to}." for name, to in unchanged]


def _left_out(data: Mapping[str, Any] | None) -> list[str]:
    """What of the dataset roots was not taken, and why."""
    return [
        f"Left out of {manifest['name']}: {'; '.join(f'{n} ({reason})' for reason, n in manifest['left_out'].items())}."
        for manifest in (data or {}).get("manifests", ())
        if manifest.get("left_out")
    ]


def _has_clips(found: Mapping[str, Any]) -> bool:
    """Whether anything but mixed recordings was transcribed."""
    return any(system[kind]["clips"] for system in found["systems"].values() for kind in ("nonspeech", "speech"))


def _has_mixed(found: Mapping[str, Any]) -> bool:
    return any(system["mixed"]["clips"] for system in found["systems"].values())


def mixed_table(found: Mapping[str, Any]) -> str:
    """One row per system: recordings of speech amid non-speech."""
    header = ("system", "words/min outside speech", "95 %", "change", "95 %", "WER %", "deleted %", "inserted words")
    rows = []
    for name, system in found["systems"].items():
        mixed, change = system["mixed"], found["differences"].get(name, {}).get("words_outside_per_min", {})
        rows.append(
            (
                name,
                plain(mixed["words_outside_per_min"], 2),
                interval(mixed["ci"]["words_outside_per_min"], scale=1, digits=2),
                plain(change.get("difference"), 2),
                interval(change.get("ci"), sign="+", scale=1, digits=2),
                percent(mixed["wer"], 2),
                percent(mixed["deletion_rate"], 2),
                str(mixed["insertions"]),
            )
        )
    first = next(iter(found["systems"].values()))["mixed"]
    counts = f"{first['clips']} mixed recordings, {first['nonspeech_minutes']:.1f} min of non-speech in them."
    return f"{counts}\n\n{grid([header, *rows])}"


def details(mode: str, found: Mapping[str, Any]) -> str:
    """By source, the most frequent strings and the worst clips, of one mode."""
    parts = [f"## By source, {_title(mode)}\n\n{source_table(found)}\n"] if _has_clips(found) else []
    for name, system in found["systems"].items():
        if strings := system["top_strings"]:
            rows = [(_cell(string["text"]), str(string["clips"])) for string in strings]
            parts.append(f"## What {name} writes when nobody speaks\n\n{grid([('text', 'clips'), *rows])}\n")
        for kind, columns in (("nonspeech", ("words", "text")), ("speech", ("excess_errors", "reference", "text"))):
            if worst := system["worst"][kind]:
                rows = [(_cell(clip["clip"]), *(_cell(clip[column]) for column in columns)) for clip in worst]
                titles = ("clip", *(column.replace("_", " ") for column in columns))
                parts.append(f"### Worst of {name}: {kind.replace('non', 'non-')}\n\n{grid([titles, *rows])}\n")
    return "\n".join(parts)


def gates(found: Mapping[str, Any]) -> str:
    """How far the probability that nobody speaks can be trusted; nothing where no system tells one."""
    known = [(name, gate) for name, system in found["systems"].items() if (gate := system["gate"])]
    if not known:
        return ""
    rows = [
        (name, str(gate["clips"]), plain(gate["auroc"], 4), plain(gate["ece"], 3), _reliability(gate["bins"], "clips"))
        for name, gate in known
    ]
    moments = [
        (name, what, str(of["clips"]), f"{of['frames']} ({of['nonspeech_frames']})", plain(of["auroc"], 4),
         plain(of["ece"], 3), _reliability(of["bins"], "frames"))
        for name, gate in known
        if gate["frames"]
        for what, of in (("all", gate["frames"]), ("with both in them", gate["frames"]["inside"]))
        if of
    ]  # fmt: skip
    header = ("system", "clips", "AUROC", "ECE", "said: observed (clips), per tenth")
    return (
        f"\n## Gate: the probability that nobody speaks\n\n{grid([header, *rows])}\n\n"
        "By clip, speech against non-speech. ECE: mean distance between what is said and how often nobody speaks, in "
        "tenths.\n"
    ) + (_moments(moments) if moments else "")


def _moments(rows: Sequence[tuple[str, ...]]) -> str:
    header = (
        "system",
        "clips",
        "how many",
        "frames (non-speech)",
        "AUROC",
        "ECE",
        "said: observed (frames), per tenth",
    )
    return (
        f"\n{grid([header, *rows])}\n\nBy frame of 20 ms, of clips of which it is known when somebody speaks: "
        "non-speech, aligned speech, mixed recordings.\n"
    )


def _reliability(bins: Sequence[Mapping[str, Any]], unit: str) -> str:
    return ", ".join(f"{b['predicted']:.2f}: {b['observed']:.2f} ({b[unit]})" for b in bins)


def costs(by_mode: Mapping[str, Any]) -> str:
    """The cost of every system and mode; nothing where no time means anything."""
    rows = [
        (
            name,
            _title(mode),
            plain(cost["rtf"], 3),
            plain(cost["rtfx"]),
            plain(cost["latency_p50_s"], 2),
            plain(cost["latency_p95_s"], 2),
            "-" if cost["peak_rss_bytes"] is None else f"{cost['peak_rss_bytes'] / 2**20:.0f}",
            "yes" if cost["measured_alone"] else "no",
        )
        for mode, found in by_mode.items()
        for name, cost in ((name, system["cost"]) for name, system in found["systems"].items())
        if cost["rtf"] is not None
    ]
    if not rows:
        return ""
    header = ("system", "mode", "RTF", "RTFx", "latency p50 s", "p95 s", "peak memory MiB", "alone")
    return (
        f"\n## Cost\n\n{grid([header, *rows])}\n\nAlone: by `--measure-cost`, in a process of its own with no other "
        "beside it. Otherwise as seen in the run, where systems, shards and workers slow each other down.\n"
    )


def source_table(found: Mapping[str, Any]) -> str:
    """One row per source: text rate on non-speech, WER and missed clips on speech, of every system."""
    names = list(found["systems"])
    sources = list(dict.fromkeys(source for system in found["systems"].values() for source in system["by_source"]))
    header = ["source", "clips", *(f"{name}: {what}" for name in names for what in ("text, R %", "WER %", "missed %"))]
    rows = []
    for source in sources:
        at = [found["systems"][name]["by_source"].get(source, {}) for name in names]
        clips = max(sum(kind["clips"] for kind in strata.values()) for strata in at)
        cells: list[str] = []
        for strata in at:
            quiet, speech = strata.get("nonspeech"), strata.get("speech")
            cells.append(percent(quiet["hallucination_rate"]["r"]) if quiet else "-")
            cells += [percent(speech["wer"], 2), percent(speech["missed_speech_rate"], 2)] if speech else ["-", "-"]
        rows.append([source, str(clips), *cells])
    return grid([header, *rows])


def _cell(value: Any) -> str:
    """Text in one cell: no line breaks, no bars."""
    return " ".join(str(value).split()).replace("|", "\\|")


def _row(name: str, found: Mapping[str, Any]) -> tuple[str, ...]:
    system, change = found["systems"][name], found["differences"].get(name, {})
    quiet, speech, rate = system["nonspeech"], system["speech"], system["nonspeech"]["hallucination_rate"]
    wer_change = change.get("wer", {})
    return (
        name,
        percent(rate["r"]),
        interval(quiet["ci"]["r"]),
        percent(rate["f"]),
        percent(rate["d"]),
        plain(quiet["words_per_min"]),
        percent(speech["wer"], 2),
        interval(speech["ci"]["wer"]),
        percent(wer_change.get("difference"), 2, sign="+"),
        interval(wer_change.get("ci"), sign="+"),
        percent(speech["missed_speech_rate"], 2),
        percent(speech.get("newly_empty_rate"), 2),
        plain(system["cost"]["rtf"], 3),
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


def grid(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(lines)


def percent(rate: float | None, digits: int = 1, sign: str = "") -> str:
    return "-" if rate is None else f"{100 * rate:{sign}.{digits}f}"


def interval(ends: Sequence[float] | None, sign: str = "", *, scale: float = 100, digits: int = 1) -> str:
    return "-" if ends is None else " to ".join(f"{scale * end:{sign}.{digits}f}" for end in ends)


def plain(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
