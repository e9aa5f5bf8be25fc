"""Reports on phones, probes, erasure and boundaries: Markdown, and one picture each where matplotlib is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from steer_asr._files import atomic_path
from steer_asr_training.analysis.boundaries import EVENTS
from steer_asr_training.analysis.tables import grid, number, percent

BLUE, RED, GREY = "#4477aa", "#cc6677", "#999999"


def phonemes_markdown(report: Mapping[str, Any]) -> str:
    """`phonemes.md`."""
    names = {
        "as_published": "as the paper states it: same frames choose and are measured",
        "held_out": "chosen on some speakers, measured on the others",
        "control": "the same with the phones of half a window away",
    }
    columns = ("spoken", "covered", "where_covered", "all", "agreeing")
    head = ("any feature", "spoken %", "covered %", "where covered %", "with silence %", "firings agree %")
    any_feature: list[tuple[str, ...]] = [head]
    for key, title in names.items():
        any_feature.append((title, *(percent(report["any_feature"][key][column]) for column in columns)))
    best = [
        ("best single feature, mean over phones", "F1", "correlation"),
        ("held-out speakers", number(report["mean_f1"]), number(report["mean_correlation"])),
        ("control", number(report["control_mean_f1"]), number(report["control_mean_correlation"])),
    ]
    header = ("phone", "frames", "carried by", "feature", "F1", "precision", "recall", "by correlation", "correlation")
    rows = [
        (
            row["phone"] or "(silence)",
            *(str(row[key]) for key in ("frames", "features_that_carry", "feature")),
            *(number(row[key]) for key in ("f1", "precision", "recall")),
            str(row["feature_by_correlation"]),
            number(row["correlation"]),
        )
        for row in sorted(report["by_phone"], key=lambda row: -row["f1"])
    ]
    left_out = f" Too rare: {', '.join(map(repr, report['left_out']))}." if report["left_out"] else ""
    return (
        f"# Phones in {report['dictionary']}\n\n{report['frames']} frames of {report['windows']} windows by "
        f"{report['speakers']} speakers at `{report['hook_point']}`, measured on {report['frames_measured']} frames by "
        f"{report['speakers_measured']} of them.{left_out}\n\n{grid(any_feature)}\n\n{grid(best)}\n\n"
        f"{grid([header, *rows])}\n"
    )


def probe_markdown(report: Mapping[str, Any]) -> str:
    """`probe.md`."""
    rows: list[tuple[str, ...]] = [
        ("features", "accuracy", "balanced", "F1", "MCC", "shuffled labels: balanced", "MCC")
    ]
    for point in report["curve"]:
        values = (point[key] for key in ("accuracy", "balanced_accuracy", "f1", "mcc"))
        other = (point["shuffled"][key] for key in ("balanced_accuracy", "mcc"))
        rows.append((str(point["k"]), *map(number, values), *map(number, other)))
    majority = report["majority"]
    rows.append(("majority", *(number(majority[k]) for k in ("accuracy", "balanced_accuracy", "f1", "mcc")), "-", "-"))
    classes = ", ".join(f"{name} {count}" for name, count in report["classes"].items())
    return (
        f"# {report['target']} in {report['dictionary']}\n\n{report['rows']} {report['unit']}s ({classes}) of "
        f"{report['groups']} speakers or recordings, {report['folds']} folds, none on both sides.\n\n{grid(rows)}\n\n"
        f"Enough: {report['k_enough'] or '-'} features reach 95 % of the best MCC. First by Fisher score: "
        f"{', '.join(map(str, report['top_features']))}.\n"
    )


def erasure_markdown(report: Mapping[str, Any]) -> str:
    """`erasure.md`."""
    head = ("probe", "target at first", "erased at", "%", "others then", "all others kept until", "put back 1", "2")
    rows: list[tuple[str, ...]] = [head]
    for name, found in report["variants"].items():
        back = found["target_mcc_after_putting_back"]
        rows.append(
            (
                name,
                number(found["curve"][0]["target_mcc"]),
                _or_dash(found["erased_at"]),
                percent(found["erased_at_share"]),
                number(found["others_mean_mcc_when_erased"]),
                _or_dash(found["all_others_kept_until"]),
                *(number(back.get(key)) for key in ("1", "2")),
            )
        )
    parts = [
        f"# Erasing {report['target']} from {report['dictionary']}\n",
        f"{report['rows']} {report['unit']}s of {', '.join(report['classes'])} by {report['groups']} speakers; "
        f"{report['fire']} of {report['n_features']} features fire. MCC on held-out speakers of probes fitted after "
        f"the removal. Erased: target below {report['erased_below']:g}; kept: above {report['kept_above']:g}.\n",
        f"{grid(rows)}\n",
    ]
    for name, found in report["variants"].items():
        lines: list[tuple[str, ...]] = [("removed", "%", "target", "others, mean", "others, least")]
        for point in found["curve"]:
            values = (point[key] for key in ("target_mcc", "others_mean_mcc", "others_min_mcc"))
            share = percent(point["removed"] / report["n_features"])
            lines.append((str(point["removed"]), share, *map(number, values)))
        parts.append(f"## Penalty: {name}\n\n{grid(lines)}\n")
    return "\n".join(parts)


def boundaries_markdown(report: Mapping[str, Any]) -> str:
    """`boundaries.md`."""
    header = ("speech", "events", "feature", "F1", "precision", "recall", "lag s", "F1 where chosen", "control F1")
    rows: list[tuple[str, ...]] = [header]
    for kind in EVENTS:
        found = report[kind]
        if not found["best"]:
            rows.append((f"{kind}s", str(found["events"]), *["-"] * 7))
        for best in found["best"] or ():
            scores = (number(best[key]) for key in ("f1", "precision", "recall", "lag_s", "f1_where_chosen"))
            rows.append((f"{kind}s", str(found["events"]), str(best["feature"]), *scores, number(found["control_f1"])))
    return (
        f"# Where speech starts and ends, in {report['dictionary']}\n\n{report['windows']} windows by "
        f"{report['speakers']} speakers at `{report['hook_point']}`. A rising edge within {report['tolerance_s']:g} s "
        "of an event is a hit, once. Chosen on half of the speakers, measured on the others; the control moves the "
        f"events by half a window. A dash: too few events.\n\n{grid(rows)}\n"
    )


def draw_phonemes(report: Mapping[str, Any], path: Path) -> str | None:
    """F1 of the best feature of every phone, as a PNG; returns its name, or None without matplotlib."""

    def draw(axes: Any) -> None:
        rows = sorted(report["by_phone"], key=lambda row: -row["f1"])
        places = range(len(rows))
        axes.bar(places, [row["f1"] for row in rows], color=BLUE)
        axes.axhline(report["control_mean_f1"] or 0.0, color=GREY, linestyle="--", label="control, mean")
        axes.set_xticks(places, [row["phone"] or "sil" for row in rows], fontsize=7, rotation=90)
        axes.set_ylabel("F1 of the best feature")
        axes.set_ylim(0, 1)
        axes.legend(frameon=False, fontsize=8)

    return _draw(path, draw)


def draw_probe(report: Mapping[str, Any], path: Path) -> str | None:
    """MCC against the number of features, as a PNG; returns its name, or None without matplotlib."""

    def draw(axes: Any) -> None:
        ks = [point["k"] for point in report["curve"]]
        axes.plot(ks, [point["mcc"] for point in report["curve"]], "o-", color=BLUE, label=report["target"])
        axes.plot(ks, [point["shuffled"]["mcc"] for point in report["curve"]], "o--", color=GREY, label="shuffled")
        axes.set_xscale("log")
        axes.set_xlabel("features, by Fisher score")
        axes.set_ylabel("MCC, held-out speakers")
        axes.legend(frameon=False, fontsize=8)

    return _draw(path, draw)


def draw_erasure(report: Mapping[str, Any], path: Path) -> str | None:
    """MCC of the target and the others against features removed, as a PNG; returns its name, or None without
    matplotlib."""

    def draw(axes: Any) -> None:
        for (name, found), style in zip(report["variants"].items(), ("-", "--", ":", "-.") * 9, strict=False):
            x = [100 * point["removed"] / report["n_features"] for point in found["curve"]]
            axes.plot(x, [p["target_mcc"] for p in found["curve"]], style, color=RED, label=f"target, {name}")
            axes.plot(x, [p["others_mean_mcc"] for p in found["curve"]], style, color=BLUE, label=f"others, {name}")
        axes.axhline(report["kept_above"], color=GREY, linewidth=0.8)
        axes.set_xlabel("% of features removed")
        axes.set_ylabel("MCC, held-out speakers")
        axes.set_title(f"erasing {report['target']}", fontsize=9)
        axes.legend(frameon=False, fontsize=7)

    return _draw(path, draw)


def draw_boundaries(report: Mapping[str, Any], path: Path) -> str | None:
    """Precision and recall of the best detectors, as a PNG; returns its name, or None without matplotlib."""

    def draw(axes: Any) -> None:
        for kind, colour in zip(EVENTS, (BLUE, RED), strict=True):
            best = report[kind]["best"] or []
            axes.scatter([b["recall"] for b in best], [b["precision"] for b in best], color=colour, label=f"{kind}s")
            for b in best[:3]:
                axes.annotate(str(b["feature"]), (b["recall"], b["precision"]), fontsize=7)
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
        axes.legend(frameon=False, fontsize=8)

    return _draw(path, draw)


def _draw(path: Path, draw: Callable[[Any], None]) -> str | None:
    if find_spec("matplotlib") is None:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure.subplots())
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150, metadata={"Software": None})
    return path.name


def _or_dash(value: int | None) -> str:
    return "-" if value is None else str(value)
