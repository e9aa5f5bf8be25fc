"""The comparison as a table for a terminal.

print(render_table(comparisons, width=120))
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from steer_asr.transcription import WindowReport
from steer_asr_benchmarks.demo.compare import Comparison, dropped_by_rule

HEADINGS = ("clip", "stock Whisper", "steered", "nobody speaks", "edited", "strongest features")
NARROW = (14, 8, 6, 10)
"""Widths of all columns but the two texts, which share the rest."""
MIN_TEXT_WIDTH = 18
GAP = "  "
MAX_TEXT = 240
TOP_FEATURES = 3
NOTHING = "(nothing)"
RULE_MARK = "†"
RULE_NOTE = f"{RULE_MARK} some of this text would have been dropped by faster-whisper's default no-speech rule"


def render_table(comparisons: Sequence[Comparison], *, width: int) -> str:
    """One row a clip, cells wrapped; `width` is in characters (wider when the text columns need it)."""
    text_width = max(MIN_TEXT_WIDTH, (width - sum(NARROW) - len(GAP) * (len(HEADINGS) - 1)) // 2)
    widths = (NARROW[0], text_width, text_width, *NARROW[1:])
    lines = [*_wrapped(HEADINGS, widths), GAP.join("-" * w for w in widths)]
    for comparison in comparisons:
        lines += [*_wrapped(_cells(comparison), widths), ""]
    if any(dropped_by_rule(comparison.stock) for comparison in comparisons):
        lines.append(RULE_NOTE)
    return "\n".join(lines).rstrip()


def _cells(comparison: Comparison) -> tuple[str, ...]:
    stock = shortened(comparison.stock_text)
    return (
        comparison.clip.label,
        f"{stock} {RULE_MARK}" if dropped_by_rule(comparison.stock) else stock,
        shortened(comparison.steered_text),
        ", ".join(probability(window) for window in comparison.report.windows),
        f"{comparison.edit_weights.mean():.0%}",
        strongest_features(comparison),
    )


def _wrapped(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    columns = [textwrap.wrap(cell, width) or [""] for cell, width in zip(cells, widths, strict=True)]
    height = max(map(len, columns))
    padded = [column + [""] * (height - len(column)) for column in columns]
    return [
        GAP.join(part.ljust(width) for part, width in zip(parts, widths, strict=True)).rstrip()
        for parts in zip(*padded, strict=True)
    ]


def shortened(text: str, limit: int = MAX_TEXT) -> str:
    """The text as a cell shows it: loops are cut, and emptiness has a name."""
    if not text:
        return NOTHING
    return text if len(text) <= limit else f"{text[:limit].rstrip()} … ({len(text)} characters)"


def probability(window: WindowReport) -> str:
    """The gate's probability that nobody speaks in a window; a dash for packs without a gate."""
    return "–" if math.isnan(window.nobody_speaks) else f"{window.nobody_speaks:.2f}"


def strongest_features(comparison: Comparison) -> str:
    """Ids of the features whose edits were largest, in the window that was edited most."""
    window = comparison.most_edited_window
    features = window.features[:TOP_FEATURES] if window else ()
    return ", ".join(str(activity.feature) for activity in features) or "none"
