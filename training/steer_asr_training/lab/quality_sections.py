"""Sections on how good dictionaries are, what Whisper writes with them, and whether another seed finds the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from steer_asr_training.analysis.labels import DOMAINS
from steer_asr_training.analysis.tables import number, percent
from steer_asr_training.lab.pictures import BLUE, CYAN, GREY, PURPLE, RED, YELLOW, Line, Picture, heatmap, layer_lines
from steer_asr_training.lab.results import Results, short
from steer_asr_training.lab.section import DOMAIN_LINES, Section, Table

Reports = Mapping[str, Mapping[str, Any]]
"""Reports of one kind by hook point."""
ARMS = {"stock": (GREY, "D"), "sae": (BLUE, "o"), "random_sae": (RED, "s")}
SPLICED = {
    "changed_words": "changed words, %",
    "wer": "WER, %",
    "nonspeech_with_text": "non-speech with text, %",
}
STABILITY_ROWS = ("all", *DOMAINS)


def over(reports: Reports, read: Callable[[Any], float | None], scale: float = 1.0) -> list[float | None]:
    """One number of each report, None where it has none."""
    values = [read(report) for report in reports.values()]
    return [None if value is None else value * scale for value in values]


def quality_section(results: Results) -> Section:
    """Explained variance, L0, alive features, densities and duplicates by layer."""
    reports = results.of("quality")
    section = Section(
        "quality",
        "Quality",
        "How much of the activations' variance a dictionary explains (1 - FVU, each kind of audio centred on its own "
        "mean), how many features fire on a frame (L0), how many fire at all, how often, and how many have a near "
        "twin. A dictionary of random directions with the same L0 is the control.",
        "steer-asr-train evaluate SAE --activations DEV -o RUN/results/HOOK_POINT",
    )
    if not reports:
        return section
    head = ("layer", "explained variance", *DOMAINS, "random SAE", "L0", "alive %", "twins, cosine %", "twins, IoU %")
    rows = [
        (
            point,
            number(report["all"]["explained_variance"]),
            *(number(_part(report, domain)) for domain in DOMAINS),
            number((report["random_sae"] or {}).get("explained_variance")),
            number(report["l0"]["mean"], 1),
            percent(report["alive_share"]),
            *(percent(share) for share in _twins(report)),
        )
        for point, report in reports.items()
    ]
    return _with(section, _quality_pictures(reports), [Table("Quality by layer", [head, *rows])])


def splice_section(results: Results) -> Section:
    """What Whisper writes when the reconstruction replaces the activations."""
    reports = {point: r["splice"] for point, r in results.of("quality").items() if r.get("splice")}
    section = Section(
        "splice",
        "Spliced into Whisper",
        "The reconstruction takes the place of the activations and Whisper decodes, greedily, an empty answer allowed, "
        "with and without timestamps. Changed words count against the text from the activations themselves; WER "
        "against the transcripts.",
        "steer-asr-train evaluate SAE --activations DEV --model MODEL -o RUN/results/HOOK_POINT",
    )
    if not reports:
        return section
    head = ("layer", "mode", "activations", "changed words %", "WER %", "newly empty %", "non-speech with text %")
    rows = [
        (
            point,
            mode,
            arm,
            *(percent(found[key]) for key in ("changed_words", "wer", "newly_empty", "nonspeech_with_text")),
        )
        for point, report in reports.items()
        for mode in ("plain", "timestamps")
        for arm, found in report[mode].items()
    ]
    windows = sorted({report["windows"] for report in reports.values()})
    picture = Picture(
        "splice",
        f"Text with the reconstruction spliced in ({', '.join(map(str, windows))} windows). Solid: plain decoding; "
        "dashed: with timestamps. A control that loops counts every word, so WER can exceed 100 %.",
        "Three panels over layers: changed words, WER and share of non-speech windows with text, for the activations "
        "themselves, the SAE and a random SAE.",
        partial(_draw_splice, reports),
        (9.5, 3.4),
    )
    return _with(section, [picture], [Table("Spliced by layer and mode", [head, *rows])])


def stability_section(results: Results) -> Section:
    """Whether two seeds hold the same features."""
    reports = results.of("stability")
    section = Section(
        "stability",
        "Stability across seeds",
        "Features of one seed for which the other has a feature that fires on the same frames (intersection over union "
        "above 0.5, as in AudioSAE), by layer and domain, and the cosine of decoder rows. Shifted: the same when the "
        "second seed's frames are half a window late, which is what chance gives.",
        "steer-asr-train stability SAE_SEED_0 SAE_SEED_1 --activations DEV -o RUN/results/HOOK_POINT/stability-0-1",
    )
    if not reports:
        return section
    head = ("layer", "domain", "frames", "alive", "matched", "% of all", "% of alive", "1:1", "shifted")
    rows: list[Sequence[str]] = [head]
    for point, report in reports.items():
        for domain in STABILITY_ROWS:
            if row := report["by_domain"][domain]:
                counts = (str(row[key]) for key in ("frames", "alive_a", "matched_a"))
                shares = (percent(row["matched_share_a"]), percent(row["matched_share_of_alive_a"]))
                rows.append(
                    (point, domain, *counts, *shares, str(row["one_to_one"]), str(row["matched_a_when_shifted"]))
                )
    directions: list[Sequence[str]] = [("layer", "best match", "assigned", "random directions", "% of best over 0.7")]
    for point, report in reports.items():
        if found := report["decoder"]:
            means = (number(_mean(found[key])) for key in ("best_for_a", "assigned", "best_for_a_among_random"))
            directions.append((point, *means, percent(found["best_for_a"]["share_over"])))
    tables = [Table("Matched by when they fire", rows)]
    if len(directions) > 1:
        tables.append(Table("Cosine of decoder rows, mean", directions))
    picture = Picture(
        "stability",
        "Left and middle: features with a match in the other seed, in % of the dictionary and of those that fire. "
        "Right: mean cosine of decoder rows.",
        "Shares of matched features over layers, by domain, and cosines of decoder rows.",
        partial(_draw_stability, reports),
        (10.0, 3.4),
    )
    return _with(section, [picture], tables)


def _with(section: Section, pictures: Sequence[Picture], tables: Sequence[Table]) -> Section:
    from dataclasses import replace

    return replace(section, pictures=pictures, tables=tables)


def _part(report: Mapping[str, Any], domain: str) -> float | None:
    part = report["parts"].get(f"domain:{domain}")
    return None if part is None else part["explained_variance"]


def _twins(report: Mapping[str, Any]) -> tuple[float, float | None]:
    """Shares of features with a twin by decoder cosine, and of alive ones by IoU."""
    found = report["duplicates"]
    alive = found["iou"]["of_alive"]
    return found["decoder_cosine"]["features"] / report["n_features"], found["iou"][
        "features"
    ] / alive if alive else None


def _mean(found: Mapping[str, Any] | None) -> float | None:
    return None if found is None else found["mean"]


def _quality_pictures(reports: Reports) -> list[Picture]:
    return [
        Picture(
            "explained_variance",
            "Explained variance by layer, of all frames and by domain, and of a random dictionary.",
            "Lines over layers: explained variance of all frames, of speech, music and sounds, and of the control.",
            partial(_draw_explained, reports),
        ),
        Picture(
            "l0_alive",
            "Left: features that fire on a frame, mean and the range from 5 to 95 %. Middle: features that fire at "
            "all. Right: features with a twin.",
            "Three panels over layers: L0 with its range, share of features alive, share of features with a twin.",
            partial(_draw_counts, reports),
            (10.0, 3.2),
        ),
        Picture(
            "density",
            "How often features fire: share of the dictionary by firing frequency (log10 of the share of frames), and "
            "those that never fire.",
            "A table of colours, layers by firing frequency.",
            partial(_draw_density, reports),
            (9.0, 0.9 + 0.34 * len(reports)),
        ),
    ]


def _draw_explained(reports: Reports, figure: Any) -> None:
    lines = [Line("all", over(reports, lambda r: r["all"]["explained_variance"]), GREY, "-", "D")]
    for domain in DOMAINS:
        colour, marker = DOMAIN_LINES[domain]
        lines.append(Line(domain, over(reports, lambda r, d=domain: _part(r, d)), colour, "-", marker))
    control = over(reports, lambda r: (r["random_sae"] or {}).get("explained_variance"))
    lines.append(Line("random SAE", control, PURPLE, ":", "x"))
    values = [value for line in lines for value in line.y if value is not None]
    floor = min(0.0, *values) if values else 0.0
    layer_lines(
        figure.subplots(), [*map(short, reports)], lines, ylabel="explained variance", floor=floor, ceiling=1.02
    )


def _draw_counts(reports: Reports, figure: Any) -> None:
    left, middle, right = figure.subplots(1, 3)
    points = [*map(short, reports)]
    mean, low, high = (np.array([r["l0"][q] for r in reports.values()], float) for q in ("mean", "p5", "p95"))
    reach = np.maximum(np.stack([mean - low, high - mean]), 0)
    left.errorbar(np.arange(len(points)), mean, reach, fmt="none", ecolor=BLUE, alpha=0.5, capsize=3)
    layer_lines(
        left, points, [Line("mean", over(reports, lambda r: r["l0"]["mean"]))], ylabel="L0", legend=False, floor=0
    )
    alive = Line("alive", over(reports, lambda r: r["alive_share"], 100), BLUE)
    layer_lines(middle, points, [alive], ylabel="alive, %", floor=0, ceiling=102, legend=False)
    twins = [
        Line("decoder cosine > 0.9", over(reports, lambda r: _twins(r)[0], 100), CYAN, "-", "o"),
        Line("fires together, IoU > 0.5", over(reports, lambda r: _twins(r)[1], 100), YELLOW, "--", "s"),
    ]
    layer_lines(right, points, twins, ylabel="with a twin, %", floor=0)


def _draw_density(reports: Reports, figure: Any) -> None:
    edges = next(iter(reports.values()))["density"]["log10_edges"]
    rows = []
    for report in reports.values():
        counts = [report["density"]["never"], *report["density"]["counts"]]
        rows.append([100 * count / report["n_features"] or None for count in counts])
    columns = ["never", *(f"{edge:g}" if edge == int(edge) and i else "" for i, edge in enumerate(edges[:-1]))]
    axes = figure.subplots()
    heatmap(
        figure,
        axes,
        rows,
        rows=[*map(short, reports)],
        columns=columns,
        label="% of features",
        ceiling=None,
        write=False,
    )
    axes.set(xlabel="log10 of the share of frames (lower edge)", ylabel="layer")


def _draw_splice(reports: Reports, figure: Any) -> None:
    for axes, (key, title) in zip(figure.subplots(1, 3), SPLICED.items(), strict=True):
        lines = []
        for mode, style in (("plain", "-"), ("timestamps", "--")):
            for arm, (colour, marker) in ARMS.items():
                y = over(reports, lambda r, m=mode, a=arm, k=key: r[m].get(a, {}).get(k), 100)
                name = arm.replace("_", " ") if mode == "plain" else ""
                lines.append(Line(name or "_", y, colour, style, marker))
        layer_lines(axes, [*map(short, reports)], lines, ylabel=title, floor=0, legend=key == "changed_words")


def _draw_stability(reports: Reports, figure: Any) -> None:
    left, middle, right = figure.subplots(1, 3)
    points = [*map(short, reports)]
    for axes, key, title in (
        (left, "matched_share_a", "matched, % of all"),
        (middle, "matched_share_of_alive_a", "matched, % of alive"),
    ):
        lines = []
        for domain in STABILITY_ROWS:
            colour, marker = DOMAIN_LINES[domain]
            y = over(reports, lambda r, d=domain, k=key: (r["by_domain"][d] or {}).get(k), 100)
            lines.append(Line(domain, y, colour, "-", marker))
        if axes is left:
            lines.append(Line("shifted", over(reports, _shifted_share, 100), PURPLE, ":", "x"))
        layer_lines(axes, points, lines, ylabel=title, floor=0, ceiling=102, legend=axes is left)
    cosines = {
        "best match": ("best_for_a", BLUE, "-", "o"),
        "assigned": ("assigned", CYAN, "--", "s"),
        "random": ("best_for_a_among_random", PURPLE, ":", "x"),
    }
    lines = [
        Line(name, over(reports, lambda r, k=key: _mean((r["decoder"] or {}).get(k))), colour, style, marker)
        for name, (key, colour, style, marker) in cosines.items()
    ]
    layer_lines(right, points, lines, ylabel="cosine of decoder rows, mean", floor=0, ceiling=1.02)


def _shifted_share(report: Mapping[str, Any]) -> float | None:
    row = report["by_domain"]["all"]
    return None if row is None else row["matched_a_when_shifted"] / report["a"]["n_features"]
