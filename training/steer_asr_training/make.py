"""`steer-asr-train make`: a recipe to a finished steer pack, all steps in a row, resumable at each of them."""

from __future__ import annotations

import multiprocessing
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path

from steer_asr.errors import PackMismatchError, SteerOptionError
from steer_asr.manifest import read_manifest
from steer_asr.models import ModelFiles, find_model
from steer_asr.pack import SteerPack, load_pack
from steer_asr_training.answers import GreedyDecoder
from steer_asr_training.collect import CollectConfig, collect, estimate_seconds
from steer_asr_training.evaluate import evaluate, summarize
from steer_asr_training.export import build_pack, export, provenance
from steer_asr_training.fit import fit
from steer_asr_training.learn import Learned, learn
from steer_asr_training.moments import moment_calibration
from steer_asr_training.readout import add_readout
from steer_asr_training.recipe import Recipe
from steer_asr_training.store import ActivationStore
from steer_asr_training.windows import DataConfig

LEARN_S_PER_STEP_PER_WINDOW_S = 8.0
"""A learning step costs about this many encoder passes: 12 windows through the decoder, forwards and back."""


def make(recipe: Recipe, work: str | Path, folder: str | Path, *, workers: int = 0, tensorboard: bool = False) -> Path:
    """All steps from recordings to a pack with its readout; says first how long it will take. Returns the folder.

    Intermediate results stay in `work`; a second run picks up where the first was interrupted. With `tensorboard`,
    curves of fitting and learning come below `work`; learning is watched on windows of the recipe's `dev_manifests`.
    """
    work = Path(work) / recipe.name
    _say_how_long(recipe, workers)
    model = find_model(recipe.collect.model)
    collect_in_parallel(recipe.collect, work / "activations", workers)
    store = ActivationStore(work / "activations")
    sae = fit(recipe.fit, store, work / "fit", tensorboard=tensorboard)
    held_out = dev_store(recipe, work, workers) if tensorboard and recipe.dev_manifests else None
    learned = learn(recipe.learn, store, sae, model, work / "learn", tensorboard=tensorboard, held_out=held_out)
    made = export(calibrate(recipe, learned, model, work, workers), folder)
    try:
        add_readout(load_pack(made), store)
    except PackMismatchError as error:  # the pack steers all the same
        print(f"without a readout for steer-asr compile: {error}", file=sys.stderr)
    return made


def calibrate(recipe: Recipe, learned: Learned, model: ModelFiles, work: Path, workers: int) -> SteerPack:
    """The pack with its strength curve; without one where the recipe names no `dev_manifests`."""
    pack = with_moments(recipe, uncalibrated(recipe, learned, model, recipe.name))
    return (
        replace(pack, calibration=strength_curve(recipe, pack, model, work, workers)) if recipe.dev_manifests else pack
    )


def with_moments(recipe: Recipe, pack: SteerPack) -> SteerPack:
    """The pack with a gate whose probabilities for single frames are calibrated on the recipe's `dev_manifests`; as it
    is where they hold no aligned speech or no non-speech."""
    clips = [clip for manifest in recipe.dev_manifests for clip in read_manifest(manifest)]
    calibration = moment_calibration(pack, clips, recipe.collect.model)
    if pack.gate is None or calibration is None:
        return pack
    return replace(pack, gate=replace(pack.gate, moment_calibration=calibration))


def uncalibrated(recipe: Recipe, learned: Learned, model: ModelFiles, name: str) -> SteerPack:
    """The pack called `name`, with where it comes from and without a strength curve."""
    clips = [clip for manifest in recipe.collect.manifests for clip in read_manifest(manifest)]
    used = [clip for clip in clips if clip.shippable or not recipe.collect.data.only_shippable]
    origin = provenance(used, {"name": recipe.name, "fit": asdict(recipe.fit), "learn": asdict(recipe.learn)})
    return build_pack(learned, model, name=name, provenance=origin)


def strength_curve(
    recipe: Recipe, pack: SteerPack, model: ModelFiles, work: Path, workers: int
) -> tuple[dict[str, float], ...]:
    """What `pack` does at each strength, on held-out windows (`dev_manifests`) that are collected as they are.

    Raises `SteerOptionError` for a recipe without `dev_manifests`, `PackMismatchError` for a pack of another model.
    """
    store = dev_store(recipe, work, workers)
    pack.check_fits(sha256=model.sha256, model_name=model.name, d_model=store.window(0, pack.hook_point).shape[-1])
    stock = evaluate(pack, store, GreedyDecoder(model.path, suppress_blank=True), strengths=(0.0,))
    steered = GreedyDecoder(model.path, suppress_blank=False)
    points: list[dict[str, float]] = []
    for strength in recipe.calibration_strengths:
        outcomes = evaluate(pack, store, steered, strengths=(strength,))
        points.append({"strength": strength, **summarize(outcomes, stock, store)})
    return tuple(points)


def dev_store(recipe: Recipe, work: Path, workers: int) -> ActivationStore:
    """Held-out windows of `dev_manifests`, collected below `work`; raises `SteerOptionError` where there are none."""
    if not recipe.dev_manifests:
        raise SteerOptionError(f"recipe {recipe.name!r} names no dev_manifests to measure a strength curve on")
    held_out = replace(
        recipe.collect,
        manifests=recipe.dev_manifests,
        seed=recipe.collect.seed + 1,
        data=dev_data_config(recipe.calibration_windows),
    )
    collect_in_parallel(held_out, work / "dev", workers)
    return ActivationStore(work / "dev")


def dev_data_config(n_windows: int) -> DataConfig:
    """Held-out windows: clips as they are, some synthetic sounds, any licence (nothing is learned from them)."""
    return DataConfig(
        varied_nonspeech=0,
        synthetic_nonspeech=40,
        noisy_speech=40,
        placed_speech=20,
        disguised_speech=0,
        disguised_nonspeech=0,
        max_music_share=1.0 - 1e-9,
        only_shippable=False,
        max_windows=n_windows,
    )


def collect_in_parallel(config: CollectConfig, folder: Path, workers: int) -> None:
    """Runs `collect` in `workers` processes of one thread each, which beats one process with as many threads."""
    workers = workers or max(1, os.cpu_count() or 1)
    if workers == 1:
        collect(config, folder)
        return
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_collect_part, args=(config, folder, (i, workers))) for i in range(workers)]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join()
    except KeyboardInterrupt:
        for process in processes:
            process.terminate()
        raise
    if any(process.exitcode for process in processes):
        collect(config, folder)  # once more here, so that the error is this process's own


def _collect_part(config: CollectConfig, folder: Path, part: tuple[int, int]) -> None:
    import torch

    torch.set_num_threads(1)
    collect(config, folder, part=part)


def _say_how_long(recipe: Recipe, workers: int) -> None:
    workers = workers or max(1, os.cpu_count() or 1)
    n_windows, seconds = estimate_seconds(recipe.collect)
    per_window_s = seconds / n_windows
    learning_s = recipe.learn.steps * LEARN_S_PER_STEP_PER_WINDOW_S * per_window_s
    total_s = seconds / workers * 1.5 + recipe.fit.steps * 0.3 + learning_s + 4 * n_windows * 0.05
    print(
        f"{recipe.name}: {n_windows} windows to encode, {recipe.fit.steps} + {recipe.learn.steps} steps to train; "
        f"about {total_s / 60:.0f} minutes on this machine with {workers} workers. Interrupt and run again to resume.",
        file=sys.stderr,
        flush=True,
    )
