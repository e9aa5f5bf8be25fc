"""`steer-asr-train fit`: encoder activations to a sparse autoencoder.

    fit(FitConfig(hook_point="encoder.output"), store, "sae/base")

The loop in `fit` is the algorithm. It draws batches from an iterator of tensors and does not know where they come from.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from steer_asr._files import atomic_path
from steer_asr._progress import Progress
from steer_asr.errors import SteerOptionError
from steer_asr.hooks import OUTPUT_HOOK_POINT
from steer_asr.sae import save_features
from steer_asr_training.store import ActivationStore
from steer_asr_training.training_sae import BatchTopKSae, SaeConfig

CHECKPOINT_FILE = "checkpoint.pt"
MEASURE_BATCHES = 8


@dataclass(frozen=True)
class FitConfig:
    """How the dictionary is trained. The defaults suit a laptop; AudioSAE used 200,000 steps at 8x and k = 50."""

    hook_point: str = OUTPUT_HOOK_POINT
    d_sae: int = 2048
    """Number of features."""
    k: float = 32
    """Mean number of active features per frame, at the end."""
    k_start: float = 96
    """The same at the start; it falls linearly over the first `k_anneal_share` of the steps."""
    k_anneal_share: float = 0.3
    steps: int = 1000
    batch_frames: int = 2048
    lr: float = 1e-3
    warmup_share: float = 0.05
    """Share of the steps over which the learning rate rises."""
    decay_share: float = 0.3
    """Share of the steps, at the end, over which it falls to zero."""
    seed: int = 0
    checkpoint_every: int = 200

    def __post_init__(self) -> None:
        if not 0 < self.k <= self.d_sae or self.steps < 1 or self.batch_frames < 1 or self.lr <= 0:
            raise SteerOptionError("fit: k must lie in (0, d_sae]; steps, batch_frames and lr must be positive")


def fit(config: FitConfig, store: ActivationStore, folder: str | Path) -> Path:
    """Trains, checkpoints and exports a dictionary; resumes bit-exactly from `folder` when it was interrupted."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    d_in = store.window(0, config.hook_point).shape[1]
    sae = BatchTopKSae(SaeConfig(d_in, config.d_sae, config.k), torch.Generator().manual_seed(config.seed))
    optimizer = torch.optim.Adam(sae.parameters(), lr=config.lr, betas=(0.9, 0.999))
    step = _resume(folder, config, sae, optimizer)
    if step == 0:
        sample = store.frames(config.hook_point, batch=config.batch_frames, seed=config.seed + 1)
        sae.measure_input(torch.cat([next(sample) for _ in range(MEASURE_BATCHES)]))
    batches = store.frames(config.hook_point, batch=config.batch_frames, seed=config.seed, skip_batches=step)
    with Progress(total=config.steps, unit="step", label="fit") as progress:
        progress.advance(step)
        for done in range(step, config.steps):
            fvu = train_step(config, sae, optimizer, batches, done)
            progress.advance(note=f"fvu {float(fvu):.3f}")
            if (done + 1) % config.checkpoint_every == 0:
                _checkpoint(folder, config, sae, optimizer, done + 1)
    return _export(folder, config, store, sae, batches)


def train_step(
    config: FitConfig, sae: BatchTopKSae, optimizer: torch.optim.Optimizer, batches: Iterator[torch.Tensor], step: int
) -> torch.Tensor:
    """One update; returns the batch's fraction of variance unexplained."""
    for group in optimizer.param_groups:
        group["lr"] = config.lr * lr_factor(config, step)
    output = sae(next(batches), k_at(config, step))
    optimizer.zero_grad(set_to_none=True)
    output.loss.backward()
    sae.project_gradients()
    torch.nn.utils.clip_grad_norm_(sae.parameters(), 1.0)
    optimizer.step()
    sae.normalize_decoder()
    return output.fvu


def lr_factor(config: FitConfig, step: int) -> float:
    """Learning rate relative to `lr`: up over the warm-up, flat, down to zero over the decay."""
    warmup, decay = config.warmup_share * config.steps, config.decay_share * config.steps
    return min(1.0, (step + 1) / max(1.0, warmup), (config.steps - step) / max(1.0, decay))


def k_at(config: FitConfig, step: int) -> float:
    """Features per frame at a step; exactly `k` once annealing is over."""
    share = step / max(1.0, config.k_anneal_share * config.steps)
    return config.k if share >= 1 else config.k_start + (config.k - config.k_start) * share


def _checkpoint(
    folder: Path, config: FitConfig, sae: BatchTopKSae, optimizer: torch.optim.Optimizer, step: int
) -> None:
    state = {"step": step, "config": asdict(config), "sae": sae.state_dict(), "optimizer": optimizer.state_dict()}
    with atomic_path(folder / CHECKPOINT_FILE) as temporary:
        torch.save(state, temporary)


def _resume(folder: Path, config: FitConfig, sae: BatchTopKSae, optimizer: torch.optim.Optimizer) -> int:
    """Loads a checkpoint if there is one; returns the number of steps it has behind it."""
    path = folder / CHECKPOINT_FILE
    if not path.is_file():
        return 0
    state = torch.load(path, weights_only=True)
    if state["config"] != asdict(config):
        raise SteerOptionError(f"{folder} holds a run with other settings; give another folder or delete this one")
    sae.load_state_dict(state["sae"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"]


@torch.no_grad()
def _export(
    folder: Path, config: FitConfig, store: ActivationStore, sae: BatchTopKSae, batches: Iterator[torch.Tensor]
) -> Path:
    features = sae.export()
    x = torch.cat([next(batches) for _ in range(MEASURE_BATCHES)]).numpy()
    z = features.encode(x)
    error = x - (z @ features.W_dec + features.b_dec)
    fvu = float((error**2).sum() / ((x - x.mean(axis=0)) ** 2).sum())
    statistics = {
        "explained_variance": 1 - fvu,
        "l0": float((z > 0).sum(axis=1).mean()),
        "alive_share": float((z > 0).any(axis=0).mean()),
        "frames_measured": len(x),
    }
    with atomic_path(folder / "sae") as temporary:
        temporary.mkdir()
        metadata = {"hook_name": config.hook_point, "model_name": store.header["model"]}
        metadata |= {"model_sha256": store.header["model_sha256"], "fit": asdict(config), "statistics": statistics}
        save_features(temporary, features, metadata)
    print(json.dumps(statistics))  # noqa: T201  (the result of the command)
    return folder / "sae"
