"""`steer-asr-train fit`: encoder activations to sparse autoencoders.

    fit(FitConfig(hook_point="encoder.output"), store, "sae/base")                     # one hook point
    fit_layers(FitConfig(), store, "sae/base", ["encoder.layers.2", "encoder.output"])  # several, in one pass
    fit_stream(FitConfig(steps=500), my_iterator_of_tensors, "sae/mine")               # without a store

The loop in `train` is the algorithm. It draws batches from an iterator and does not know where they come from.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from steer_asr._files import atomic_path
from steer_asr._progress import Progress
from steer_asr.errors import SteerOptionError
from steer_asr.sae import SaeFeatures, save_features
from steer_asr_training.batches import Batches, StoreBatches, TensorBatches
from steer_asr_training.fit_config import PRESETS, FitConfig, k_at, lr_factor, penalty_at, preset
from steer_asr_training.fit_run import CHECKPOINT_FILE, FitRun, Learner
from steer_asr_training.scalars import Scalars
from steer_asr_training.store import ActivationStore
from steer_asr_training.training_sae import StepOutput, TrainingSae

__all__ = [
    "CHECKPOINT_FILE",
    "PRESETS",
    "FitConfig",
    "fit",
    "fit_layers",
    "fit_stream",
    "k_at",
    "lr_factor",
    "penalty_at",
    "preset",
    "train",
    "train_step",
]

MEASURE_BATCHES = 8
Trainer = Callable[..., None]
"""Called as `train` is, with run, batches and tensorboard; brings the run to its last step."""


def fit(
    config: FitConfig,
    store: ActivationStore,
    folder: str | Path,
    *,
    tensorboard: bool = False,
    on: Trainer | None = None,
) -> Path:
    """Trains, checkpoints and exports a dictionary; resumes bit-exactly from `folder` when it was interrupted.

    `on` trains elsewhere than in this process: `ray_fit.RayTrainer`. Raises `HookPointError` when the store lacks the
    hook point, `SteerOptionError` for a folder of another run, and what `on` raises.
    """
    exported = _fit_store(config, store, Path(folder), [config.hook_point], tensorboard=tensorboard, on=on)
    return exported[config.hook_point]


def fit_layers(
    config: FitConfig,
    store: ActivationStore,
    folder: str | Path,
    points: Sequence[str],
    *,
    tensorboard: bool = False,
    on: Trainer | None = None,
) -> dict[str, Path]:
    """One dictionary for each hook point, trained side by side in one pass over the store.

    Each is, tensor for tensor, what `fit` gives at that hook point. Returns where they are: `folder`/POINT/sae.
    """
    if not points:
        raise SteerOptionError("fit: give at least one hook point")
    points = list(dict.fromkeys(points))
    return _fit_store(config, store, Path(folder), points, tensorboard=tensorboard, on=on, nested=True)


def fit_stream(
    config: FitConfig,
    source: Iterable[torch.Tensor | Mapping[str, torch.Tensor]],
    folder: str | Path,
    *,
    origin: Mapping[str, Any] | None = None,
    tensorboard: bool = False,
) -> dict[str, Path]:
    """Trains on an endless iterator of float32 [frame, d_in] at `config.hook_point`, or of hook point to such tensors.

    The first batches measure centre and scale; the iterator decides batch size, order and weights. `origin` goes into
    the metadata (`model_name`, `model_sha256`). How a run resumes: `TensorBatches`.
    """
    folder, batches = Path(folder), TensorBatches(iter(source), config.hook_point)
    run = FitRun(config, folder)
    if not run.resume(batches, None):
        run.start(_gather(batches))
    train(run, batches, tensorboard=tensorboard)
    return _export_all(run, batches, origin or getattr(source, "origin", {}), nested=len(run.learners) > 1)


def _fit_store(
    config: FitConfig,
    store: ActivationStore,
    folder: Path,
    points: Sequence[str],
    *,
    tensorboard: bool,
    on: Trainer | None,
    nested: bool = False,
) -> dict[str, Path]:
    run, batches = FitRun(config, folder), store_batches(config, store, points)
    if not run.resume(batches, points):
        run.start(_gather(store_batches(replace(config, seed=config.seed + 1), store, points)))
    (on or train)(run, batches, tensorboard=tensorboard)
    origin = {"model_name": store.header["model"], "model_sha256": store.header["model_sha256"]}
    return _export_all(run, batches, origin, nested=nested)


def store_batches(
    config: FitConfig, store: ActivationStore, points: Sequence[str], share: tuple[int, int] = (0, 1)
) -> StoreBatches:
    """The batches of a fit, or one process's share of them, from the first one on."""
    return StoreBatches(
        store,
        points,
        batch=config.batch_frames,
        seed=config.seed,
        weights=config.weights,
        windows_in_buffer=config.windows_in_buffer,
        share=share,
    )


def train(run: FitRun, batches: Batches, *, tensorboard: bool = False, progress: Progress | None = None) -> None:
    """Draws a batch, updates every dictionary on it, and again, up to `config.steps`; checkpoints on the way."""
    config = run.config
    with (
        progress or Progress(total=config.steps, unit="step", label="fit") as progress,
        Scalars(run.folder, enabled=tensorboard, first_step=run.step) as scalars,
    ):
        progress.advance(run.step)
        while run.step < config.steps:
            fvu = 0.0
            for point, x in next(batches).items():
                output = train_step(config, run.learners[point], x.to(run.device), run.step)
                scalars.add(run.step, point, _numbers(config, output, run.step))
                fvu += float(output.fvu) / len(run.learners)
            run.step += 1
            progress.advance(note=f"fvu {fvu:.3f}")
            if run.step % config.checkpoint_every == 0 or run.step == config.steps:
                run.save(batches)


def train_step(config: FitConfig, learner: Learner, x: torch.Tensor, step: int) -> StepOutput:
    """One update of a dictionary on activations `x`, [frame, d_in]."""
    sae, optimizer = learner.sae, learner.optimizer
    for group in optimizer.param_groups:
        group["lr"] = config.lr * lr_factor(config, step)
    output = learner.forward(x, k_at(config, step), penalty_at(config, step))
    optimizer.zero_grad(set_to_none=True)
    output.loss.backward()
    sae.project_gradients()
    torch.nn.utils.clip_grad_norm_(sae.parameters(), 1.0)
    optimizer.step()
    sae.normalize_decoder()
    return output


def _numbers(config: FitConfig, output: StepOutput, step: int) -> dict[str, Any]:
    schedule = {"lr": config.lr * lr_factor(config, step), "k": k_at(config, step)}
    return {"loss": output.loss.detach(), "fvu": output.fvu, "l0": output.l0, "dead_features": output.n_dead} | schedule


def _gather(batches: Batches) -> dict[str, torch.Tensor]:
    """The next few batches as one: hook point to float32 [frame, d_in]."""
    drawn = [next(batches) for _ in range(MEASURE_BATCHES)]
    return {point: torch.cat([batch[point] for batch in drawn]) for point in drawn[0]}


def _export_all(run: FitRun, batches: Batches, origin: Mapping[str, Any], *, nested: bool) -> dict[str, Path]:
    exported = {}
    for point, x in _gather(batches).items():
        folder = run.folder / point if nested else run.folder
        metadata = {"hook_name": point, **origin, "fit": asdict(replace(run.config, hook_point=point))}
        exported[point] = _export(folder / "sae", run.config, run.learners[point].sae, x, metadata)
    return exported


def _export(
    folder: Path, config: FitConfig, sae: TrainingSae, held_out: torch.Tensor, metadata: dict[str, Any]
) -> Path:
    features = sae.export()
    statistics = _measure(config, sae, features, held_out)
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        save_features(temporary, features, metadata | {"statistics": statistics})
    print(json.dumps(statistics))  # noqa: T201  (the result of the command)
    return folder


@torch.no_grad()
def _measure(config: FitConfig, sae: TrainingSae, features: SaeFeatures, held_out: torch.Tensor) -> dict[str, float]:
    """How good the exported dictionary is on raw frames, [frame, d_in], and what it was before: one batch at a time."""
    sae.eval()
    error, before_export, n_active, n_fired = 0.0, 0.0, 0, np.zeros(features.n_features, int)
    mean = held_out.mean(dim=0).numpy()
    for batch in held_out.split(config.batch_frames):
        x = batch.numpy()
        z = features.encode(x)
        error += float(((x - (z @ features.W_dec + features.b_dec)) ** 2).sum())
        n_fired += (z > 0).sum(axis=0)
        n_active += int((z > 0).sum())
        variance = float(((x - x.mean(axis=0)) ** 2).sum())
        before_export += float(sae(batch.to(sae.b_dec.device), config.k).fvu) * variance
    total = float(((held_out.numpy() - mean) ** 2).sum())
    return {
        "explained_variance": 1 - error / total,
        "explained_variance_before_export": 1 - before_export / total,
        "l0": n_active / len(held_out),
        "alive_share": float((n_fired > 0).mean()),
        "frames_measured": len(held_out),
    }
