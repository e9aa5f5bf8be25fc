"""Pictures of a report: drawn once, shown as SVG inside an HTML page (light and dark) or as a PNG beside Markdown.

    picture = Picture("quality", "Explained variance by layer", "...", lines)
    svg, png = render(picture)           # text and axes of the SVG in the colour of the page's text

Colours are Paul Tol's "bright" scheme, which colour-blind readers can tell apart; line styles and markers say the same
once more. They are of middle lightness, so that one picture serves light and dark pages.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

INK = "#010203"
"""Black enough for a PNG; in SVG it stands for the colour of the page's text."""
BLUE, RED, GREEN, YELLOW, CYAN, PURPLE, GREY = (
    *("#4477aa", "#ee6677", "#228833", "#b8a228", "#4eb3d3", "#aa3377", "#8a8a8a"),
)
COLOURS = (BLUE, RED, GREEN, PURPLE, YELLOW, CYAN, GREY)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STYLES = ("-", "--", ":", "-.")
PNG_DPI = 110


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture."""

    name: str
    """Of its file, without the suffix."""
    caption: str
    alt: str
    """What it shows, for people who do not see it."""
    draw: Callable[[Any], None]
    """Draws into an empty matplotlib figure."""
    size: tuple[float, float] = (7.0, 3.4)
    """Inches."""


def render(picture: Picture) -> tuple[str, bytes]:
    """(inline SVG, PNG on white). Ids in the SVG carry the picture's name, so that several can stand in one page."""
    import matplotlib

    svg, png = io.StringIO(), io.BytesIO()
    with matplotlib.rc_context(_settings(picture.name)):
        figure = _figure(picture)
        figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        figure.savefig(png, format="png", dpi=PNG_DPI, facecolor="white", metadata={"Software": None})
    return _inline(svg.getvalue(), picture), png.getvalue()


def _inline(svg: str, picture: Picture) -> str:
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{picture.name}-', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{picture.name}-", svg)
    svg = re.sub(r"(\d+\.\d{2})\d+", r"\1", svg)  # a hundredth of a point is finer than any screen
    label = f'role="img" aria-label="{_attribute(picture.alt)}"'
    return re.sub(r'<svg\b[^>]*?viewBox="([^"]*)"[^>]*>', rf'<svg viewBox="\1" {label}>', svg, count=1)


def _figure(picture: Picture) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=picture.size, layout="constrained")
    FigureCanvasAgg(figure)
    picture.draw(figure)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # the layout is done: it would be made again for every format
    return figure


def _settings(name: str) -> Any:
    names = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "axes.titlecolor")
    sizes = {"font.size": 9, "axes.titlesize": 9, "legend.fontsize": 8, "legend.frameon": False}
    plain = {"axes.spines.top": False, "axes.spines.right": False, "axes.facecolor": "none"}
    text = {"font.family": "sans-serif", "text.parse_math": False, "svg.fonttype": "none", "svg.hashsalt": name}
    return dict.fromkeys(names, INK) | sizes | plain | text


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace("\\", "\\\\")


@dataclass(frozen=True)
class Line:
    """One line over layers (or any x): None where there is no value."""

    name: str
    y: Sequence[float | None]
    colour: str = BLUE
    style: str = "-"
    marker: str = "o"


def layer_lines(
    axes: Any,
    points: Sequence[str],
    lines: Sequence[Line],
    *,
    ylabel: str,
    title: str = "",
    floor: float | None = None,
    ceiling: float | None = None,
    legend: bool = True,
) -> None:
    """Lines over layers, one tick per layer; `points` are the short names."""
    x = np.arange(len(points))
    for line in lines:
        y = np.array([np.nan if value is None else value for value in line.y], float)
        if not np.isnan(y).all():
            there = ~np.isnan(y)
            axes.plot(
                x[there], y[there], line.style, color=line.colour, marker=line.marker, markersize=4, label=line.name
            )
    axes.set_xticks(x, points)
    axes.set_xlim(-0.3, len(points) - 0.7)
    axes.set(xlabel="layer", ylabel=ylabel, title=title)
    if floor is not None or ceiling is not None:
        axes.set_ylim(floor, ceiling)
    axes.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.6)
    if legend and axes.get_legend_handles_labels()[0]:
        axes.legend()


def heatmap(
    figure: Any,
    axes: Any,
    values: Sequence[Sequence[float | None]],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    label: str,
    ceiling: float | None = 1.0,
    write: bool = True,
) -> None:
    """A table of colours with the numbers in it; None stays empty."""
    grid = np.array([[np.nan if value is None else value for value in row] for row in values], float)
    top = float(np.nanmax(grid)) if ceiling is None and not np.isnan(grid).all() else ceiling or 1.0
    mesh = axes.pcolormesh(np.ma.masked_invalid(grid), cmap="viridis", vmin=0, vmax=max(top, 1e-9))
    axes.set_xticks(np.arange(len(columns)) + 0.5, columns)
    axes.set_yticks(np.arange(len(rows)) + 0.5, rows)
    axes.invert_yaxis()
    axes.tick_params(length=0)
    for (i, j), value in np.ndenumerate(grid) if write else ():
        if not np.isnan(value):
            dark = value > 0.6 * top
            text = f"{value:.2f}".lstrip("0") if value < 1 else f"{value:.0f}"
            axes.text(
                j + 0.5, i + 0.5, text, ha="center", va="center", fontsize=7, color="#111111" if dark else "#eeeeee"
            )
    bar = figure.colorbar(mesh, ax=axes, fraction=0.04, pad=0.02)
    bar.solids.set_rasterized(False)
    bar.set_label(label)
    bar.outline.set_visible(False)


def layer_colours(n: int) -> list[Any]:
    """One per layer: `COLOURS` as long as they last, then a rainbow."""
    if n <= len(COLOURS):
        return list(COLOURS[:n])
    from matplotlib import colormaps

    return [colormaps["turbo"](x) for x in np.linspace(0.12, 0.88, n)]


def curves(
    axes: Any, lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, colours: Sequence[Any], style: str = "-"
) -> None:
    """Named (x, y) curves, each with its own colour and marker."""
    for i, (name, (x, y)) in enumerate(lines.items()):
        axes.plot(x, y, style, color=colours[i], marker=MARKERS[i % len(MARKERS)], markersize=3.5, label=name, lw=1.2)
