"""The state of a fit: what is trained, how far it is, and the checkpoint that holds all of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from steer_asr._files import atomic_path
from steer_asr.errors import SteerOptionError
from steer_asr_training.batches import Batches
from steer_asr_training.fit_config import FitConfig, k_at
from steer_asr_training.global_batch import ShardedBatch
from steer_asr_training.sae_kinds import build_sae
from steer_asr_training.training_sae import StepOutput, TrainingSae

CHECKPOINT_FILE = "checkpoint.pt"


@dataclass(eq=False)
class Learner:
    """A dictionary at one hook point, and what moves it."""

    sae: TrainingSae
    optimizer: torch.optim.Optimizer
    shared: DistributedDataParallel | None = None
    """`sae` in one process of several: gradients are averaged over all of them."""

    def forward(self, x: torch.Tensor, k: float, penalty: float) -> StepOutput:
        """Losses of a step, to be differentiated."""
        return (self.sae if self.shared is None else self.shared)(x, k, penalty)


@dataclass(eq=False)
class FitRun:
    """Dictionaries that are trained side by side, `step` updates old."""

    config: FitConfig
    folder: Path
    learners: dict[str, Learner] = field(default_factory=dict)
    """By hook point."""
    step: int = 0
    saves: bool = True
    """Whether checkpoints are written; of several processes one does."""

    @property
    def device(self) -> str:
        if self.config.device != "auto":
            return self.config.device
        return "cuda" if torch.cuda.is_available() else "cpu"

    def start(self, sample: Mapping[str, torch.Tensor]) -> None:
        """New dictionaries, centred and scaled by a sample: hook point to float32 [frame, d_in]."""
        for point, x in sample.items():
            self.learners[point] = self._new(x.shape[1])
            self.learners[point].sae.measure_input(x.to(self.device), k_at(self.config, 0))

    def spread(self, rank: int) -> None:
        """Makes this process the one of that rank in the default group of torch.distributed, whose others do the same.

        Each is then trained on its share of every batch (`StoreBatches(share=...)`), and all stay alike.
        """
        self.saves = rank == 0
        for learner in self.learners.values():
            learner.sae.batch = ShardedBatch(self.config.batch_frames)
            learner.shared = DistributedDataParallel(learner.sae)

    def save(self, batches: Batches) -> None:
        """Writes the checkpoint: parameters, optimizers, step, position in the data, random numbers."""
        if not self.saves:
            return
        state = {
            "step": self.step,
            "config": asdict(self.config),
            "learners": {
                point: {"sae": learner.sae.state_dict(), "optimizer": learner.optimizer.state_dict()}
                for point, learner in self.learners.items()
            },
            "batches": batches.state_dict(),
            "rng": torch.get_rng_state(),
        }
        with atomic_path(self.folder / CHECKPOINT_FILE) as temporary:
            torch.save(state, temporary)

    def resume(self, batches: Batches, points: Sequence[str] | None) -> bool:
        """Goes on from the folder's checkpoint, bit by bit as if never interrupted; False when there is none.

        Raises `SteerOptionError` when the checkpoint belongs to other settings or hook points (`points`, if given).
        """
        path = self.folder / CHECKPOINT_FILE
        if not path.is_file():
            return False
        state = _in_todays_form(torch.load(path, weights_only=True, map_location="cpu"))
        saved = asdict(FitConfig()) | state["config"]
        other = sorted(name for name, value in asdict(self.config).items() if saved[name] != value)
        if points is not None and sorted(points) != sorted(state["learners"]):
            other.append("hook points")
        if other:
            raise SteerOptionError(
                f"{self.folder} holds a run with other settings ({', '.join(other)}); "
                "give another folder or delete this one"
            )
        for point, saved_learner in state["learners"].items():
            learner = self._new(saved_learner["sae"]["b_dec"].shape[0])
            learner.sae.load_state_dict(saved_learner["sae"])
            learner.optimizer.load_state_dict(saved_learner["optimizer"])
            self.learners[point] = learner
        batches.load_state_dict(state["batches"])
        if "rng" in state:
            torch.set_rng_state(state["rng"])
        self.step = state["step"]
        return True

    def _new(self, d_in: int) -> Learner:
        generator = torch.Generator().manual_seed(self.config.seed)
        sae = build_sae(self.config.kind, self.config.sae(d_in), generator).to(self.device)
        return Learner(sae, torch.optim.Adam(sae.parameters(), lr=self.config.lr, betas=(0.9, 0.999), fused=True))


def _in_todays_form(state: dict[str, Any]) -> dict[str, Any]:
    """Early checkpoints hold one dictionary, and count batches as steps."""
    if "learners" in state:
        return state
    learner = {"sae": state["sae"], "optimizer": state["optimizer"]}
    learners = {state["config"]["hook_point"]: learner}
    return {"step": state["step"], "config": state["config"], "learners": learners, "batches": {"drawn": state["step"]}}
