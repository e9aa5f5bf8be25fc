"""Sections on what features respond to: domains, labels, and the features that tell labels best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from steer_asr_training.analysis.labels import DOMAINS
from steer_asr_training.analysis.tables import number, percent
from steer_asr_training.lab.pictures import Line, Picture, heatmap, layer_lines
from steer_asr_training.lab.quality_sections import Reports
from steer_asr_training.lab.results import SIDES, Results, selectivity, short, telling
from steer_asr_training.lab.section import DOMAIN_LINES, Section, Table

LEVELS = {"frames": "of frames", "clips": "of windows"}
MAX_LABELS = 40
TELLING = 8
"""Features per layer in the table."""


def domain_section(results: Results) -> Section:
    """Features specialised in speech, music or sounds, at frame and clip level."""
    reports = results.of("features")
    section = Section(
        "domains",
        "Domain specialisation",
        "Features that fire on more than a share tau of the frames (or windows) of one domain and of no other, in % of "
        "the dictionary; tau as in AudioSAE. Below, how alive features divide between speech and everything else.",
        "steer-asr-train features SAE --activations DEV -o RUN/results/HOOK_POINT",
    )
    if not reports:
        return section
    keys = list(next(iter(reports.values()))["specialised"])
    rows: list[Sequence[str]] = [("layer", "domain", *keys)]
    for point, report in reports.items():
        for domain in DOMAINS:
            shares = [_share(report, key, domain) for key in keys]
            rows.append((point, domain, *(percent(share) for share in shares)))
    pictures = [
        Picture(
            f"domains_{level}",
            f"Features specialised in one domain, by share {title} on which they fire.",
            f"Lines over layers for speech, music and sounds, one panel per tau, counted by share {title}.",
            partial(_draw_domains, reports, [key for key in keys if key.startswith(level)], title),
            (9.5, 3.2),
        )
        for level, title in LEVELS.items()
    ]
    sides = Picture(
        "selectivity",
        "Alive features by how they divide their firing between non-speech (0) and speech (1), in % of those alive.",
        "A table of colours, layers by share of the firing rate on speech.",
        partial(_draw_sides, reports),
        (8.0, 0.9 + 0.34 * len(reports)),
    )
    table = Table("Specialised features, % of the dictionary", rows)
    return replace(section, pictures=[*pictures, sides], tables=[table])


def features_section(results: Results) -> Section:
    """The features that tell a label best, with their descriptions."""
    reports = results.of("features")
    section = Section(
        "features",
        "Features",
        "The features of each layer that tell a label best, by F1 on recordings that did not choose it; `always` is "
        "the F1 of calling every window positive. `steer-asr-train browse` makes pages with all of them, to look at "
        "and to hear.",
        "steer-asr-train features SAE --activations DEV -o RUN/results/HOOK_POINT",
    )
    if not reports:
        return section
    rows: list[Sequence[str]] = [
        ("layer", "feature", "fires on speech %", "non-speech %", "label", "F1", "always", "description")
    ]
    for point, report in reports.items():
        for row in telling(report, TELLING):
            best = row["best_labels"][0]
            rates = (percent(row["fires"][key], 2) for key in ("kind:speech", "kind:nonspeech"))
            scores = (number(best["f1"], 2), number(best["always"], 2))
            rows.append((point, str(row["feature"]), *rates, best["label"], *scores, row["description"]))
    return replace(section, tables=[Table("Features that tell a label", rows)] if len(rows) > 1 else [])


def search_section(results: Results) -> Section:
    """F1 of the best feature per label and layer."""
    reports = results.of("search")
    section = Section(
        "search",
        "Label search",
        "For each label, category and source, the feature that tells best which windows carry it: feature and "
        "threshold are chosen on one half of the recordings, F1 is of the other half. AudioSAE names a feature after a "
        "label from an F1 of 0.5 on.",
        "steer-asr-train search SAE --activations DEV -o RUN/results/HOOK_POINT",
    )
    found = {point: {row["label"]: row for row in report["labels"]} for point, report in reports.items()}
    labels = _ranked_labels(found)
    if not labels:
        return section
    rows: list[Sequence[str]] = [("label", "windows", "layer", "feature", "F1", "precision", "recall", "F1 of always")]
    for label in labels:
        at = {point: rows_of[label] for point, rows_of in found.items() if rows_of.get(label, {}).get("best")}
        point = max(at, key=lambda p: at[p]["best"][0]["f1_where_chosen"])
        best = at[point]["best"][0]
        scores = (number(best[key], 2) for key in ("f1", "precision", "recall"))
        always = number(at[point]["f1_of_always"], 2)
        rows.append((label, str(at[point]["windows"]), point, str(best["feature"]), *scores, always))
    shown = labels[:MAX_LABELS]
    picture = Picture(
        "search",
        "F1, on held-out recordings, of the feature that was best on the others; the last column is what calling every "
        f"window positive reaches. The {len(shown)} labels that are told best.",
        "A table of colours, labels by layers.",
        partial(_draw_search, found, shown),
        (1.8 + 0.62 * (len(found) + 1) + 1.2, 0.9 + 0.2 * len(shown)),
    )
    title = "Best layer and feature per label (layer and feature chosen where F1 is not reported)"
    return replace(section, pictures=[picture], tables=[Table(title, rows)])


def _share(report: Mapping[str, Any], key: str, domain: str) -> float | None:
    count, n = report["specialised"][key][domain], report.get("n_features") or len(report["features"])
    return None if count is None else count / n


def _draw_domains(reports: Reports, keys: Sequence[str], title: str, figure: Any) -> None:
    for axes, key in zip(figure.subplots(1, len(keys), squeeze=False)[0], keys, strict=True):
        lines = []
        for domain in DOMAINS:
            colour, marker = DOMAIN_LINES[domain]
            shares = [_share(report, key, domain) for report in reports.values()]
            y = [None if share is None else 100 * share for share in shares]
            lines.append(Line(domain, y, colour, "-", marker))
        tau = key.partition(">")[2]
        first = key == keys[0]
        layer_lines(
            axes,
            [*map(short, reports)],
            lines,
            ylabel="features, %" if first else "",
            title=f"on over {tau} {title}",
            floor=0,
            legend=first,
        )


def _draw_sides(reports: Reports, figure: Any) -> None:
    axes = figure.subplots()
    counts = {point: selectivity(report) for point, report in reports.items()}
    rows = [[100 * n / max(1, sum(row)) or None for n in row] for row in counts.values()]
    edges = [f"{i / SIDES:.1f}" if i % 2 == 0 else "" for i in range(SIDES)]
    heatmap(
        figure, axes, rows, rows=[*map(short, counts)], columns=edges, label="% of alive", ceiling=None, write=False
    )
    axes.set(xlabel="rate on speech / (rate on speech + rate on non-speech), lower edge", ylabel="layer")


def _ranked_labels(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[str]:
    """Labels that were searched for, by the gain of their best F1 above always, on the half that chooses."""
    gains: dict[str, float] = {}
    for rows in found.values():
        for label, row in rows.items():
            if row["best"] and not label.startswith("kind:"):
                always = row["f1_of_always"]
                gain = (row["best"][0]["f1_where_chosen"] - always) / max(1e-9, 1 - always)
                gains[label] = max(gain, gains.get(label, 0.0))
    return sorted(gains, key=lambda label: (-gains[label], label))


def _draw_search(found: Mapping[str, Mapping[str, Any]], labels: Sequence[str], figure: Any) -> None:
    values: list[list[float | None]] = []
    for label in labels:
        rows = [of.get(label) for of in found.values()]
        f1: list[float | None] = [row["best"][0]["f1"] if row and row["best"] else None for row in rows]
        values.append([*f1, next(row["f1_of_always"] for row in rows if row and row["best"])])
    axes = figure.subplots()
    heatmap(figure, axes, values, rows=labels, columns=[*map(short, found), "always"], label="F1")
    axes.set_xlabel("layer")
