"""Text on non-speech by source: one column of bars per system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from steer_asr_benchmarks.plots.layout import Grid, text_width_in
from steer_asr_benchmarks.plots.style import (
    FAINT,
    INK,
    Look,
    NothingToDraw,
    looks,
    mode_name,
    model_name,
    shortened,
    systems_of,
)

MAX_COLUMNS, MAX_SOURCES = 5, 40
ROW_IN = 0.34
BARS = 0.76
"""Share of a source's row that bars take."""


def draw_by_source(report: Mapping[str, Any]) -> Figure:
    """Sources with most clips first. Raises `NothingToDraw` when the report knows of no non-speech source."""
    by_mode = report["by_mode"]
    clips = _clips_by_source(by_mode)
    if not clips:
        raise NothingToDraw("no source has non-speech clips")
    sources = sorted(clips, key=lambda source: (-clips[source], source))[:MAX_SOURCES]
    systems = systems_of(report)
    columns = min(len(systems), MAX_COLUMNS)
    grid = Grid(
        title=f"Non-speech clips with any text, by source{model_name(report)}",
        lines=[f"Definition R; thin lines: 95 % intervals. Sources by number of clips{_left_out(clips, sources)}."],
        key=[mode_name(mode) for mode in by_mode] if len(by_mode) > 1 else (),
        rows=ceil(len(systems) / columns),
        columns=columns,
        panel_width_in=2.0,
        panel_height_in=ROW_IN * len(sources),
        left_in=0.35 + max(text_width_in(_tick(source, clips)) for source in sources),
        right_in=0.45,
        bottom_in=0.5,
        between_in=0.5,
        between_rows_in=0.8,
    )
    figure = grid.figure()
    if grid.key:
        grid.draw_key(figure, [Patch(color=_shade(FAINT, i)) for i in range(len(by_mode))], handlelength=1.2)
    for i, (name, look) in enumerate(looks(systems).items()):
        row, column = divmod(i, columns)
        ax = grid.axes(figure, row, column)
        ax.set_title(shortened(name), color=look.ink, weight="bold", fontsize=11.5)
        _draw_bars(ax, [found["systems"].get(name) for found in by_mode.values()], sources, look)
        ax.set_yticks(range(len(sources)), [_tick(source, clips) for source in sources] if column == 0 else [])
    return figure


def _draw_bars(ax: Axes, systems: Sequence[Mapping[str, Any] | None], sources: Sequence[str], look: Look) -> None:
    """One bar per mode in each source's row."""
    thick = BARS / len(systems)
    for i, system in enumerate(systems):
        shade = _shade(look.colour, i)
        for row, source in enumerate(sources):
            quiet = (system or {}).get("by_source", {}).get(source, {}).get("nonspeech")
            if not quiet or quiet["hallucination_rate"]["r"] is None:
                continue
            y = row - BARS / 2 + thick * (i + 0.5)
            ax.barh(y, 100 * quiet["hallucination_rate"]["r"], 0.88 * thick, color=shade, linewidth=0)
            low, high = quiet["ci"]["r"]
            ax.plot([100 * low, 100 * high], [y, y], color=INK, linewidth=0.9, alpha=0.75, solid_capstyle="butt")
    ax.set_xlim(0, 100)
    ax.set_ylim(len(sources) - 0.5, -0.5)
    ax.set_xticks([0, 50, 100], ["0", "50", "100 %"])
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", length=3)
    ax.grid(axis="y", visible=False)
    ax.spines["left"].set_color(FAINT)


def _shade(colour: str, i: int) -> tuple[float, float, float]:
    """Lighter for every further mode."""
    strength = (0.8, 0.4, 0.25)[min(i, 2)]
    red, green, blue = (1 - strength * (1 - part) for part in to_rgb(colour))
    return red, green, blue


def _clips_by_source(by_mode: Mapping[str, Any]) -> dict[str, int]:
    clips: dict[str, int] = {}
    for found in by_mode.values():
        for system in found["systems"].values():
            for source, kinds in system.get("by_source", {}).items():
                n = kinds.get("nonspeech", {}).get("clips", 0)
                if n:
                    clips[source] = max(n, clips.get(source, 0))
    return clips


def _tick(source: str, clips: Mapping[str, int]) -> str:
    return f"{source or '(no name)'}  {clips[source]}"


def _left_out(clips: Mapping[str, int], sources: Sequence[str]) -> str:
    return f"; {len(clips) - len(sources)} more are left out" if len(clips) > len(sources) else ""
