"""Rates against SNR and against duration: one row per rate, one column per mode, one line per system."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from steer_asr_benchmarks.plots.layout import Grid
from steer_asr_benchmarks.plots.style import (
    Look,
    NothingToDraw,
    looks,
    mode_name,
    model_name,
    shortened,
    systems_of,
)
from steer_asr_benchmarks.stats import wilson

MIN_PANEL_IN, BUCKET_IN = 3.4, 0.75
MAX_WITH_INTERVALS = 6
"""More systems than that hide each other behind their intervals."""
DODGE = 0.5
"""Share of the way to the next bucket over which the systems of one are spread."""

Found = tuple[float, tuple[float, float] | None, int]
"""A rate, its interval, its number of clips."""


@dataclass(frozen=True)
class Rate:
    """What a row of panels shows."""

    name: str
    """In the title."""
    label: str
    read: Callable[[Mapping[str, Any]], Found | None]


def _text(bucket: Mapping[str, Any]) -> Found | None:
    quiet = bucket.get("nonspeech")
    if not quiet or quiet["hallucination_rate"]["r"] is None:
        return None
    return quiet["hallucination_rate"]["r"], quiet["ci"]["r"], quiet["clips"]


def _missed(bucket: Mapping[str, Any]) -> Found | None:
    speech = bucket.get("speech")
    if not speech or speech["missed_speech_rate"] is None:
        return None
    return speech["missed_speech_rate"], wilson(speech["missed"], speech["clips"]), speech["clips"]


def _wer(bucket: Mapping[str, Any]) -> Found | None:
    speech = bucket.get("speech")
    if not speech or speech["wer"] is None:
        return None
    return speech["wer"], speech["ci"]["wer"], speech["wer_clips"]


TEXT = Rate("text", "non-speech clips\nwith any text (R), %", _text)
MISSED = Rate("lost speech", "speech clips\nwithout a word, %", _missed)
WER = Rate("WER", "word error rate, %", _wer)


def draw_snr(report: Mapping[str, Any]) -> Figure:
    """Text, missed speech and WER against SNR. Raises `NothingToDraw` where no clip has one."""
    return _draw(report, "by_snr", (TEXT, MISSED, WER), "signal-to-noise ratio")


def draw_duration(report: Mapping[str, Any]) -> Figure:
    """Text and missed speech against duration. Raises `NothingToDraw` where the report says nothing about it."""
    return _draw(report, "by_duration", (TEXT, MISSED), "duration")


def _draw(report: Mapping[str, Any], key: str, rates: Sequence[Rate], axis: str) -> Figure:
    by_mode, systems = report["by_mode"], systems_of(report)
    strata = {
        mode: {name: found["systems"].get(name, {}).get(key) or {} for name in systems}
        for mode, found in by_mode.items()
    }
    found = [bucket for by_system in strata.values() for buckets in by_system.values() for bucket in buckets.items()]
    if not found:
        raise NothingToDraw(f"the report has no {key}")
    rates = [rate for rate in rates if any(rate.read(bucket) for _, bucket in found)]
    if not rates:
        raise NothingToDraw(f"{key} holds no clips")
    buckets = list(dict.fromkeys(name for name, _ in found))
    grid = _grid(report, rates, axis, buckets)
    figure, by_name = grid.figure(), looks(systems)
    handles = [Line2D([], [], color=look.colour, marker=look.marker, markersize=7) for look in by_name.values()]
    grid.draw_key(figure, handles)
    for row, rate in enumerate(rates):
        panels = [grid.axes(figure, row, column) for column in range(len(by_mode))]
        for ax, (mode, by_system) in zip(panels, strata.items(), strict=True):
            _draw_lines(ax, by_system, rate, buckets, by_name)
            ax.set_title(mode_name(mode) if row == 0 else "")
            ax.set_xlabel(axis if row == len(rates) - 1 else "")
            ax.tick_params(labelleft=ax is panels[0])
        panels[0].set_ylabel(rate.label)
        top = max(ax.get_ylim()[1] for ax in panels)
        for ax in panels:
            ax.set_ylim(0, top)
    return figure


def _grid(report: Mapping[str, Any], rates: Sequence[Rate], axis: str, buckets: Sequence[str]) -> Grid:
    systems = systems_of(report)
    title = " and ".join(", ".join(rate.name for rate in rates).rsplit(", ", 1))  # a, b and c
    told = "Upright lines: 95 % intervals" if len(systems) <= MAX_WITH_INTERVALS else "Intervals are in report.json"
    return Grid(
        title=f"{title[0].upper()}{title[1:]} by {axis}{model_name(report)}",
        lines=[f"{told}. Under each bucket: its number of clips."],
        key=[shortened(name) for name in systems],
        rows=len(rates),
        columns=len(report["by_mode"]),
        panel_width_in=max(MIN_PANEL_IN, BUCKET_IN * len(buckets)),
        panel_height_in=2.3,
        left_in=0.95,
        right_in=0.3,
        bottom_in=0.95,
        between_in=0.45,
        between_rows_in=0.7,
    )


def _draw_lines(
    ax: Axes,
    strata: Mapping[str, Mapping[str, Any]],
    rate: Rate,
    buckets: Sequence[str],
    by_name: Mapping[str, Look],
) -> None:
    clips = dict.fromkeys(buckets, 0)
    highest = 0.0
    for i, (name, found) in enumerate(strata.items()):
        look = by_name[name]
        shift = DODGE * ((i + 0.5) / len(strata) - 0.5)
        xs, ys = [], []
        for x, bucket in enumerate(buckets):
            read = rate.read(found[bucket]) if bucket in found else None
            xs.append(x + shift)
            ys.append(float("nan") if read is None else 100 * read[0])
            if read is None:
                continue
            clips[bucket] = max(clips[bucket], read[2])
            highest = max(highest, 100 * read[0])
            if read[1] is not None and len(strata) <= MAX_WITH_INTERVALS:
                ax.plot([x + shift] * 2, [100 * end for end in read[1]], color=look.colour, linewidth=1.3, alpha=0.6)
                highest = max(highest, 100 * read[1][1])
        ax.plot(xs, ys, color=look.colour, marker=look.marker, markersize=6.5, linewidth=1.6, zorder=3, clip_on=False)
    ax.set_xlim(-0.6, len(buckets) - 0.4)
    top = 1.06 * highest or 1.0  # nothing but zeros still needs an axis
    ax.set_ylim(0, top if rate is WER else min(top, 104.0))
    ax.set_xticks(range(len(buckets)), [f"{bucket}\n{clips[bucket]}" for bucket in buckets])
    ax.tick_params(length=0, pad=6)
    ax.grid(axis="x", visible=False)
