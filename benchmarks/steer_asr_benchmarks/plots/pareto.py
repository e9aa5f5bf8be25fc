"""Text on non-speech against change in WER: what a system buys, and what it costs.

Down is less text (definition R, log axis), left is fewer word errors. A rate of zero has no place on a log axis: it
stands on a line of its own under it, with the upper end of its Wilson interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox

from steer_asr_benchmarks.plots.labels import Label, Line, place_labels
from steer_asr_benchmarks.plots.layout import Grid
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

RATES = tuple(digit * 10.0**power for power in range(-4, 3) for digit in (1, 2, 5))
"""Ticks of a log axis in per cent."""
WIDE_POINTS = 15.0
"""From here on changes in WER are drawn on an axis that is linear up to one point and logarithmic beyond."""
MIN_POINTS = 1.0
"""Changes that are smaller still are not blown up."""
CHANGES = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500)


@dataclass(frozen=True)
class Point:
    """One system in one mode. Rates in per cent, changes in points."""

    system: str
    rate: float
    rate_ends: tuple[float, float]
    count: int
    clips: int
    change: float
    change_ends: tuple[float, float] | None


def draw_pareto(report: Mapping[str, Any]) -> Figure:
    """One panel per decoding mode. Raises `NothingToDraw` where fewer than two systems have both numbers."""
    panels = {mode: points_of(found) for mode, found in report["by_mode"].items()}
    panels = {mode: points for mode, points in panels.items() if len(points) > 1}
    if not panels:
        raise NothingToDraw("it takes two systems, non-speech clips, and speech that counts in WER")
    grid = Grid(
        title=f"Text when nobody speaks, and what silencing it costs{model_name(report)}",
        lines=_explanation(report, panels),
        rows=1,
        columns=len(panels),
        panel_width_in=5.3,
        panel_height_in=4.7,
        left_in=0.95,
        right_in=0.25,
        bottom_in=0.75,
        between_in=0.3,
    )
    figure, by_name = grid.figure(), looks(systems_of(report))
    every = [point for points in panels.values() for point in points]
    for column, (mode, points) in enumerate(panels.items()):
        ax = grid.axes(figure, 0, column)
        ax.set_title(mode_name(mode))
        zero = _scale(ax, every, labelled=column == 0)
        _draw_points(ax, points, by_name, zero)
    return figure


def points_of(found: Mapping[str, Any]) -> list[Point]:
    """The systems of one mode that were measured on both axes. The first one's change is none."""
    first = next(iter(found["systems"]), None)
    points = []
    for name, system in found["systems"].items():
        quiet, change = system["nonspeech"], found["differences"].get(name, {}).get("wer")
        if name == first:
            change = {"difference": 0.0 if system["speech"]["wer"] is not None else None, "ci": None}
        rate = quiet["hallucination_rate"]["r"]
        if rate is None or change is None or change["difference"] is None:
            continue
        low, high = quiet["ci"]["r"]
        ends = change["ci"]
        points.append(
            Point(
                name,
                100 * rate,
                (100 * low, 100 * high),
                quiet["clips_with_text"],
                quiet["clips"],
                100 * change["difference"],
                None if ends is None else (100 * ends[0], 100 * ends[1]),
            )
        )
    return points


def front(points: Sequence[Point]) -> list[Point]:
    """Those that no other beats on both axes, from the fewest word errors to the least text."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point.change, point.rate)):
        if not best or point.rate < best[-1].rate:
            best.append(point)
    return best


def _scale(ax: Axes, points: Sequence[Point], *, labelled: bool) -> float:
    """Sets both axes for all panels alike; returns where a rate of zero stands."""
    lowest = min([point.rate_ends[0] for point in points if point.count] + [point.rate_ends[1] for point in points])
    lowest = min(lowest, 50.0) / 1.25
    zeros = any(point.count == 0 for point in points)
    zero = lowest / 2.2
    ax.set_yscale("log")
    ax.set_ylim(zero / 2.0 if zeros else lowest / 1.6, 170)
    ticks = [rate for rate in RATES if lowest <= rate <= 100]
    places = [zero, *ticks] if zeros else ticks
    ax.yaxis.set_major_locator(FixedLocator(places))
    ax.yaxis.set_major_formatter(FixedFormatter([*(["0"] if zeros else []), *(f"{rate:g} %" for rate in ticks)]))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.tick_params(axis="y", labelleft=labelled, length=0)
    ax.tick_params(axis="x", length=3)
    if labelled:
        ax.set_ylabel("non-speech clips with any text (R)")
    if zeros:
        ax.axhspan(ax.get_ylim()[0], lowest / 1.25, color="#f3f5f7", zorder=0)
    _scale_changes(ax, points)
    return zero


def _scale_changes(ax: Axes, points: Sequence[Point]) -> None:
    ends = [end for point in points for end in (point.change, *(point.change_ends or ()))]
    low, high = min(*ends, 0.0), max(*ends, 0.0)
    ax.set_xlabel("change in word error rate, points")
    ax.axvline(0, color=FAINT, linewidth=0.9, alpha=0.7, zorder=1)
    if high - low > WIDE_POINTS:
        ax.set_xscale("symlog", linthresh=1.0, linscale=0.6)
        ticks = [sign * change for sign in (-1, 1) for change in CHANGES]
        ax.set_xlim(min(-2.0, 2.2 * low), max(2.0, 2.2 * high))
        places = [tick for tick in sorted(set(ticks)) if ax.get_xlim()[0] < tick < ax.get_xlim()[1]]
        ax.xaxis.set_major_locator(FixedLocator(places))
        ax.xaxis.set_major_formatter(FixedFormatter([_signed(tick) for tick in places]))
        ax.xaxis.set_minor_locator(NullLocator())
        return
    room = max(high - low, MIN_POINTS)
    ax.set_xlim(low - 0.3 * room, high + 0.3 * room)
    ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], prune="both"))
    ax.xaxis.set_major_formatter(lambda tick, _: _signed(tick))


def _signed(tick: float) -> str:
    return "0" if abs(tick) < 1e-9 else f"{tick:+g}".replace("-", "\N{MINUS SIGN}")


def _draw_points(ax: Axes, points: Sequence[Point], by_name: Mapping[str, Look], zero: float) -> None:
    places = {point.system: (point.change, point.rate if point.count else zero) for point in points}
    best = [places[point.system] for point in front(points)]
    if len(best) > 1:
        ax.step(*zip(*best, strict=True), where="post", color=FAINT, linewidth=1, linestyle=(0, (1, 2)), zorder=1.2)
    lines: list[Line] = [(0, ax.get_ylim()[0], 0, ax.get_ylim()[1])]
    labels = []
    for point in points:
        look, (x, y) = by_name[point.system], places[point.system]
        bars = [(x, point.rate_ends[0] if point.count else y, x, point.rate_ends[1])]
        if point.change_ends is not None:
            bars.append((point.change_ends[0], y, point.change_ends[1], y))
        for x0, y0, x1, y1 in bars:
            ax.plot([x0, x1], [y0, y1], color=look.colour, linewidth=1.4, alpha=0.65, solid_capstyle="butt", zorder=2)
        face, edge = (look.colour, "white") if point.count else ("white", look.colour)
        ax.plot(
            x,
            y,
            look.marker,
            color=face,
            markeredgecolor=edge,
            markersize=10,
            markeredgewidth=0.9 if point.count else 1.6,
            zorder=3,
        )
        lines += bars
        text = shortened(point.system)
        if not point.count:
            text += f"\n0 of {point.clips}, up to {point.rate_ends[1]:.2g} %"
        labels.append(Label(x, y, text, look.ink))
    place_labels(ax, labels, lines, taken=[_mark_target(ax)])


def _mark_target(ax: Axes) -> Bbox:
    """An arrow into the corner where systems should be; returns the room it takes."""
    ax.annotate(
        "", (0.015, 0.02), (0.085, 0.105), xycoords="axes fraction", textcoords="axes fraction",
        arrowprops={"arrowstyle": "-|>", "color": INK, "linewidth": 1.4, "mutation_scale": 14},
    )  # fmt: skip
    ax.text(0.09, 0.105, "better", transform=ax.transAxes, fontsize=11, weight="bold", va="bottom", ha="left")
    return Bbox([(0, 0), (0.2, 0.17)]).transformed(ax.transAxes)


def _explanation(report: Mapping[str, Any], panels: Mapping[str, Sequence[Point]]) -> list[str]:
    clips = max(point.clips for points in panels.values() for point in points)
    first = shortened(systems_of(report)[0])
    lines = [f"{clips} non-speech clips. Change in WER against {first}. Lines: 95 % intervals."]
    if any(len(front(points)) > 1 for points in panels.values()):
        lines.append("Dotted: systems that no other beats on both axes.")
    return lines
