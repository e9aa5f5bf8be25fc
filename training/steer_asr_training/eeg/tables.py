"""Reports of `steer-asr-train eeg` as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steer_asr_training.analysis.tables import grid, number, percent

N_LISTED = 20
HEADER = ("layer", "features", "tested", "significant", "%", "by t-test", "mean r", "max r", "chance 95 %", "least p")


def study_markdown(report: Mapping[str, Any], picture: str | None = None) -> str:
    """`eeg.md`."""
    listeners = report["listeners"]
    trials = sum(one["trials"] for one in listeners)
    channels = report["channels"]
    where = ", ".join(channels) if len(channels) <= 4 else f"{len(channels)} channels"
    rows = [HEADER, _row("-", "acoustic envelope", report["acoustic_envelope"])]
    for layer in report["layers"]:
        for name, key in (("SAE", "sae"), ("random SAE", "random_sae"), ("SAE, wrong pairing", "wrong_pairing")):
            rows.append(_row(layer["hook_point"], name, layer[key]))
    lines = [
        f"# EEG: {report['model']}\n",
        f"{len(listeners)} listeners, {trials} trials, {report['minutes']:.1f} minutes, {where}, reference "
        f"{report['reference']}. Response functions from {report['lags_s'][0]:g} to {report['lags_s'][1]:g} s; r is "
        "Pearson's between predicted and measured EEG of held-out trials, averaged over trials, channels and "
        "listeners.\n",
        f"{grid(rows)}\n",
        f"Significant: p of the EEG turned against the stimulus, Holm-Bonferroni over the row's features, below "
        f"{report['alpha']:g}. By t-test: one-sided over listeners, Holm-Bonferroni. Chance 95 %: mean over features. "
        "Wrong pairing: EEG of another stimulus; nothing should be significant there.\n",
    ]
    if picture:
        lines.append(f"![scores]({picture})\n")
    lines += [_best(layer) for layer in report["layers"]]
    if report["bad_channels"]:
        lines.append(_bad(report["bad_channels"]))
    return "\n".join(lines)


def _row(layer: str, name: str, row: Mapping[str, Any] | None) -> tuple[str, ...]:
    if row is None:
        return (layer, name, *["-"] * (len(HEADER) - 2))
    by_t = row["significant_by_t_test"]
    counts = (row["features_tested"], row["significant"])
    scores = (row["mean_r"], row["max_r"], row["null_p95_r"])
    return (
        *(layer, name, *map(str, counts), percent(row["significant_share"]), "-" if by_t is None else str(by_t)),
        *(number(score, 4) for score in scores),
        f"{row['smallest_p']:.2g}",
    )


def _best(layer: Mapping[str, Any]) -> str:
    """The features of one layer with the highest scores."""
    peaks = {one["feature"]: one["peak_s"] for one in layer["sae"]["response_functions"]}
    features = sorted(layer["sae"]["features"], key=lambda row: -row["r"])[:N_LISTED]
    header = ("feature", "r", "chance 95 %", "p", "p Holm", "p Holm wrong pairing", "p Holm t-test", "peak ms")
    rows = [
        (
            str(row["feature"]),
            number(row["r"], 4),
            number(row["null_p95"], 4),
            f"{row['p']:.2g}",
            f"{row['p_holm']:.2g}",
            *("-" if (p := row.get(key)) is None else f"{p:.2g}" for key in ("p_holm_wrong_pairing", "p_t_holm")),
            f"{1000 * peaks[row['feature']]:.0f}" if row["feature"] in peaks else "-",
        )
        for row in features
    ]
    also = layer["sae"].get("significant_with_wrong_pairing_too")
    note = (
        f"{also} of the significant features are significant with the EEG of another stimulus, too: they follow "
        "the time since the window or the trial began, and not the sound.\n\n"
        if also
        else ""
    )
    return (
        f"## {layer['hook_point']}: {layer['dictionary']}\n\n{layer['features_that_fire']} features fire on these "
        f"stimuli. {note}The best of those tested:\n\n{grid([header, *rows])}\n"
    )


def _bad(found: list[Mapping[str, Any]]) -> str:
    rows = [
        (one["subject"], one["eeg"], ", ".join(f"{name} ({why})" for name, why in one["channels"].items()))
        for one in found
    ]
    return f"## Bad channels\n\nLeft out of every trial.\n\n{grid([('subject', 'recording', 'channels'), *rows])}\n"


def power_markdown(report: Mapping[str, Any]) -> str:
    """`power.md`."""
    made, n = report["simulated"], report["studies"]
    rows = [
        ("what", "value"),
        ("planted features found, %", percent(report["planted_found"])),
        ("studies with a false positive", f"{report['studies_with_a_false_positive']} of {n}"),
        ("mean r of planted features", number(report["mean_r_of_planted"], 4)),
        ("95 % of chance lie below r", number(report["r_of_chance_p95"], 4)),
    ]
    return (
        f"# Power\n\n{n} simulated studies of {made['n_listeners']} listeners, {made['n_trials']} trials of "
        f"{made['trial_s']:g} s, {made['n_features']} features, of which {made['n_planted']} drive the EEG with a "
        f"correlation of {made['coupling']:g} at {1000 * made['latency_s']:.0f} ms. Family-wise level "
        f"{report['alpha']:g}.\n\n{grid(rows)}\n"
    )
