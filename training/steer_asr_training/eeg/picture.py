"""The picture of an EEG report: scores against chance, response functions, scores over the head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from steer_asr._files import atomic_path

PICTURE = "eeg.png"
BLUE, ORANGE, GREY = "#4477aa", "#cc6633", "#bbbbbb"
MIN_CHANNELS_FOR_A_HEAD = 8
MONTAGES = ("biosemi128", "colin27_1005", "standard_1005")
"""The last two are one, under its name since MNE 1.13 and before."""


def draw_study(report: Mapping[str, Any], path: Path) -> str | None:
    """One row of three panels per layer, as a PNG; returns its name, or None without matplotlib (extra: eeg)."""
    if find_spec("matplotlib") is None:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    layers = report["layers"]
    figure = Figure(figsize=(12, 3.4 * len(layers)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(layers), 3, squeeze=False, width_ratios=(2, 1.4, 1.2))
    for layer, (scores, functions, head) in zip(layers, panels, strict=True):
        _scores(scores, layer, report)
        _functions(functions, layer["sae"]["response_functions"], report["acoustic_envelope"]["response_functions"])
        best = layer["sae"]["response_functions"][0]
        tested = {"channels": report["channels"], "r": best["r_by_channel"]}
        _channels(head, best["feature"], layer.get("channel_map") or tested)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130, metadata={"Software": None})
    return path.name


def _scores(axes: Any, layer: Mapping[str, Any], report: Mapping[str, Any]) -> None:
    """Every feature's r, in order, before its own chance."""
    rows = sorted(layer["sae"]["features"], key=lambda row: -row["r"])
    rank = np.arange(1, len(rows) + 1)
    mean, p95 = (np.array([row[key] for row in rows]) for key in ("null_mean", "null_p95"))
    r = np.array([row["r"] for row in rows])
    significant = np.array([row["p_holm"] for row in rows]) < report["alpha"]
    axes.vlines(rank, mean, p95, color=GREY, linewidth=1, label="chance, mean to 95 %")
    axes.scatter(rank[~significant], r[~significant], s=8, color=BLUE, label="feature")
    axes.scatter(rank[significant], r[significant], s=14, color=ORANGE, label="significant feature")
    axes.axhline(
        report["acoustic_envelope"]["max_r"], color="black", linewidth=0.8, linestyle="--", label="acoustic envelope"
    )
    axes.set_xlabel("features, by r")
    axes.set_ylabel("r, held-out trials")
    axes.set_title(f"{layer['hook_point']}: {int(significant.sum())} of {len(rows)} significant", fontsize=9)
    axes.legend(fontsize=7)


def _functions(axes: Any, features: Sequence[Mapping[str, Any]], acoustic: Sequence[Mapping[str, Any]]) -> None:
    """Each scaled to its largest weight."""
    for one, color, width in (*((one, None, 1.0) for one in features[:5]), *((one, "black", 1.6) for one in acoustic)):
        weights = np.array(one["weights"])
        name = "envelope" if color else str(one["feature"])
        scaled = weights / max(float(np.abs(weights).max()), 1e-30)
        axes.plot(1000 * np.array(one["lags_s"]), scaled, color=color, linewidth=width, label=name)
    axes.axhline(0, color=GREY, linewidth=0.6)
    axes.set_xlabel("lag, ms")
    axes.set_ylabel("weight, scaled")
    axes.set_title("response functions of the best", fontsize=9)
    axes.legend(fontsize=7)


def _channels(axes: Any, feature: int, found: Mapping[str, Any]) -> None:
    """A head where the places of the channels are known, bars where not."""
    names, r = found["channels"], np.array(found["r"])
    axes.set_title(f"r of feature {feature} by channel", fontsize=9)
    if (placed := _placed(names)) is not None:
        places, kept = placed
        limit = float(np.abs(r[kept]).max()) or 1.0
        dots = axes.scatter(*places.T, c=r[kept], s=60, cmap="RdBu_r", vmin=-limit, vmax=limit, edgecolors=GREY)
        around = np.linspace(0, 2 * np.pi, 100)
        axes.plot(np.cos(around), np.sin(around), color="black", linewidth=0.8)
        axes.plot([-0.1, 0, 0.1], [0.995, 1.12, 0.995], color="black", linewidth=0.8)
        axes.set_aspect("equal")
        axes.axis("off")
        axes.figure.colorbar(dots, ax=axes, shrink=0.7)
        return
    order = np.argsort(-r, kind="stable")[:24]
    axes.bar(range(len(order)), r[order], color=BLUE)
    axes.set_xticks(range(len(order)), [names[i] for i in order], rotation=90 if len(order) > 6 else 0, fontsize=7)
    axes.set_ylabel("r")


def _placed(names: Sequence[str]) -> tuple[np.ndarray, list[int]] | None:
    """(places seen from above, nose up, 1 at the height of the ears [channel, 2]; which channels these are).

    None where most channels have no known place, or without MNE.
    """
    if find_spec("mne") is None:
        return None
    import mne

    known = mne.channels.get_builtin_montages()
    for montage_name in (name for name in MONTAGES if name in known):
        places = mne.channels.make_standard_montage(montage_name).get_positions()["ch_pos"]
        kept = [i for i, name in enumerate(names) if name in places]
        if len(kept) >= MIN_CHANNELS_FOR_A_HEAD and len(kept) > len(names) / 2:
            return _from_above(np.array([places[names[i]] for i in kept])), kept
    return None


def _from_above(places: np.ndarray) -> np.ndarray:
    """Azimuthal equidistant projection of [channel, 3], x to the right ear, y to the nose, z up."""
    down = np.arccos(np.clip(places[:, 2] / np.linalg.norm(places, axis=1), -1, 1)) / (np.pi / 2)
    flat = places[:, :2]
    return flat * (down / np.maximum(np.linalg.norm(flat, axis=1), 1e-9))[:, None]
