"""Datasets in words, for `steer-asr-bench datasets`."""

from __future__ import annotations

from collections import defaultdict
from math import fsum

from steer_asr_benchmarks.datasets.durations import measured
from steer_asr_benchmarks.datasets.layouts import LAYOUTS
from steer_asr_benchmarks.datasets.source import Contents

HEADER = ("kind", "category", "split", "clips", "minutes")


def describe_layouts() -> str:
    """All layouts: how each is recognised, what of it is speech, licence, home page."""
    return "\n\n".join(
        f"{layout.title} ({layout.name})\n"
        + "\n".join(
            f"  {what:11} {text}"
            for what, text in (
                ("looks like", layout.looks_like),
                ("holds", layout.holds),
                ("licence", layout.licence),
                ("home", layout.home),
            )
            if text
        )
        for layout in LAYOUTS
    )


def describe_contents(path: str, contents: Contents) -> str:
    """Which layout it is, clips and minutes by kind, category and split, and what was left out. Opens every file."""
    clips = measured([clip for clip in contents.clips if clip.audio_path.is_file()])
    durations_s: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for clip in clips:
        durations_s[clip.kind, clip.category or "-", clip.split or "-"].append(clip.duration_s)
    rows = [(*key, str(len(found)), f"{fsum(found) / 60:.1f}") for key, found in sorted(durations_s.items())]
    title = f"{contents.layout.title} ({contents.layout.name})" if contents.layout else "manifest"
    minutes = fsum(clip.duration_s for clip in clips) / 60
    notes = [f"left out: {n} ({reason})" for reason, n in contents.reasons().items()]
    if absent := len(contents.clips) - len(clips):
        notes.append(f"not on this disk: {absent} of {len(contents.clips)} clips; run needs all that it is given")
    return "\n".join([f"{path}: {title}, {len(clips)} clips, {minutes:.1f} min", *_table([HEADER, *rows]), *notes])


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    """Columns of equal width, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADER))]
    return [
        "  ".join(
            cell.rjust(width) if i >= 3 else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
