"""The results of a run, by layer: whatever JSON files `evaluate`, `features`, ... have written below a folder.

    results = read_results("runs/lab-base")
    results.of("quality")["encoder.layers.3"]["all"]["explained_variance"]

Files are known by their names and say themselves which layer they are of, so a folder of reports that were made one
command at a time does as well as a run of `steer-asr-train lab`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from steer_asr._files import write_text
from steer_asr.errors import SteerOptionError
from steer_asr.hooks import OUTPUT_HOOK_POINT
from steer_asr_training.lab.layout import LAB_FILE

KEYS: dict[str, tuple[str, ...]] = {
    "quality": ("all", "parts", "l0", "alive_share", "density", "duplicates", "random_sae"),
    "stability": ("a", "b", "by_domain", "decoder"),
    "features": ("features", "specialised", "alive"),
    "search": ("labels", "windows"),
    "phonemes": ("any_feature", "by_phone", "mean_f1"),
    "boundaries": ("start", "end", "tolerance_s"),
    "probe": ("target", "curve", "majority"),
    "erasure": ("target", "variants", "n_features"),
}
"""Names of the result files, and what each has to hold."""
SIDES = 20
"""Bins of `selectivity`."""


@dataclass(frozen=True)
class Found:
    """One result file."""

    kind: str
    path: Path
    report: dict[str, Any]
    point: str


@dataclass(frozen=True, eq=False)
class Results:
    """All result files below a folder."""

    folder: Path
    found: Sequence[Found]
    lab: Mapping[str, Any] | None = None
    """`lab.json`, when a run of the laboratory made them."""
    not_shown: Sequence[str] = field(default_factory=list)
    """Files that say the same as another one of another dictionary at the same layer."""

    @property
    def points(self) -> list[str]:
        """Hook points of which there is anything, in the order of the model."""
        return sorted({found.point for found in self.found}, key=layer_order)

    def of(self, kind: str, which: Callable[[dict[str, Any]], bool] = lambda _: True) -> dict[str, dict[str, Any]]:
        """Reports of one kind by hook point, in the order of the model; `which` picks among several."""
        chosen = [f for f in self.found if f.kind == kind and which(f.report)]
        chosen.sort(key=lambda found: layer_order(found.point))
        return _first(chosen)

    def asked(self, kind: str) -> list[str]:
        """What the reports of a kind were asked about, sorted: `gender`, or `phone AA` for an erasure."""
        return sorted({question(f.report) for f in self.found if f.kind == kind})

    @property
    def left_out(self) -> dict[str, str]:
        """Jobs that the laboratory could not do, and why."""
        jobs = self.lab["jobs"] if self.lab else {}
        return {name: job["left_out"] for name, job in jobs.items() if job["left_out"]}


def _first(found: Sequence[Found]) -> dict[str, dict[str, Any]]:
    by_point: dict[str, dict[str, Any]] = {}
    for each in found:
        by_point.setdefault(each.point, each.report)
    return by_point


def question(report: Mapping[str, Any]) -> str:
    """What a probe, an erasure or a comparison of seeds was about; "" for the others."""
    if "variants" in report:
        return f"{report.get('label', '')} {report['target']}".strip()
    if "by_domain" in report:
        return f"{report['a']['name']} {report['b']['name']}"
    return str(report.get("target", ""))


def layer_order(point: str) -> tuple[int, int, str]:
    """Sorts hook points: layers by number, then the final output, then anything else by name."""
    if match := re.fullmatch(r"encoder\.layers\.(\d+)", point):
        return (0, int(match[1]), point)
    return (1 if point == OUTPUT_HOOK_POINT else 2, 0, point)


def short(point: str) -> str:
    """A hook point on an axis: "3" for encoder.layers.3."""
    return re.sub(r"^encoder\.(layers\.)?", "", point)


def read_results(folder: str | Path) -> Results:
    """Raises `SteerOptionError` for a folder without results, and for a file that is no such result."""
    folder = Path(folder)
    if not folder.is_dir():
        raise SteerOptionError(f"{folder} is no folder; give one that steer-asr-train lab, evaluate, ... wrote to")
    raw = [(kind, path, _read(path, kind)) for kind in KEYS for path in sorted(folder.rglob(f"{kind}.json"))]
    if not raw:
        names = ", ".join(f"{kind}.json" for kind in KEYS)
        raise SteerOptionError(f"{folder} holds no results ({names}); steer-asr-train lab, evaluate, ... write them")
    beside = {path.parent: point for _, path, report in raw if (point := _point(report))}
    found, seen, not_shown = [], set(), []
    for kind, path, report in raw:
        point = _point(report) or beside.get(path.parent) or "unknown"
        same = (kind, point, question(report) if kind != "stability" else path.parent.name)
        if same in seen:
            not_shown.append(str(path.relative_to(folder)))
            continue
        seen.add(same)
        found.append(Found(kind, path, report, point))
    lab = folder / LAB_FILE
    content = _json(lab) if lab.is_file() else None
    if content is not None and not {"recipe", "jobs"} <= set(content):
        raise SteerOptionError(f"{lab}: not written by steer-asr-train lab: recipe or jobs is missing")
    return Results(folder, found, content, not_shown)


def selectivity(report: Mapping[str, Any]) -> list[int]:
    """How many alive features of a `features` report spend which share of their firing on speech, in `SIDES` bins.

    The share is that of rates, so that it does not depend on how much speech there is: 1 fires on speech alone.
    """
    if "selectivity" in report:
        return list(report["selectivity"])
    shares = []
    for row in report["features"]:
        speech, quiet = row["fires"]["kind:speech"], row["fires"]["kind:nonspeech"]
        if speech is not None and quiet is not None and speech + quiet > 0:
            shares.append(speech / (speech + quiet))
    return np.histogram(shares, bins=SIDES, range=(0.0, 1.0))[0].tolist()


def telling(report: Mapping[str, Any], n: int) -> list[dict[str, Any]]:
    """The `n` features whose best label is told furthest above calling every window positive."""
    rows = [(_gain(row), row) for row in report["features"] if row["best_labels"]]
    rows.sort(key=lambda pair: (-pair[0], pair[1]["feature"]))
    return [row for gain, row in rows[:n] if gain > 0]


def publish(results: Results, folder: Path, *, n_features: int = 20) -> None:
    """Copies the results into `folder`, small and without paths of this machine: of features, the most telling ones."""
    root = str(results.folder.resolve())
    for found in results.found:
        report = dict(found.report)
        if found.kind == "features":
            n_all = report.get("n_features", len(report["features"]))
            report |= {"n_features": n_all, "selectivity": selectivity(report), "features": telling(report, n_features)}
            report["features"] = [_without_top(row) for row in report["features"]]
        target = folder / found.path.relative_to(results.folder)
        text = json.dumps(_anywhere(_rounded(report), root, str(results.folder)), separators=(",", ":"))
        write_text(target, text + "\n")
    if results.lab is not None:
        text = json.dumps(_anywhere(results.lab, root, str(results.folder)), indent=1)
        write_text(folder / LAB_FILE, text + "\n")


def _gain(row: Mapping[str, Any]) -> float:
    best = row["best_labels"][0]
    return (best["f1"] - best["always"]) / max(1e-9, 1 - best["always"])


def _without_top(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"top": row["top"][:2], "frame_rates": {}, "acoustics": None}


def _rounded(value: Any) -> Any:
    """Five digits are more than any of these numbers has."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value


def _anywhere(value: Any, *roots: str) -> Any:
    """Paths inside the run relative to it, other absolute paths by their names."""
    if isinstance(value, str):
        for root in roots:
            value = value.replace(f"{root}/", "")
        return Path(value).name if value.startswith("/") and " " not in value else value
    if isinstance(value, Mapping):
        return {key: _anywhere(item, *roots) for key, item in value.items()}
    return [_anywhere(item, *roots) for item in value] if isinstance(value, list) else value


def _point(report: Mapping[str, Any]) -> str | None:
    return report["a"]["hook_point"] if "by_domain" in report else report.get("hook_point")


def _read(path: Path, kind: str) -> dict[str, Any]:
    report = _json(path)
    if missing := [key for key in KEYS[kind] if key not in report]:
        raise SteerOptionError(f"{path}: not a result that steer-asr-train writes: {', '.join(missing)} is missing")
    return report


def _json(path: Path) -> dict[str, Any]:
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SteerOptionError(f"{path}: cannot be read as a result ({error})") from error
    if not isinstance(report, dict):
        raise SteerOptionError(f"{path}: a result is a JSON object")
    return report
