"""Trains one dictionary with one library and says how long it took: `python driver.py JOB.json`.

A file by itself, for the interpreter of that library's environment, in which steer_asr is not installed. Every library
is used through its own trainer and its own loop; the clock sits in the data, which it asks for once per step.

JOB.json: contender, kind, activations and held_out (.npy, float32 [frame, d_in]), d_sae, k, batch, steps, warmup (the
steps before the clock counts), lr, seed, threads, device, tf32, out (.json); for `ours` also decode; reconstruction
(.npy), where what the dictionary makes of `held_out` goes, or null.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

AUX_K_COEFFICIENT, DEAD_AFTER_FRAMES = 1 / 32, 10_000_000
"""For all alike: the settings of dictionary_learning, which has the second one built in."""


class Clock:
    """Batches of rows of `data`, over and over, `steps` of them; reads the clocks whenever it is asked for one."""

    def __init__(self, data: torch.Tensor, batch: int, steps: int) -> None:
        self.data, self.batch, self.steps = data, batch, steps
        self.read: list[tuple[float, float]] = []
        """Seconds by the wall and of the processor, before each step and after the last."""

    def __iter__(self) -> Iterator[torch.Tensor]:
        for i in range(self.steps):
            self.tick()
            yield self.rows(i)
        self.tick()

    def rows(self, step: int) -> torch.Tensor:
        start = step % (len(self.data) // self.batch) * self.batch
        return self.data[start : start + self.batch]

    def tick(self) -> None:
        if len(self.read) <= self.steps:
            if self.data.is_cuda:
                torch.cuda.synchronize()
            self.read.append((time.perf_counter(), time.process_time()))


Trained = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Frames to their reconstruction, and to the number of active features of each."""


def ours(job: dict[str, Any], clock: Clock) -> Trained:
    from steer_asr_training.batches import TensorBatches
    from steer_asr_training.fit import train
    from steer_asr_training.fit_config import FitConfig
    from steer_asr_training.fit_run import FitRun

    config = FitConfig(
        kind=job["kind"],
        d_sae=job["d_sae"],
        k=job["k"],
        k_start=job["k"],
        k_anneal_share=0,
        steps=job["steps"],
        batch_frames=job["batch"],
        lr=job["lr"],
        warmup_share=0,
        decay_share=1,
        seed=job["seed"],
        aux_k_coefficient=AUX_K_COEFFICIENT,
        dead_after_frames=DEAD_AFTER_FRAMES,
        checkpoint_every=job["steps"],
        device=job["device"],
        decode=job["decode"],
    )

    class Run(FitRun):
        def save(self, batches: Any) -> None:  # noqa: ARG002
            clock.tick()  # after the last step; a checkpoint is not part of it

    run = Run(config, Path(tempfile.gettempdir()))
    run.start({"x": clock.data[: 8 * job["batch"]]})
    train(run, TensorBatches(iter(clock), "x"))
    sae = run.learners["x"].sae.eval()

    def reconstruct(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z = sae.activate(sae.encode((x - sae.input_mean) * sae.input_scale), job["k"])
        return (z @ sae.W_dec + sae.b_dec) / sae.input_scale + sae.input_mean, (z > 0).sum(dim=1)

    return reconstruct


def dictionary_learning(job: dict[str, Any], clock: Clock) -> Trained:
    # imported there, but needed for language models and for curves alone
    for name, attribute in (("nnsight", "LanguageModel"), ("wandb", "init")):
        sys.modules[name] = types.ModuleType(name)
        setattr(sys.modules[name], attribute, None)
    from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer  # pyright: ignore[reportMissingImports]
    from dictionary_learning.trainers.top_k import TopKTrainer  # pyright: ignore[reportMissingImports]
    from dictionary_learning.training import trainSAE  # pyright: ignore[reportMissingImports]

    made: list[Any] = []

    def trainer(**settings: Any) -> Any:
        made.append((BatchTopKTrainer if job["kind"] == "batch_topk" else TopKTrainer)(**settings))
        return made[0]

    scale = clock.data.square().sum(dim=1).mean().sqrt()  # what its normalize_activations does: mean squared norm 1
    clock.data = clock.data / scale
    settings = {
        "trainer": trainer,
        "steps": job["steps"],
        "activation_dim": clock.data.shape[1],
        "dict_size": job["d_sae"],
        "k": job["k"],
        "layer": 0,
        "lm_name": "none",
        "lr": job["lr"],
        "auxk_alpha": AUX_K_COEFFICIENT,
        "warmup_steps": 0,
        "decay_start": 1,
        "seed": job["seed"],
        "device": job["device"],
    }
    trainSAE(clock, [settings], steps=job["steps"], device=job["device"])
    sae = made[0].ae

    def reconstruct(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z = sae.encode(x / scale, use_threshold=False)
        return sae.decode(z) * scale, (z > 0).sum(dim=1)

    return reconstruct


def saelens(job: dict[str, Any], clock: Clock) -> Trained:
    import sae_lens  # pyright: ignore[reportMissingImports]
    from sae_lens.config import LoggingConfig, SAETrainerConfig  # pyright: ignore[reportMissingImports]

    batch_topk = job["kind"] == "batch_topk"
    made_of = {"d_in": clock.data.shape[1], "d_sae": job["d_sae"], "device": job["device"], "k": job["k"]}
    made_of["aux_loss_coefficient"] = AUX_K_COEFFICIENT
    torch.manual_seed(job["seed"])
    if batch_topk:
        sae = sae_lens.BatchTopKTrainingSAE(sae_lens.BatchTopKTrainingSAEConfig(**made_of))
    else:
        # its advice for float32 and small k, and faster; gradients through it fail together with the rescaling
        made_of |= {"use_sparse_activations": True, "rescale_acts_by_decoder_norm": False}
        sae = sae_lens.TopKTrainingSAE(sae_lens.TopKTrainingSAEConfig(**made_of))
    config = SAETrainerConfig(
        total_training_samples=job["steps"] * job["batch"],
        train_batch_size_samples=job["batch"],
        lr=job["lr"],
        lr_end=0.0,
        lr_decay_steps=job["steps"],
        device=job["device"],
        dead_feature_window=DEAD_AFTER_FRAMES // job["batch"],
        logger=LoggingConfig(log_to_wandb=False),
    )
    sae_lens.SAETrainer(cfg=config, sae=sae, data_provider=iter(clock)).fit()
    clock.tick()
    sae.eval()

    def reconstruct(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z = sae.encode(x)
        return sae.decode(z), (z.to_dense() > 0).sum(dim=1)

    return reconstruct


def sparsify(job: dict[str, Any], clock: Clock) -> Trained:
    from sparsify import SaeConfig, TrainConfig, Trainer  # pyright: ignore[reportMissingImports]

    class Stored(torch.nn.Module):
        """A "language model" whose only layer looks the activations up, by the number of the step."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Identity()
            self.base_model, self.device = self, clock.data.device
            self.dummy_inputs = {"x": torch.full((1, job["batch"]), -1)}
            self.__dict__["base_model"] = self

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            step = int(x[0, 0])
            if step >= 0:
                clock.tick()
            return self.layer(clock.rows(max(step, 0))[None])

    class Timed(Trainer):
        def save(self) -> None:
            clock.tick()  # after the last step; a checkpoint is not part of it

    steps = [{"input_ids": torch.full((job["batch"],), i)} for i in range(job["steps"])]
    config = TrainConfig(
        SaeConfig(num_latents=job["d_sae"], k=job["k"]),
        batch_size=1,
        optimizer="adam",
        lr=job["lr"],
        lr_warmup_steps=0,
        auxk_alpha=AUX_K_COEFFICIENT,
        dead_feature_threshold=DEAD_AFTER_FRAMES,
        hookpoints=["layer"],
        init_seeds=[job["seed"]],
        save_every=job["steps"] + 1,
        log_to_wandb=False,
    )
    trainer = Timed(config, steps, Stored())  # pyright: ignore[reportArgumentType]
    trainer.fit()
    sae = trainer.saes["layer"]

    def reconstruct(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = sae(x)
        return found.sae_out.float(), (found.latent_acts > 0).sum(dim=1)

    return reconstruct


CONTENDERS = {
    "ours": ours,
    "dictionary_learning": dictionary_learning,
    "saelens": saelens,
    "sparsify": sparsify,
}


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Trains as the job says; returns what was measured."""
    torch.set_num_threads(job["threads"])
    if job["tf32"]:
        torch.set_float32_matmul_precision("high")
    data = torch.from_numpy(np.load(job["activations"])).to(job["device"])
    clock = Clock(data, job["batch"], job["steps"])
    before = _peak_mb(job["device"])
    reconstruct = CONTENDERS[job["contender"]](job, clock)
    peak = _peak_mb(job["device"])
    if len(clock.read) != job["steps"] + 1:
        raise SystemExit(f"{job['contender']} asked for {len(clock.read) - 1} batches, not {job['steps']}")
    (wall, cpu), (wall_end, cpu_end) = clock.read[job["warmup"]], clock.read[-1]
    n_frames = (job["steps"] - job["warmup"]) * job["batch"]
    measured = {
        "frames_per_s": n_frames / (wall_end - wall),
        "frames_per_cpu_s": n_frames / (cpu_end - cpu),
        "ms_per_step": (wall_end - wall) / (job["steps"] - job["warmup"]) * 1000,
        "peak_mb": peak,
        "training_mb": peak - before,
        "torch": torch.__version__,
    }
    if job["reconstruction"]:
        held_out = torch.from_numpy(np.load(job["held_out"])).to(job["device"])
        with torch.no_grad():
            found = [reconstruct(x) for x in held_out.split(job["batch"])]
        np.save(job["reconstruction"], torch.cat([x_hat for x_hat, _ in found]).cpu().numpy())
        measured["l0"] = float(torch.cat([n for _, n in found]).float().mean())
    return measured


def _peak_mb(device: str) -> float:
    """Most memory used so far: of the device, or of the process."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


if __name__ == "__main__":
    read = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    Path(read["out"]).write_text(json.dumps(main(read)), encoding="utf-8")
