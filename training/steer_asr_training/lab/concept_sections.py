"""Sections on phones, starts and ends of speech, probes and erasure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from steer_asr_training.analysis.boundaries import EVENTS
from steer_asr_training.analysis.tables import number, percent
from steer_asr_training.lab.pictures import (
    BLUE,
    GREY,
    MARKERS,
    PURPLE,
    RED,
    STYLES,
    Line,
    Picture,
    curves,
    heatmap,
    layer_colours,
    layer_lines,
)
from steer_asr_training.lab.quality_sections import Reports, over
from steer_asr_training.lab.results import Results, question, short
from steer_asr_training.lab.section import Section, Table

WAYS = {
    "as_published": ("as the paper states it", BLUE, "-", "o"),
    "held_out": ("held-out speakers", RED, "--", "s"),
    "control": ("control: phones of half a window away", PURPLE, ":", "x"),
}
PANELS = 3
"""Panels beside each other."""


def phonemes_section(results: Results) -> Section:
    """Accuracy of phone features by layer, and the best feature of every phone."""
    reports = results.of("phonemes")
    section = Section(
        "phonemes",
        "Phone features",
        "Spoken frames on which any firing feature carries the phone that is said (AudioSAE: 0.92 for Whisper-small, "
        "0.89 for HuBERT, layer 12), and F1 of the best single feature of every phone on held-out speakers.",
        "steer-asr-train phonemes SAE --activations ALIGNED -o RUN/results/HOOK_POINT",
    )
    if not reports:
        return section
    head = (
        "layer",
        *(f"{title} %" for title, *_ in WAYS.values()),
        "mean F1",
        "control",
        "mean correlation",
        "speakers",
    )
    rows = [
        (
            point,
            *(percent(report["any_feature"][way]["spoken"]) for way in WAYS),
            *(number(report[key]) for key in ("mean_f1", "control_mean_f1", "mean_correlation")),
            f"{report['speakers_measured']} of {report['speakers']}",
        )
        for point, report in reports.items()
    ]
    phones = _phones(reports)
    pictures = [
        Picture(
            "phonemes",
            "Left: accuracy of any firing feature that carries a phone. Right: F1 of the best feature, averaged.",
            "Two panels over layers: accuracy as published, on held-out speakers and of a control; mean F1.",
            partial(_draw_accuracy, reports),
            (9.0, 3.4),
        ),
        Picture(
            "phones",
            "F1 of the best single feature of every phone, on held-out speakers.",
            "A table of colours, layers by phones.",
            partial(_draw_phones, reports, phones),
            (10.5, 1.0 + 0.34 * len(reports)),
        ),
    ]
    return replace(section, pictures=pictures, tables=[Table("Phones by layer", [head, *rows])])


def boundaries_section(results: Results) -> Section:
    """Features that mark where speech starts and ends."""
    reports = results.of("boundaries")
    section = Section(
        "boundaries",
        "Where speech starts and ends",
        "A feature's rising edge within the tolerance of a start or an end of speech is a hit, once. Chosen on half of "
        "the speakers, measured on the others. AudioSAE names HuBERT's 3249 (start) and 3081 (end) at layer 11.",
        "steer-asr-train boundaries SAE --activations ALIGNED -o RUN/results/HOOK_POINT",
    )
    rows: list[Sequence[str]] = [
        ("layer", "speech", "events", "feature", "F1", "precision", "recall", "lag s", "control F1")
    ]
    for point, report in reports.items():
        for kind in EVENTS:
            for best in (report[kind]["best"] or ())[:1]:
                scores = (number(best[key], 2) for key in ("f1", "precision", "recall", "lag_s"))
                counts = (str(report[kind]["events"]), str(best["feature"]))
                rows.append((point, f"{kind}s", *counts, *scores, number(report[kind]["control_f1"], 2)))
    if len(rows) == 1:
        return section
    picture = Picture(
        "boundaries",
        "F1 of the best detector of starts and of ends, and of the same choice with events moved by half a window.",
        "Lines over layers: F1 of the best detector of starts and ends, with controls.",
        partial(_draw_boundaries, reports),
    )
    return replace(section, pictures=[picture], tables=[Table("Best detector by layer", rows)])


def probe_section(results: Results) -> Section:
    """MCC against the number of features, one picture per label."""
    section = Section(
        "probes",
        "Sparse probes",
        "Features are ranked by Fisher score and a logistic regression without a penalty sees the first k. Folds keep "
        "speakers and recordings apart. Enough: the fewest features with 95 % of the best MCC; shuffled: the same with "
        "labels dealt out anew.",
        "steer-asr-train probe SAE LABEL --activations DEV -o RUN/results/HOOK_POINT/probe-LABEL",
    )
    asked = results.asked("probe")
    if not asked:
        return section
    rows: list[Sequence[str]] = [
        ("label", "layer", "rows", "classes", "MCC, k = 1", "best MCC", "enough", "shuffled, best")
    ]
    picture_list = []
    for label in asked:
        reports = results.of("probe", lambda r, name=label: question(r) == name)
        for point, report in reports.items():
            best, chance = report["best_mcc"], max(p["shuffled"]["mcc"] for p in report["curve"])
            counts = (f"{report['rows']} {report['unit']}s", str(len(report["classes"])))
            enough = "-" if report["k_enough"] is None else str(report["k_enough"])
            scores = (number(report["curve"][0]["mcc"]), number(best), enough, number(chance))
            rows.append((label, point, *counts, *scores))
        picture_list.append(
            Picture(
                f"probe_{_file(label)}",
                f"{label}: MCC of probes on the first k features, by layer; grey: shuffled labels.",
                f"Curves of MCC against the number of features for {label}, one per layer.",
                partial(_draw_probe, reports),
            )
        )
    return replace(section, pictures=picture_list, tables=[Table("Probes", rows)])


def erasure_section(results: Results) -> Section:
    """MCC of a concept and of the others while features are removed."""
    section = Section(
        "erasure",
        "Concept erasure",
        "Features are removed in the order of their Fisher score for one class, and all probes are fitted anew. "
        "Erased: MCC of the target below 0.1; kept: every other class above 0.75. AudioSAE erases a vowel with 19 % of "
        "HuBERT's features while the others are kept until 27 %; with L2-regularised probes 3 to 6 % are enough.",
        "steer-asr-train erase SAE LABEL VALUE --activations DEV -o RUN/results/HOOK_POINT/erase-LABEL-VALUE",
    )
    asked = results.asked("erasure")
    if not asked:
        return section
    head = (
        "concept",
        "layer",
        "penalty",
        "MCC at first",
        "erased at %",
        "others then",
        "all others kept until %",
        "rows",
    )
    rows: list[Sequence[str]] = [head]
    picture_list = []
    for concept in asked:
        reports = results.of("erasure", lambda r, name=concept: question(r) == name)
        for point, report in reports.items():
            for penalty, found in report["variants"].items():
                kept = found["all_others_kept_until"]
                rows.append(
                    (
                        *(concept, point, penalty, number(found["curve"][0]["target_mcc"])),
                        percent(found["erased_at_share"]),
                        number(found["others_mean_mcc_when_erased"]),
                        percent(None if kept is None else kept / report["n_features"]),
                        str(report["rows"]),
                    )
                )
        n_rows = -(-len(reports) // PANELS)
        picture_list.append(
            Picture(
                f"erase_{_file(concept)}",
                f"{concept}: MCC on held-out speakers against the share of features removed. Red: the target; "
                "blue: mean of the others; line styles: penalties; grey: 0.75, above which the others are kept.",
                f"Curves of MCC against removed features for {concept} and the other classes, one panel per layer.",
                partial(_draw_erasure, reports),
                (3.4 * min(PANELS, len(reports)), 3.0 * n_rows),
            )
        )
    return replace(section, pictures=picture_list, tables=[Table("Erasure", rows)])


def _file(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)


def _phones(reports: Reports) -> list[str]:
    """Phones by their best F1 at any layer."""
    best: dict[str, float] = {}
    for report in reports.values():
        for row in report["by_phone"]:
            best[row["phone"]] = max(row["f1"], best.get(row["phone"], 0.0))
    return sorted(best, key=lambda phone: (-best[phone], phone))


def _draw_accuracy(reports: Reports, figure: Any) -> None:
    left, right = figure.subplots(1, 2)
    points = [*map(short, reports)]
    lines = [
        Line(title, over(reports, lambda r, w=way: r["any_feature"][w]["spoken"], 100), colour, style, marker)
        for way, (title, colour, style, marker) in WAYS.items()
    ]
    layer_lines(left, points, lines, ylabel="spoken frames, %", floor=0, ceiling=102)
    means = [
        Line("held-out speakers", over(reports, lambda r: r["mean_f1"]), RED, "--", "s"),
        Line("control", over(reports, lambda r: r["control_mean_f1"]), PURPLE, ":", "x"),
    ]
    layer_lines(right, points, means, ylabel="F1 of the best feature, mean", floor=0)


def _draw_phones(reports: Reports, phones: Sequence[str], figure: Any) -> None:
    f1 = {point: {row["phone"]: row["f1"] for row in report["by_phone"]} for point, report in reports.items()}
    values = [[rows.get(phone) for phone in phones] for rows in f1.values()]
    axes = figure.subplots()
    names = [phone or "sil" for phone in phones]
    heatmap(figure, axes, values, rows=[*map(short, f1)], columns=names, label="F1", write=False)
    axes.tick_params(axis="x", labelrotation=90, labelsize=7)
    axes.set_ylabel("layer")


def _draw_boundaries(reports: Reports, figure: Any) -> None:
    lines = []
    for kind, colour, marker in zip(EVENTS, (BLUE, RED), ("o", "s"), strict=True):
        best = over(reports, lambda r, k=kind: r[k]["best"][0]["f1"] if r[k]["best"] else None)
        lines.append(Line(f"{kind}s", best, colour, "-", marker))
        control = over(reports, lambda r, k=kind: r[k].get("control_f1"))
        lines.append(Line(f"{kind}s, control", control, colour, ":", "x"))
    layer_lines(figure.subplots(), [*map(short, reports)], lines, ylabel="F1, held-out speakers", floor=0, ceiling=1.02)


def _draw_probe(reports: Reports, figure: Any) -> None:
    axes = figure.subplots()
    by_layer = {
        short(point): ([p["k"] for p in report["curve"]], [p["mcc"] for p in report["curve"]])
        for point, report in reports.items()
    }
    for report in reports.values():
        chance = [p["shuffled"]["mcc"] for p in report["curve"]]
        axes.plot([p["k"] for p in report["curve"]], chance, ":", color=GREY, lw=0.8)
    curves(axes, by_layer, colours=layer_colours(len(by_layer)))
    ks = sorted({p["k"] for report in reports.values() for p in report["curve"]})
    axes.set_xscale("log")
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.minorticks_off()
    axes.set(xlabel="features, by Fisher score", ylabel="MCC, held out")
    axes.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.6)
    axes.legend(title="layer", ncols=2)


def _draw_erasure(reports: Reports, figure: Any) -> None:
    n_rows = -(-len(reports) // PANELS)
    grid = figure.subplots(n_rows, min(PANELS, len(reports)), squeeze=False, sharey=True).ravel()
    for axes in grid[len(reports) :]:
        axes.set_visible(False)
    for i, (axes, (point, report)) in enumerate(zip(grid, reports.items(), strict=False)):
        for (penalty, found), style in zip(report["variants"].items(), STYLES * 9, strict=False):
            x = [100 * p["removed"] / report["n_features"] for p in found["curve"]]
            for key, colour, name in (("target_mcc", RED, "target"), ("others_mean_mcc", BLUE, "others")):
                label = f"{name}, {penalty}"
                axes.plot(
                    x,
                    [p[key] for p in found["curve"]],
                    style,
                    color=colour,
                    label=label,
                    lw=1.2,
                    marker=MARKERS[0],
                    ms=2,
                )
        axes.axhline(report["kept_above"], color=GREY, linewidth=0.8)
        axes.set(xlabel="% of features removed", title=f"layer {short(point)}", ylim=(-0.1, 1.02))
        if i == 0:
            axes.set_ylabel("MCC, held-out speakers")
            axes.legend(fontsize=7)
