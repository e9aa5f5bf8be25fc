"""Packs with fewer features, out of one learned edit: how few does it take?

    for line in fewer_packs(recipe, store, "fit/sae", model, "learn", "runs/features", (16, 32, "all"), steps=None):
        print(line)

Of a learned run's features the gate's best are kept, in the order in which they tell speech from non-speech, and those
whose learned edit moves non-speech most, in the same proportion as in the run. The gate is then fitted again on what is
left, and the edit learned on from what it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from steer_asr.errors import SteerOptionError
from steer_asr.models import ModelFiles
from steer_asr.sae import load_features
from steer_asr_training.export import export, load_learned
from steer_asr_training.learn import Learned, LearningRun, save_learned, select, served
from steer_asr_training.learn_config import LearnConfig
from steer_asr_training.make import uncalibrated
from steer_asr_training.recipe import Recipe
from steer_asr_training.store import ActivationStore

Size = int | None
"""None: all that were learned."""


def parse_sizes(text: str) -> tuple[Size, ...]:
    """`"16,32,all"`; raises `SteerOptionError` for anything but numbers from 2 on and `all`."""
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if part != "all" and not (part.isdecimal() and int(part) >= 2):
            raise SteerOptionError(f"size {part!r} is neither a number of features from 2 on nor 'all'")
    return tuple(None if part == "all" else int(part) for part in parts)


def fewer_packs(
    recipe: Recipe,
    store: ActivationStore,
    sae: str | Path,
    model: ModelFiles,
    learned: str | Path,
    out: str | Path,
    sizes: Sequence[Size],
    steps: int | None,
) -> Iterator[str]:
    """Writes a pack per size, `out`/16 and so on, and yields what each is. Finished ones are not made again.

    Raises `SteerOptionError` for a size above what was learned, `PackError` when `learned` is no finished run.
    """
    whole = load_learned(learned, sae)
    n = min(recipe.learn.n_features, len(whole.feature_ids))
    if too_many := [size for size in sizes if size is not None and size > n]:
        raise SteerOptionError(f"size {too_many[0]}: the run in {learned} edits {n} features")
    steps = max(1, recipe.learn.steps // 3) if steps is None else steps
    run = LearningRun(recipe.learn, store, load_features(Path(sae)), model, Path(learned))
    todo = [size for size in sizes if not (Path(out) / _name(size) / "steer.json").is_file()]
    z = run.activations(whole.feature_ids) if todo else []
    for size in sizes:
        folder = Path(out) / _name(size)
        if size in todo:
            few = whole
            if size is not None and size < len(whole.feature_ids):
                columns = kept(whole, mean_effect(whole, z, run.labels == 0), recipe.learn, size)
                few = learned_again(run, whole, z, columns, folder.with_name(f"{folder.name}.work"), steps)
            export(uncalibrated(recipe, few, model, f"{recipe.name}-{_name(size)}"), folder)
        yield json.dumps({"pack": str(folder), **_describe(folder)})


def mean_effect(learned: Learned, z: Sequence[np.ndarray], quiet: np.ndarray) -> np.ndarray:
    """How far each feature's edit moves the average frame of the windows `quiet`, bool [window]: float [n_features]."""
    moved = np.zeros(len(learned.feature_ids))
    for i in np.flatnonzero(quiet):
        activations = z[int(i)].astype(np.float32)
        weights = learned.gate(activations).weights[:, None]
        moved += np.abs(weights * (activations * (learned.scales - 1) + learned.adds)).mean(axis=0)
    return moved / max(1, int(quiet.sum()))


def kept(learned: Learned, effect: np.ndarray, config: LearnConfig, size: int) -> list[int]:
    """Which columns of the learned edit stay: the gate's first ones, and of the others those of most effect."""
    n = min(config.n_features, len(learned.feature_ids))  # behind these are those that the gate only hears
    n_gate = max(1, round(size * min(config.n_gate_features, n) / n))
    others = [int(i) for i in np.argsort(-effect, kind="stable") if n_gate <= i < n]
    return [*range(n_gate), *others[: size - n_gate]]


def learned_again(
    run: LearningRun, whole: Learned, z: Sequence[np.ndarray], columns: Sequence[int], folder: Path, steps: int
) -> Learned:
    """The edit on the given columns alone; its state lies in `folder`, from which an interrupted run goes on."""
    chosen = list(columns)
    folder.mkdir(parents=True, exist_ok=True)
    ids = tuple(whole.feature_ids[i] for i in chosen)
    activations = [window[:, chosen] for window in z]
    gate = run.fit_gate(activations)
    start = (whole.scales[chosen], whole.adds[chosen])
    scales, adds = run.learn_edits(ids, gate, activations, start=start, steps=steps, folder=folder)
    few = Learned(ids, scales, adds, served(gate, run.config), select(run.dictionary, ids))
    save_learned(folder, run.config, few)
    return few


def _name(size: Size) -> str:
    return "all" if size is None else str(size)


def _describe(folder: Path) -> dict[str, int]:
    said = json.loads((folder / "steer.json").read_text(encoding="utf-8"))
    return {"features": len(said["feature_ids"]), "edited": len({edit["feature"] for edit in said["edits"]})}
