"""Names beside markers: each at the best of some places around its marker; a thin line leads to those further off.

Places are tried in a fixed order, so that the same numbers give the same picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

GAPS_PT = (3, 8, 15, 24, 36, 50, 70, 95, 125, 160)
"""Room between a marker and its label."""
DIRECTIONS = ((1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1), (0, 1), (0, -1), (-1, 0))
LEADER_FROM_PT = 12
MARKER_PT = 10.0
LINE_PT = 2.0
MISLEADING = 40.0
"""What a label that seems to belong to another marker costs; a point of distance and a square pixel covered cost 1."""


@dataclass(frozen=True)
class Label:
    """Text for the marker at (x, y), in data coordinates."""

    x: float
    y: float
    text: str
    colour: str


Line = tuple[float, float, float, float]
"""A straight line that labels should not cover: x0, y0, x1, y1 in data coordinates, level or upright."""


def place_labels(
    ax: Axes, labels: Sequence[Label], lines: Sequence[Line] = (), taken: Sequence[Bbox] = ()
) -> list[Bbox]:
    """Draws labels that overlap neither each other nor markers, `lines` or the boxes `taken`, while there is room.

    Limits and place of `ax` must be final. Returns the labels' boxes; boxes are in pixels of the figure.
    """
    figure = ax.get_figure(root=True)
    assert isinstance(figure, Figure)
    renderer = FigureCanvasAgg(figure).get_renderer()
    pixel = figure.dpi / 72
    places = [ax.transData.transform((label.x, label.y)) for label in labels]
    markers = [_box(place, np.full(2, MARKER_PT * pixel)) for place in places]
    bars = [Bbox(ax.transData.transform([line[:2], line[2:]])).padded(LINE_PT * pixel / 2) for line in lines]
    boxes: list[Bbox] = []
    for i, (label, place) in enumerate(zip(labels, places, strict=True)):
        text = ax.annotate(
            label.text, (label.x, label.y), (0, 0), textcoords="offset points", ha="center", va="center",
            color=label.colour, fontsize=11, linespacing=1.1, annotation_clip=False,
        )  # fmt: skip
        room = _Room(ax.get_window_extent(renderer), [*taken, *markers, *bars, *boxes], markers[:i] + markers[i + 1 :])
        size = np.array(text.get_window_extent(renderer).size)
        found = min(_candidates(place, size, pixel), key=lambda candidate: room.cost(candidate, place))
        text.set_position(tuple((_centre(found.box) - place) / pixel))
        text.set_multialignment(("center", "left", "right")[found.side])  # -1, on the left, is the last of them
        if found.gap_pt >= LEADER_FROM_PT:
            ends = ax.transData.inverted().transform([place, _nearest(found.box, place)])
            ax.plot(*ends.T, color=label.colour, linewidth=0.7, zorder=1.5)
        boxes.append(found.box)
    return boxes


@dataclass(frozen=True)
class _Candidate:
    """A place for a label: its box, how far from the marker, and on which side (-1 left, 1 right, 0 neither)."""

    box: Bbox
    gap_pt: float
    side: int


@dataclass(frozen=True)
class _Room:
    """What is there already."""

    inside: Bbox
    taken: Sequence[Bbox]
    others: Sequence[Bbox]
    """Markers of other labels."""

    def cost(self, candidate: _Candidate, place: np.ndarray) -> float:
        """How bad a place is: what it covers, how far off it is, how many other markers it seems to belong to."""
        box = candidate.box
        outside = box.width * box.height - _overlap(box, self.inside)
        covered = sum(_overlap(box, other) for other in self.taken) + 10 * max(0.0, outside)
        return (
            covered
            + candidate.gap_pt
            + MISLEADING * sum(self._misleads(candidate, place, other) for other in self.others)
        )

    def _misleads(self, candidate: _Candidate, place: np.ndarray, other: Bbox) -> bool:
        """Another marker stands nearer than the label's own, or under the line between them."""
        end = _nearest(candidate.box, place)
        if candidate.gap_pt >= LEADER_FROM_PT:
            return any(other.contains(*(place + share * (end - place))) for share in np.linspace(0.15, 1, 20))
        centre = _centre(other)
        return np.hypot(*(_nearest(candidate.box, centre) - centre)) < np.hypot(*(end - place))


def _candidates(place: np.ndarray, size: np.ndarray, pixel: float) -> Iterator[_Candidate]:
    for gap_pt in GAPS_PT:
        for direction in DIRECTIONS:
            away = np.array(direction) * ((gap_pt + MARKER_PT / 2) * pixel + size / 2)
            yield _Candidate(_box(place + away, size), gap_pt, direction[0])


def _box(centre: np.ndarray, size: np.ndarray) -> Bbox:
    return Bbox([centre - size / 2, centre + size / 2])


def _centre(box: Bbox) -> np.ndarray:
    return (np.array(box.p0) + np.array(box.p1)) / 2


def _overlap(a: Bbox, b: Bbox) -> float:
    width, height = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
    return max(0.0, width) * max(0.0, height)


def _nearest(box: Bbox, place: np.ndarray) -> np.ndarray:
    """The point of `box` that is nearest to `place`."""
    return np.clip(place, box.p0, box.p1)
