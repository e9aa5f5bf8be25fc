"""Where things stand in a picture: a heading, a key under it, panels in rows and columns. Lengths are in inches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from steer_asr_benchmarks.plots.style import DPI, FAINT

EDGE_IN, TITLE_IN, LINE_IN, KEY_ROW_IN, PANEL_TITLE_IN = 0.2, 0.6, 0.2, 0.24, 0.45
KEY_HANDLE_IN, TITLE_PT, TEXT_PT = 0.75, 14.5, 11.0


def text_width_in(text: str, size_pt: float = TEXT_PT, weight: str = "normal") -> float:
    """Width of a line of text."""
    font = FontProperties(weight=weight)
    return float(TextPath((0, 0), text, size=size_pt, prop=font).get_extents().width) / 72


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A picture before it is drawn. Panels get wider than asked for when the title needs the room."""

    title: str
    lines: Sequence[str]
    """Explanations under the title."""
    rows: int
    columns: int
    panel_width_in: float
    panel_height_in: float
    left_in: float
    """Room for what stands left of the first column; the same for the others."""
    right_in: float
    bottom_in: float
    between_in: float
    """Between columns."""
    between_rows_in: float = 0.0
    key: Sequence[str] = ()
    """Names in the key."""

    def figure(self) -> Figure:
        """An empty picture with its heading."""
        figure = Figure(figsize=(self._width_in, self._height_in), dpi=DPI, facecolor="white")
        left, height = EDGE_IN / self._width_in, self._height_in
        figure.text(left, 1 - 0.3 / height, self.title, fontsize=TITLE_PT, weight="bold", va="center")
        explanation = "\n".join(self.lines)
        figure.text(left, 1 - 0.55 / height, explanation, fontsize=10.5, color=FAINT, va="top", linespacing=1.35)
        return figure

    def draw_key(self, figure: Figure, handles: Sequence[Artist], **options: Any) -> None:
        """The key, a handle for each of its names."""
        below_top_in = TITLE_IN + LINE_IN * len(self.lines) + 0.08
        figure.legend(
            handles=handles,
            labels=list(self.key),
            loc="upper left",
            bbox_to_anchor=(EDGE_IN / self._width_in, 1 - below_top_in / self._height_in),
            ncols=self._key_columns,
            borderaxespad=0,
            borderpad=0,
            columnspacing=1.6,
            handletextpad=0.5,
            frameon=False,
            **options,
        )

    def axes(self, figure: Figure, row: int, column: int) -> Axes:
        """A new panel."""
        left_in = self.left_in + column * (self._panel_width_in + self.between_in)
        bottom_in = self.bottom_in + (self.rows - 1 - row) * (self.panel_height_in + self.between_rows_in)
        width, height = self._width_in, self._height_in
        return figure.add_axes(
            (left_in / width, bottom_in / height, self._panel_width_in / width, self.panel_height_in / height)
        )

    @property
    def _width_in(self) -> float:
        asked = self._margins_in + self.columns * self.panel_width_in
        return max(asked, 2 * EDGE_IN + text_width_in(self.title, TITLE_PT, weight="bold"))

    @property
    def _margins_in(self) -> float:
        return self.left_in + self.right_in + (self.columns - 1) * self.between_in

    @property
    def _panel_width_in(self) -> float:
        return (self._width_in - self._margins_in) / self.columns

    @property
    def _key_columns(self) -> int:
        widest_in = KEY_HANDLE_IN + max(map(text_width_in, self.key))
        return max(1, min(len(self.key), int((self._width_in - 2 * EDGE_IN) / widest_in)))

    @property
    def _height_in(self) -> float:
        key_in = 0.1 + KEY_ROW_IN * ceil(len(self.key) / self._key_columns) if self.key else 0.0
        panels_in = self.rows * self.panel_height_in + (self.rows - 1) * self.between_rows_in
        return TITLE_IN + LINE_IN * len(self.lines) + key_in + PANEL_TITLE_IN + panels_in + self.bottom_in
