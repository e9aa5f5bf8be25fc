"""Predictions to `report.json` and `report.md`.

    report = build_report(Path("results"))          # from predictions.jsonl alone; run.json adds what was run
    write_report(report, Path("results"))

Keys of report.json, stable: `schema_version, git_sha, versions, model, pack, decoding, data, scoring, progress,
systems, differences, by_mode`. `systems.<name>` holds `nonspeech, speech, mixed, cost_of_errors, by_source, by_label,
by_category, by_snr, by_duration, top_strings, worst, cost, steering, gate, options`, for the first decoding mode of the
run; `by_mode.<mode>` holds `systems` and `differences` for every mode. Differences are to the first system. `pack` is
the first steered system's. docs/benchmark.md says what the numbers mean.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from steer_asr._files import write_text
from steer_asr_benchmarks.cost import read_cost
from steer_asr_benchmarks.examples import top_strings, worst_clips
from steer_asr_benchmarks.gate_metrics import gate_metrics
from steer_asr_benchmarks.metrics import (
    cost_metrics,
    cost_of_errors,
    difference_metrics,
    mixed_metrics,
    nonspeech_metrics,
    speech_metrics,
    speech_summary,
    steering_metrics,
)
from steer_asr_benchmarks.predictions import read_predictions
from steer_asr_benchmarks.runner import RUN_FILE, read_run
from steer_asr_benchmarks.scoring import NOT_VERBATIM, ClipScore, score_record
from steer_asr_benchmarks.stats import CONFIDENCE, RESAMPLES, SEED
from steer_asr_benchmarks.strata import strata
from steer_asr_benchmarks.table import markdown
from steer_asr_benchmarks.text import describe_normalizer

SCHEMA_VERSION = 2
REPORT_FILE, TABLE_FILE = "report.json", "report.md"


def build_report(folder: Path) -> dict[str, Any]:
    """The report on a run's folder, finished or not. Raises `ManifestError` when its predictions are broken."""
    scores = [score_record(where, record) for where, record in read_predictions(folder)]
    run = read_run(folder) if (folder / RUN_FILE).exists() else {}
    report = report_on(scores, run)
    _add_measured_costs(report["by_mode"], read_cost(folder))
    return report


def report_on(scores: Iterable[ClipScore], run: Mapping[str, Any]) -> dict[str, Any]:
    """The report on `scores`. Without `run` (run.json) systems and modes stand in the order in which they come."""
    scores = list(scores)
    options = run.get("systems", {})
    names = _in_order((score.system for score in scores), options)
    modes = _in_order((score.mode for score in scores), run.get("decoding", {}).get("modes", ()))
    scores.sort(key=lambda score: score.clip)  # so that sums are the same however a run was interrupted or sharded
    by_mode = {mode: _mode_report([s for s in scores if s.mode == mode], names, options) for mode in modes}
    if (run.get("model") or {}).get("shared_encoder"):
        _drop_costs(by_mode)
    packs = [option["pack"] | {"strength": option["strength"]} for option in options.values() if "pack" in option]
    return {
        "schema_version": SCHEMA_VERSION,
        "git_sha": run.get("git_sha"),
        "versions": run.get("versions"),
        "model": run.get("model"),
        "pack": packs[0] if packs else None,
        "decoding": run.get("decoding"),
        "data": run.get("data"),
        "scoring": {
            "normalizer": describe_normalizer(),
            "not_in_wer": {"label": NOT_VERBATIM, "other": "clips in another language than the forced one"},
            "confidence": CONFIDENCE,
            "rates": "Wilson",
            "wer_and_differences": f"bootstrap by group, {RESAMPLES} resamples, seed {SEED}",
        },
        "progress": _progress(scores, run),
        **by_mode[modes[0]],
        "by_mode": by_mode,
    }


def write_report(report: Mapping[str, Any], folder: Path, pictures: Sequence[str] = ()) -> None:
    """Writes report.json and report.md, each whole or not at all. `pictures` are names of PNG files beside them."""
    write_text(folder / REPORT_FILE, json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    write_text(folder / TABLE_FILE, markdown(report, pictures))


def _drop_costs(by_mode: Mapping[str, Any]) -> None:
    """Where systems shared one encoder pass, only the first to see a window paid for it: no latency is meant."""
    for found in by_mode.values():
        for system in found["systems"].values():
            system["cost"] = dict.fromkeys(system["cost"])


def _add_measured_costs(by_mode: Mapping[str, Any], measured: Mapping[str, Any] | None) -> None:
    """What `--measure-cost` found beats what a run saw by the way: each system had a process and the machine alone."""
    for name, modes in (measured or {"systems": {}})["systems"].items():
        for mode, cost in modes.items():
            if name in by_mode.get(mode, {"systems": {}})["systems"]:
                by_mode[mode]["systems"][name]["cost"] |= cost | {"measured_alone": True}


def _progress(scores: Sequence[ClipScore], run: Mapping[str, Any]) -> dict[str, Any]:
    """How many predictions there are, and how many there will be."""
    expected = None
    if run:
        expected = run["data"]["clips"] * len(run["systems"]) * len(run["decoding"]["modes"])
    return {
        "predictions": len(scores),
        "expected": expected,
        "complete": None if expected is None else len(scores) == expected,
    }


def _mode_report(scores: Sequence[ClipScore], names: Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
    by_system = {name: [score for score in scores if score.system == name] for name in names}
    by_system = {name: found for name, found in by_system.items() if found}
    first, *others = by_system
    reference = {score.clip: score for score in by_system[first]}
    return {
        "systems": {
            name: _system_report(found, None if name == first else reference) | {"options": options.get(name)}
            for name, found in by_system.items()
        },
        "differences": {
            name: {"to": first} | difference_metrics({score.clip: score for score in by_system[name]}, reference)
            for name in others
        },
    }


def _system_report(scores: Sequence[ClipScore], reference: Mapping[str, ClipScore] | None) -> dict[str, Any]:
    speech = [score for score in scores if score.kind == "speech"]
    languages = sorted({score.lang for score in speech})
    return {
        "nonspeech": nonspeech_metrics([score for score in scores if score.kind == "nonspeech"]),
        "speech": speech_metrics(speech, reference)
        | {"by_language": {lang: speech_summary([s for s in speech if s.lang == lang]) for lang in languages}},
        "mixed": mixed_metrics([score for score in scores if score.kind == "mixed"]),
        "cost_of_errors": cost_of_errors(scores),
        **strata(scores),
        "top_strings": top_strings(scores),
        "worst": worst_clips(scores, reference),
        "cost": cost_metrics(scores),
        "steering": steering_metrics(scores),
        "gate": gate_metrics(scores),
    }


def _in_order(found: Iterable[str], order: Iterable[str]) -> list[str]:
    """Distinct names, those of `order` first and in its order."""
    present = dict.fromkeys(found)
    return [name for name in dict.fromkeys((*order, *present)) if name in present]
