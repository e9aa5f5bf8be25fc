"""Reports as files: JSON for programs, Markdown for people, a picture where matplotlib is there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from steer_asr._files import atomic_path, write_text

DENSITY_PICTURE = "density.png"


def write_report(folder: Path, name: str, report: Mapping[str, Any], markdown: str) -> None:
    """`name.json` and `name.md` in `folder`."""
    write_text(folder / f"{name}.json", json.dumps(report, indent=1, allow_nan=False) + "\n")
    write_text(folder / f"{name}.md", markdown)


def grid(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that also reads well in a terminal; the first row is its head."""
    rows = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(3, *(len(row[i]) for row in rows)) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in rows]
    return "\n".join([lines[0], "| " + " | ".join("-" * w for w in widths) + " |", *lines[1:]])


def percent(share: float | None, digits: int = 1) -> str:
    return "-" if share is None else f"{100 * share:.{digits}f}"


def number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def quality_markdown(report: Mapping[str, Any], picture: str | None) -> str:
    """`quality.md`."""
    header = ("frames of", "frames", "explained variance", "FVU", "L0")
    parts = {"all": report["all"]} | report["parts"]
    rows = [
        (name, str(p["frames"]), number(p["explained_variance"], 4), number(p["fvu"], 4), number(p["l0"], 1))
        for name, p in parts.items()
    ]
    if control := report["random_sae"]:
        rows.append(("random SAE, all", "", number(control["explained_variance"], 4), "", number(control["l0"], 1)))
    l0, twins, iou = report["l0"], report["duplicates"]["decoder_cosine"], report["duplicates"]["iou"]
    lines = [
        f"# Quality of {report['dictionary']}\n",
        f"{report['n_features']} features of width {report['d_in']} at `{report['hook_point']}`, "
        f"{report['windows']} windows; frames of padding are left out.\n",
        f"{grid([header, *rows])}\n",
        "Each row is centred on its own mean. "
        + (f"Random SAE: {control['made']}.\n" if control else "No random SAE was measured.\n"),
        f"- Alive: {report['alive']} of {report['n_features']} ({percent(report['alive_share'])} %).",
        f"- L0: mean {l0['mean']:.1f}, 5 % {l0['p5']}, median {l0['p50']}, 95 % {l0['p95']}.",
        f"- Near-duplicates by decoder cosine > {twins['over']}: {twins['features']} features in {twins['pairs']} "
        f"pairs; by IoU of firing > {iou['over']}: {iou['features']} features in {iou['pairs']} pairs.\n",
        "## Density\n",
        f"{_densities(report['density'])}\n",
    ]
    if picture:
        lines.append(f"![density]({picture})\n")
    if report.get("splice"):
        lines.append(_splice(report["splice"]))
    return "\n".join(lines)


def _densities(density: Mapping[str, Any]) -> str:
    edges, counts = density["log10_edges"], density["counts"]
    rows = [
        (f"10^{low:.2f} to 10^{high:.2f}", str(count))
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
        if count
    ]
    return grid([("share of frames", "features"), ("never", str(density["never"])), *rows])


def _splice(report: Mapping[str, Any]) -> str:
    header = ("activations", "changed words %", "WER %", "speech newly empty %", "non-speech with text %")
    parts = [
        "## Spliced into Whisper\n",
        f"{report['windows']} windows; the reconstruction replaces {report['frames']} frames. Changed words count "
        "against the text from the stored activations.\n",
    ]
    for mode in ("plain", "timestamps"):
        rows = [
            (
                name,
                percent(found["changed_words"], 2),
                percent(found["wer"], 2),
                percent(found["newly_empty"]),
                percent(found["nonspeech_with_text"]),
            )
            for name, found in report[mode].items()
        ]
        parts.append(f"### {mode}\n\n{grid([header, *rows])}\n")
    return "\n".join(parts)


def draw_density(density: Mapping[str, Any], path: Path) -> str | None:
    """The histogram as a PNG; returns its name, or None without matplotlib (extra: train)."""
    if find_spec("matplotlib") is None:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    edges = np.array(density["log10_edges"])
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.bar(edges[:-1], density["counts"], width=np.diff(edges), align="edge", color="#4477aa", edgecolor="white")
    axes.set_xlabel("share of frames on which a feature fires, log10")
    axes.set_ylabel("features")
    axes.set_title(f"{density['never']} features never fire", fontsize=9)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150, metadata={"Software": None})
    return path.name


def stability_markdown(report: Mapping[str, Any]) -> str:
    """`stability.md`."""
    header = ("windows", "frames", "alive A", "alive B", "matched A", "% of all", "% of alive", "1:1", "shifted")
    rows = []
    for name, row in report["by_domain"].items():
        if row is None:
            rows.append((name, "0", *["-"] * 7))
            continue
        values = (row[key] for key in ("frames", "alive_a", "alive_b", "matched_a"))
        shares = (percent(row["matched_share_a"]), percent(row["matched_share_of_alive_a"]))
        rows.append((name, *map(str, values), *shares, str(row["one_to_one"]), str(row["matched_a_when_shifted"])))
    a, b = report["a"], report["b"]
    text = (
        f"# Stability\n\nA: {a['name']} ({a['n_features']} features, `{a['hook_point']}`). "
        f"B: {b['name']} ({b['n_features']} features, `{b['hook_point']}`). {report['windows']} windows.\n\n"
        f"{grid([header, *rows])}\n\nMatched: a feature of B fires on the same frames, IoU > {report['iou_over']}. "
        "1:1: as many pairs with no feature in two of them. Shifted: matched when B's frames are half a window late, "
        "which chance and ever-firing features explain.\n\n"
    )
    return text + _directions(report["decoder"])


def _directions(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "The two read different hook points, so their decoder rows are not compared.\n"
    names = {
        "best_for_a": "best match of A in B",
        "best_for_b": "best match of B in A",
        "assigned": "optimal assignment",
        "best_for_a_among_random": "best match of A among random directions",
    }
    header = ("decoder rows", "features", "mean cosine", "median", f"% over {found['over']}")
    rows = [
        (title, *(["-"] * 4))
        if (row := found[key]) is None
        else (title, str(row["features"]), number(row["mean"]), number(row["median"]), percent(row["share_over"]))
        for key, title in names.items()
    ]
    return grid([header, *rows]) + "\n"


def features_markdown(report: Mapping[str, Any]) -> str:
    """`features.md`: one table, the features that move Whisper most towards ending its text first."""
    edited = any(row["edits"] is not None for row in report["features"])
    header = ["feature", "speech %", "non-speech %", "mean", "max", "end of text", "description", "top windows"]
    rows = []
    for row in sorted(report["features"], key=_by_effect):
        effect, edits = row["end_of_text"], [f"{e['op']} {e['value']:.3g}" for e in row["edits"] or ()]
        cells = [
            str(row["feature"]),
            percent(row["fires"]["kind:speech"], 2),
            percent(row["fires"]["kind:nonspeech"], 2),
            number(row["mean_when_firing"]),
            number(row["max"]),
            "-" if effect is None else f"{effect['per_unit']:+.4f}",
            row["description"],
            "; ".join(f"{top['from']} at {top['time_s']:.2f} s" for top in row["top"][:3]),
        ]
        rows.append([*cells[:6], ", ".join(edits) or "-", *cells[6:]] if edited else cells)
    if edited:
        header.insert(6, "edits")
    n_windows = report["end_of_text_windows"]
    return (
        f"# Features of {report['dictionary']}\n\n{report['alive']} of {len(report['features'])} fire somewhere in "
        f"{report['windows']} windows ({report['frames']} frames that hear audio) at `{report['hook_point']}`. "
        "Speech %, non-speech %: frames on which it fires. Mean: activation when it fires. End of text: change of log "
        "p(end of text) on non-speech per unit of the decoder row, to first order"
        + (f", over {n_windows} windows" if n_windows else "; not measured")
        + f".\n\n{grid([header, *rows])}\n"
    )


def _by_effect(row: Mapping[str, Any]) -> tuple[float, int]:
    effect = row["end_of_text"]
    return (0.0 if effect is None else -effect["per_unit"], row["feature"])


def search_markdown(report: Mapping[str, Any]) -> str:
    """`search.md`."""
    header = ("label", "windows", "feature", "F1", "precision", "recall", "F1 where chosen", "F1 of always")
    rows = []
    for found in report["labels"]:
        if not found["best"]:
            rows.append((found["label"], str(found["windows"]), *["-"] * 6))
        for best in found["best"] or ():
            scores = (best["f1"], best["precision"], best["recall"], best["f1_where_chosen"], found["f1_of_always"])
            rows.append((found["label"], str(found["windows"]), str(best["feature"]), *map(number, scores)))
    return (
        f"# Label search in {report['dictionary']}\n\n{report['windows']} windows. Features are chosen, with their "
        "thresholds, on one half of the recordings; F1, precision and recall are of the other half. A dash: too few "
        f"recordings have the label, or lack it.\n\n{grid([header, *rows])}\n"
    )
