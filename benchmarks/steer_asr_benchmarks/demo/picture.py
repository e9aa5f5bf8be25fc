"""The picture: spectrogram, edit and both transcripts of a few clips, each on one time axis.

draw([long_pause, frogs], LIGHT, heading="Whisper tiny.en, stock and steered", path=Path("demo.png"))
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from faster_whisper.transcribe import Segment
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpecFromSubplotSpec, SubplotSpec
from matplotlib.patches import Rectangle

from steer_asr.steering import FRAME_S
from steer_asr_benchmarks.demo.compare import Comparison
from steer_asr_benchmarks.demo.table import NOTHING, probability

DPI = 160
WIDTH_IN, LEFT_IN, RIGHT_IN = 11.0, 0.85, 0.35
HEAD_IN, FOOT_IN, CLIP_IN, BETWEEN_IN = 1.5, 0.5, 3.7, 0.75
PLOT_IN = WIDTH_IN - LEFT_IN - RIGHT_IN
CHARACTER_IN = 0.083
"""Mean width of a character of a transcript."""
MAX_LINES, MIN_TEXT_IN, GAP_IN = 3, 1.7, 0.15
FIRST_LINE_PT, LINE_PT = 14.0, 13.5
BAR_BOTTOM, BAR_HEIGHT = 0.83, 0.12
KEY = (
    "edit: the share of the edit that each 20-ms frame gets, from 0 to 1; a dashed line starts the next window.",
    "Bars: the time that Whisper gives each text; hatched where only stock Whisper wrote it.",
)


@dataclass(frozen=True)
class Theme:
    """Colours of one rendering. The hues are from Okabe and Ito's set for colour-blind readers."""

    paper: str
    ink: str
    faint: str
    kept: str
    removed: str
    edit: str


LIGHT = Theme(paper="#ffffff", ink="#1b1f24", faint="#59626d", kept="#00609a", removed="#b04300", edit="#d55e00")
DARK = Theme(paper="#14181d", ink="#e8ebee", faint="#a3adb8", kept="#6bc0f0", removed="#ff9c5f", edit="#f0762b")
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that the picture is the same everywhere
    "font.size": 10,
    "hatch.linewidth": 1.2,
}


def draw(comparisons: Sequence[Comparison], theme: Theme, *, heading: str, kind: str) -> bytes:
    """The picture as a file of some kind ("png", "webp", ...), with one block per clip."""
    ink: dict[Any, str] = dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), theme.ink)
    ink |= {"axes.edgecolor": theme.faint, "axes.facecolor": theme.paper, "hatch.color": theme.removed}
    with mpl.rc_context(STYLE | ink):
        height = HEAD_IN + FOOT_IN + CLIP_IN * len(comparisons) + BETWEEN_IN * (len(comparisons) - 1)
        figure = Figure(figsize=(WIDTH_IN, height), facecolor=theme.paper)
        figure.text(LEFT_IN / WIDTH_IN, 1 - 0.35 / height, heading, fontsize=15, weight="bold", va="center")
        figure.text(LEFT_IN / WIDTH_IN, 1 - 0.58 / height, "\n".join(KEY), fontsize=9.5, color=theme.faint, va="top",
                    linespacing=1.4)  # fmt: skip
        grid = figure.add_gridspec(
            len(comparisons),
            left=LEFT_IN / WIDTH_IN,
            right=1 - RIGHT_IN / WIDTH_IN,
            top=1 - HEAD_IN / height,
            bottom=FOOT_IN / height,
            hspace=BETWEEN_IN / CLIP_IN,
        )
        for i, comparison in enumerate(comparisons):
            _draw_clip(figure, grid[i, 0], comparison, theme)
        drawn = io.BytesIO()
        figure.savefig(drawn, format=kind, dpi=DPI, facecolor=theme.paper)
        return drawn.getvalue()


def _draw_clip(figure: Figure, cell: SubplotSpec, comparison: Comparison, theme: Theme) -> None:
    rows = GridSpecFromSubplotSpec(4, 1, cell, height_ratios=(1.3, 0.45, 0.9, 0.9), hspace=0.1)
    axes = [figure.add_subplot(rows[i, 0]) for i in range(4)]
    names = ("log-mel", "edit", "stock", "steered")
    for ax, name in zip(axes, names, strict=True):
        ax.set_xlim(0, comparison.duration_s)
        ax.spines[["top", "left", "right"]].set_visible(False)
        ax.set_yticks([])
        ax.text(-0.1 / PLOT_IN, 0.5, name, transform=ax.transAxes, ha="right", va="center", color=theme.faint)
    for ax in axes[:3]:
        ax.tick_params(bottom=False, labelbottom=False)
    _draw_spectrogram(axes[0], comparison, theme)
    _draw_edit(axes[1], comparison, theme)
    _draw_transcript(axes[2], comparison.stock, comparison, theme)
    _draw_transcript(axes[3], comparison.steered, comparison, theme)
    axes[2].spines["bottom"].set_color(to_rgba(theme.faint, 0.35))
    axes[3].tick_params(axis="x", color=theme.faint, labelcolor=theme.faint)
    axes[3].set_xlabel("seconds", color=theme.faint, labelpad=2)


def _draw_spectrogram(ax: Axes, comparison: Comparison, theme: Theme) -> None:
    low, high = np.percentile(comparison.mel, (2, 99.8))
    extent = (0, comparison.duration_s, 0, len(comparison.mel))
    ax.imshow(comparison.mel, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=low, vmax=high)
    ax.set_xlim(0, comparison.duration_s)
    ax.set_title(comparison.clip.label, loc="left", fontsize=12.5, weight="bold", pad=7)
    spoken = ",  ".join(
        f"{probability(window)} ({window.start_s:.0f}–{window.end_s:.0f} s)" for window in comparison.report.windows
    )
    ax.set_title(f"probability that nobody speaks:  {spoken}", loc="right", fontsize=9.5, color=theme.faint, pad=7)


def _draw_edit(ax: Axes, comparison: Comparison, theme: Theme) -> None:
    weights = comparison.edit_weights
    edges = np.append(np.arange(len(weights)) * FRAME_S, comparison.duration_s)
    ax.stairs(weights, edges, fill=True, color=theme.edit, linewidth=0)
    ax.set_ylim(0, 1.02)
    ax.yaxis.tick_right()
    ax.set_yticks([0, 1])
    ax.tick_params(axis="y", labelsize=8, length=0, pad=3, labelcolor=theme.faint)
    for window in comparison.report.windows[1:]:
        ax.axvline(window.start_s, color=theme.ink, linewidth=1, linestyle=(0, (2, 2)))


def _draw_transcript(ax: Axes, segments: Sequence[Segment], comparison: Comparison, theme: Theme) -> None:
    """A bar for the time of each segment, with its text under it."""
    ax.set_ylim(0, 1)
    written = [s for s in segments if s.text.strip() and s.start < comparison.duration_s]
    for segment in written:
        length = min(segment.end, comparison.duration_s) - segment.start
        bar = Rectangle((segment.start, BAR_BOTTOM), length, BAR_HEIGHT)
        if comparison.only_in_stock(segment):
            bar.set(facecolor="none", edgecolor=theme.removed, hatch="/////", linewidth=0.8)
        else:
            bar.set(facecolor=theme.kept, edgecolor=theme.paper, linewidth=1.5)
        ax.add_patch(bar)
    for block in text_blocks(written, comparison):
        _write(ax, block.start_s, block.lines, color=theme.removed if block.removed else theme.kept)
    if not written:
        _write(ax, 0, [NOTHING], color=theme.faint, style="italic")


@dataclass(frozen=True)
class Block:
    """Text that is set in one piece."""

    start_s: float
    lines: list[str]
    removed: bool


def text_blocks(segments: Sequence[Segment], comparison: Comparison) -> list[Block]:
    """The texts of segments, each as wide as the room up to the next one; one that does not fit takes that one in."""
    in_per_s = PLOT_IN / comparison.duration_s
    last_start_s = max(0.0, comparison.duration_s - MIN_TEXT_IN / in_per_s)
    waiting = [(min(s.start, last_start_s), s.text.strip(), comparison.only_in_stock(s)) for s in segments]
    blocks: list[Block] = []
    while waiting:
        start_s, text, removed = waiting.pop(0)
        while True:
            room_s = (waiting[0][0] if waiting else comparison.duration_s) - start_s
            width = max(8, int((room_s * in_per_s - GAP_IN) / CHARACTER_IN))
            if len(textwrap.wrap(text, width)) <= MAX_LINES or not waiting or waiting[0][2] != removed:
                break
            text += f" {waiting.pop(0)[1]}"
        blocks.append(Block(start_s, textwrap.wrap(text, width, max_lines=MAX_LINES, placeholder=" …"), removed))
    return blocks


def _write(ax: Axes, start_s: float, lines: Sequence[str], **style: Any) -> None:
    """Lines of text under the bars, on baselines of their own: a line without tall letters stands no higher."""
    for i, line in enumerate(lines):
        below = -(FIRST_LINE_PT + LINE_PT * i)
        ax.annotate(line, (start_s, BAR_BOTTOM), (0, below), textcoords="offset points", parse_math=False, **style)
