"""The picture of a pack's strength curve, for its model card."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

SIZE_IN = (8.0, 3.0)
BLUE, ORANGE, GREY = "#3b6ea8", "#c8702a", "#888888"


def draw_curve(calibration: Sequence[Mapping[str, Any]]) -> bytes:
    """SVG of two panels over strength: text where nobody speaks; words changed and speech newly empty, in percent.

    The same points give the same bytes. Needs matplotlib (extra: train).
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    points = sorted(calibration, key=lambda point: point["strength"])
    with matplotlib.rc_context({"svg.hashsalt": "steer-asr", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=SIZE_IN, layout="constrained", facecolor="white")
        canvas = FigureCanvasSVG(figure)
        silence, harm = figure.subplots(1, 2)
        _line(silence, points, "text_rate", BLUE, "any text on non-speech")
        _line(harm, points, "changed_words", ORANGE, "words changed on speech")
        _line(harm, points, "newly_empty_rate", GREY, "speech newly empty")
        silence.set_ylim(bottom=0)
        harm.set_ylim(0, max(1.0, harm.get_ylim()[1]))
        for panel, title in ((silence, "Where nobody speaks"), (harm, "On speech, against stock Whisper")):
            panel.set(title=title, xlabel="strength", ylabel="%")
            panel.grid(alpha=0.3)
            panel.legend(frameon=False)
        held = io.BytesIO()
        canvas.print_svg(held, metadata={"Date": None, "Creator": None})
    return held.getvalue()


def _line(panel: Any, points: Sequence[Mapping[str, Any]], key: str, colour: str, label: str) -> None:
    known = [(point["strength"], 100 * point[key]) for point in points if key in point]
    if known:
        (line,) = panel.plot(*zip(*known, strict=True), marker="o", markersize=4, color=colour, label=label)
        line.set_gid(label.replace(" ", "-"))
