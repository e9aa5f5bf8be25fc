"""`steer-asr-train lab`: audio to activations once, dictionaries at every layer and seed, and every analysis of them.

    run_lab(load_lab_recipe("lab-base.yaml", data="/data"), "runs/lab-base")

Each job is one of the commands, called with the recipe's options, so that its files are those the command writes. A
job that is done with the same options is not done again; an interrupted one starts over (collect and fit resume).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

import steer_asr
from steer_asr._files import write_text
from steer_asr.errors import SteerOptionError
from steer_asr.manifest import read_manifest
from steer_asr_training.collect import CollectConfig
from steer_asr_training.encoders import load_encoder
from steer_asr_training.fit import fit_layers
from steer_asr_training.lab.estimate import Estimate, estimate
from steer_asr_training.lab.layout import RunFolder
from steer_asr_training.lab.recipe import COMMANDS, Audio, LabRecipe, chosen
from steer_asr_training.make import collect_in_parallel
from steer_asr_training.store import ActivationStore

FILES = {
    "evaluate": "quality.json",
    "features": "features.json",
    "search": "search.json",
    "phonemes": "phonemes.json",
    "boundaries": "boundaries.json",
    "probe": "probe.json",
    "erase": "erasure.json",
    "stability": "stability.json",
}
"""What each analysis writes."""
PARTS = ("train", "dev")


@dataclass(frozen=True)
class Job:
    """One step of a run."""

    name: str
    options: dict[str, Any]
    """What it depends on, as JSON values: a job that was done with other ones is done again."""
    made: tuple[Path, ...]
    """The files that show that it is done."""
    do: Callable[[], object]


class Ledger:
    """What of a run is done: `lab.json`."""

    def __init__(self, folder: RunFolder, recipe: LabRecipe) -> None:
        self.folder, self.recipe = folder, recipe
        self.jobs: dict[str, dict[str, Any]] = {}
        if folder.lab_file.is_file():
            self.jobs = json.loads(folder.lab_file.read_text(encoding="utf-8"))["jobs"]

    def is_done(self, job: Job) -> bool:
        before = self.jobs.get(job.name)
        if before is None or before["options"] != job.options:
            return False
        return before["left_out"] is not None or all(path.is_file() for path in job.made)

    def note(self, job: Job, seconds: float, left_out: str | None = None) -> None:
        """Writes down how long a job took, or why it could not be done."""
        self.jobs[job.name] = {"options": job.options, "seconds": round(seconds, 1), "left_out": left_out}
        self.save()

    def save(self) -> None:
        made_with = {
            "steer_asr": steer_asr.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "threads": torch.get_num_threads(),
        }
        content = {"recipe": plain(asdict(self.recipe)), "made_with": made_with, "jobs": self.jobs}
        write_text(self.folder.lab_file, json.dumps(content, indent=1) + "\n")


def run_lab(recipe: LabRecipe, folder: str | Path, *, workers: int = 1) -> Path:
    """Does whatever is not done yet. Returns the folder.

    An analysis that the data do not allow (no alignments, too few speakers) is left out with its reason; once all
    others are done, `SteerOptionError` names them. Raises what collect and fit raise.
    """
    run = RunFolder(Path(folder))
    jobs = plan_jobs(recipe, run, workers=workers)
    ledger = Ledger(run, recipe)
    ledger.save()
    todo = [job for job in jobs if not ledger.is_done(job)]
    if todo:
        _say(f"{recipe.name}: {len(todo)} of {len(jobs)} jobs, {_how_long(recipe, run, todo, workers)}")
    for n, job in enumerate(todo, start=1):
        _say(f"[{n}/{len(todo)}] {job.name}")
        _do(job, ledger)
    if left_out := [f"{name} ({job['left_out']})" for name, job in ledger.jobs.items() if job["left_out"]]:
        raise SteerOptionError(f"{run.path}: left out: {'; '.join(left_out)}")
    return run.path


def plan_jobs(recipe: LabRecipe, run: RunFolder, *, workers: int = 1) -> list[Job]:
    """Every job of a run in order. Raises `SteerOptionError` for hook points that the model lacks."""
    known = load_encoder(recipe.model, precision=recipe.precision).hook_points()
    points = chosen(recipe.hook_points, known, recipe.name)
    fitted = {seed: recipe.points_of(seed, known) for seed in recipe.seeds}
    jobs = [_collect_job(recipe, run, part, points, workers) for part in PARTS]
    jobs += [_fit_job(recipe, run, seed, fitted[seed]) for seed in recipe.seeds]
    first, *others = recipe.seeds
    for analysis in COMMANDS:
        for options in recipe.asked(analysis):
            wanted = chosen(options.pop("hook_points", ["all"]), known, f"{recipe.name}: {analysis}")
            if analysis == "stability":
                pairs = product(others, wanted)
                jobs += [
                    _stability_job(run, first, seed, point, options)
                    for seed, point in pairs
                    if point in fitted[seed] and point in fitted[first]
                ]
            else:
                jobs += [
                    _analysis_job(recipe, run, analysis, point, options) for point in wanted if point in fitted[first]
                ]
    source = _digest([job.options for job in jobs if not _is_analysis(job)])
    jobs = [replace(job, options=job.options | {"made_from": source}) if _is_analysis(job) else job for job in jobs]
    names = [job.name for job in jobs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SteerOptionError(f"{recipe.name}: {twice[0]} stands twice among the analyses")
    return jobs


def collect_config(recipe: LabRecipe, run: RunFolder, part: str, points: list[str]) -> CollectConfig:
    """Of the part "train" or "dev"; writes the manifests without short clips, where the recipe wants them."""
    audio: Audio = getattr(recipe, part)
    manifests = audio.manifests
    if audio.min_clip_s > 0:
        manifests = tuple(str(path) for path in _long_clips(audio, run.manifests(part)))
    return recipe.collect_config(audio, manifests, points)


def plain(value: Any) -> Any:
    """As JSON would give it back."""
    return json.loads(json.dumps(value))


def _collect_job(recipe: LabRecipe, run: RunFolder, part: str, points: list[str], workers: int) -> Job:
    folder = run.activations(part)
    options = {"audio": asdict(getattr(recipe, part)), "model": recipe.model, "hook_points": points}

    def do() -> None:
        collect_in_parallel(collect_config(recipe, run, part, points), folder, workers)

    return Job(f"collect {part}", plain(options), (folder / "store.json",), do)


def _fit_job(recipe: LabRecipe, run: RunFolder, seed: int, points: list[str]) -> Job:
    config = replace(recipe.fit, seed=seed)

    def do() -> None:
        fit_layers(config, ActivationStore(run.activations("train")), run.fit(seed), points)

    made = tuple(run.sae(seed, point) / "cfg.json" for point in points)
    return Job(f"fit seed {seed}", plain({"fit": asdict(config), "hook_points": points}), made, do)


def _stability_job(run: RunFolder, a: int, b: int, point: str, options: dict[str, Any]) -> Job:
    out = run.results(point, "stability", str(a), str(b))
    arguments = {"sae_a": run.sae(a, point), "sae_b": run.sae(b, point), "activations": run.activations("dev")}
    do = partial(COMMANDS["stability"], **arguments, out=out, **options)
    return Job(f"stability {a} {b} {point}", plain(options), (out / FILES["stability"],), do)


def _analysis_job(recipe: LabRecipe, run: RunFolder, analysis: str, point: str, options: dict[str, Any]) -> Job:
    asked = [str(options[key]) for key in ("target", "concept") if key in options]
    out = run.results(point, analysis, *asked) if asked else run.results(point)
    sae = run.sae(next(iter(recipe.seeds)), point)
    given: dict[str, Any] = {key: value for key, value in options.items() if key != "splice"}
    if (splice := options.get("splice")) is not None:
        options = options | {"splice": splice is True or (isinstance(splice, list | tuple) and point in splice)}
    if options.get("splice") or analysis == "features":
        given["model"] = recipe.model
    if analysis == "evaluate":
        given["sae"] = sae
    else:
        given["dictionary"] = str(sae)
    do = partial(COMMANDS[analysis], activations=run.activations("dev"), out=out, **given)
    return Job(" ".join([analysis, *asked, point]), plain(options), (out / FILES[analysis],), do)


def _is_analysis(job: Job) -> bool:
    return job.name.split()[0] in COMMANDS


def _digest(options: object) -> str:
    """Of the audio and the fits: results of others are not results of these."""
    return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:12]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def _how_long(recipe: LabRecipe, run: RunFolder, todo: list[Job], workers: int) -> Estimate:
    known = load_encoder(recipe.model, precision=recipe.precision).hook_points()
    points = chosen(recipe.hook_points, known, recipe.name)
    configs = {part: collect_config(recipe, run, part, points) for part in PARTS}
    return estimate(recipe, configs, [(job.name, job.options) for job in todo], workers or os.cpu_count() or 1)


def _do(job: Job, ledger: Ledger) -> None:
    started = time.perf_counter()
    try:
        with _logged(ledger.folder.log, job.name):
            job.do()
    except SteerOptionError as error:
        if not _is_analysis(job):
            raise
        ledger.note(job, time.perf_counter() - started, left_out=str(error))
        _say(f"left out: {error}")
        return
    ledger.note(job, time.perf_counter() - started)


@contextlib.contextmanager
def _logged(path: Path, name: str) -> Iterator[None]:
    """Commands print their tables, which would drown the progress of a long run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as log:
        log.write(f"\n==== {name}\n")
        with contextlib.redirect_stdout(log):
            yield


def _long_clips(audio: Audio, folder: Path) -> list[Path]:
    """Manifests of the clips that are long enough, with absolute paths; written anew only where they differ."""
    written = []
    for manifest in map(Path, audio.manifests):
        read_manifest(manifest)  # says what is wrong with a broken line
        lines = []
        for line in manifest.read_text(encoding="utf-8-sig").split("\n"):
            row: dict[str, Any] = json.loads(line) if line.strip() else {"duration": -1.0}
            if row["duration"] >= audio.min_clip_s:
                paths = {k: row[k] for k in ("audio_filepath", "alignment_filepath") if row.get(k)}
                row |= {key: str((manifest.parent / value).resolve()) for key, value in paths.items()}
                lines.append(json.dumps(row, ensure_ascii=False))
        if not lines:
            raise SteerOptionError(f"{manifest}: no clip lasts {audio.min_clip_s:g} s; lower min_clip_s")
        target, text = folder / manifest.name, "\n".join(lines) + "\n"
        if not target.is_file() or target.read_text(encoding="utf-8") != text:
            write_text(target, text)
        written.append(target)
    return written
