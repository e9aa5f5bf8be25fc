"""The comparison: every contender in its own process, one after the other, round after round.

Contenders take turns within each round, so that what else the machine does meets all of them; ratios are taken within a
round. Afterwards all reconstruct the same held-out frames, and one function here measures how well.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from steer_asr._progress import Progress
from steer_asr.errors import SteerOptionError, unknown_name
from steer_asr_training.speed.activations import write_planted, write_stored
from steer_asr_training.speed.environments import OURS, PEERS, SpeedError, environment, versions
from steer_asr_training.speed.roofline import machine, roofline
from steer_asr_training.speed.summary import summary

KINDS = ("batch_topk", "topk")
DRIVER = Path(__file__).with_name("driver.py")
N_HELD_OUT = 4096
SCALING_STEPS, SCALING_WARMUP = 4, 1
MAX_UNIQUE_STEPS = 60
"""So many different batches are drawn; longer runs see them again."""


@dataclass(frozen=True)
class SpeedConfig:
    """What is compared, and how long. Raises `SteerOptionError` for settings that cannot be."""

    kinds: tuple[str, ...] = KINDS
    peers: tuple[str, ...] = tuple(PEERS)
    d_in: int = 512
    d_sae: int = 4096
    k: int = 32
    batch: int = 2048
    steps: int = 20
    warmup: int = 4
    """Steps before the clock counts."""
    rounds: int = 3
    loss_steps: int = 120
    """Of one more run of each, after which losses are compared: in 20 steps, little but the start is seen."""
    lr: float = 2e-3
    """Of all, falling to zero along a line over the steps; high, since these are few."""
    seed: int = 0
    threads: int = 0
    """0: as many as there are cores."""
    device: str = "auto"
    scaling: tuple[int, ...] = (2048, 4096, 8192, 16384, 32768, 65536)
    """Sizes of dictionary at which dense and sparse decoding are compared."""
    activations: str = ""
    """A folder written by `collect`, instead of made-up frames."""
    hook_point: str = "encoder.output"

    def __post_init__(self) -> None:
        for given, known, what in ((self.kinds, KINDS, "kind"), (self.peers, tuple(PEERS), "peer")):
            for name in given:
                if name not in known:
                    raise SteerOptionError(f"speed: {unknown_name(what, name, known)}")
        for name in ("d_in", "d_sae", "k", "batch", "rounds", "lr", "loss_steps"):
            if not getattr(self, name) > 0:
                raise SteerOptionError(f"speed: {name} must be positive, got {getattr(self, name)}")
        if not 0 < self.warmup < self.steps:
            raise SteerOptionError(f"speed: warmup must lie between 0 and steps; got {self.warmup} and {self.steps}")
        if not self.kinds:
            raise SteerOptionError(f"speed: give at least one kind of {', '.join(KINDS)}")
        if self.k > min((self.d_sae, *self.scaling)):
            raise SteerOptionError("speed: k cannot be more than the number of features")
        if self.device not in ("auto", "cpu", "cuda"):
            raise SteerOptionError(f"speed: {unknown_name('device', self.device, ('auto', 'cpu', 'cuda'))}")


def measure(config: SpeedConfig, environments: Path) -> dict[str, Any]:
    """All rounds, the scaling table and the roofline, as one JSON-serialisable result.

    `environments` is where the peers' virtual environments lie, or will. Raises `SpeedError` when one cannot be made or
    a contender fails.
    """
    config = replace(config, threads=config.threads or os.cpu_count() or 1, device=_device(config.device))
    computer = machine(config.device, config.threads)
    pythons = {name: environment(name, environments, torch.__version__) for name in config.peers}
    with tempfile.TemporaryDirectory(prefix="steer-asr-speed-") as folder:
        bench = Bench(config, Path(folder), {OURS: Path(sys.executable), **pythons})
        source = bench.write_activations()
        config = bench.config
        contenders = bench.rounds()
        bench.add_losses(contenders)
        scaling = list(bench.scaling())
    return {
        "settings": asdict(config),
        "activations": source,
        "machine": computer,
        "environments": {name: _versions(name, python) for name, python in pythons.items()},
        "contenders": contenders,
        "summary": summary(contenders),
        "scaling": scaling,
        "roofline": roofline(config.device, config.d_in, config.d_sae, config.k, config.batch, contenders),
    }


class Bench:
    """The processes of one comparison, and the files that they share in `folder`."""

    def __init__(self, config: SpeedConfig, folder: Path, pythons: dict[str, Path]) -> None:
        self.config, self.folder, self.pythons = config, folder, pythons

    def write_activations(self) -> str:
        config = self.config
        n_frames = min(max(config.steps, config.loss_steps), MAX_UNIQUE_STEPS) * config.batch
        if config.activations:
            store, sizes = Path(config.activations), {"n_frames": n_frames, "n_held_out": N_HELD_OUT}
            source = write_stored(self.folder, store, config.hook_point, **sizes, seed=config.seed)
            width = np.load(self.folder / "held_out.npy", mmap_mode="r").shape[1]
            self.config = replace(config, d_in=width)
            return source
        sizes = {"n_frames": n_frames, "n_held_out": N_HELD_OUT}
        return write_planted(self.folder, d_in=config.d_in, **sizes, seed=config.seed)

    def rounds(self) -> list[dict[str, Any]]:
        """One record for each contender, with what each round of short runs measured."""
        names = [(OURS, kind) for kind in self.config.kinds]
        names += [(name, kind) for name in self.config.peers for kind in self.config.kinds if kind in PEERS[name].kinds]
        records = [{"name": name, "kind": kind, "rounds": []} for name, kind in names]
        with Progress(total=len(records) * self.config.rounds, unit="run", label="speed") as progress:
            for i in range(self.config.rounds):
                for record in records[i % len(records) :] + records[: i % len(records)]:
                    record["rounds"].append(self.train(record["name"], record["kind"]))
                    progress.advance(note=f"{record['name']} {record['kind']}")
        return records

    def add_losses(self, records: list[dict[str, Any]]) -> None:
        """One long run of each contender, at whose end it reconstructs the held-out frames: `long` in its record."""
        steps = self.config.loss_steps
        with Progress(total=len(records), unit="run", label="loss") as progress:
            for record in records:
                job: dict[str, Any] = {"steps": steps, "warmup": min(self.config.warmup, steps - 1)}
                record["long"] = self.train(record["name"], record["kind"], measure_loss=True, **job)
                progress.advance(note=f"{record['name']} {record['kind']}")

    def scaling(self) -> Iterator[dict[str, Any]]:
        """Ours alone, at every size, with both ways to decode."""
        with Progress(total=2 * len(self.config.scaling), unit="run", label="scaling") as progress:
            for d_sae in self.config.scaling:
                found = {}
                for decode in ("dense", "sparse"):
                    steps: dict[str, Any] = {"steps": SCALING_STEPS + SCALING_WARMUP, "warmup": SCALING_WARMUP}
                    found[decode] = self.train(OURS, self.config.kinds[0], d_sae=d_sae, decode=decode, **steps)
                    progress.advance(note=f"{d_sae} {decode}")
                yield {"d_sae": d_sae, **found}

    def train(self, name: str, kind: str, *, measure_loss: bool = False, **changes: Any) -> dict[str, Any]:
        """One run of one contender in a process of its own: what it measured, on demand its loss on held-out frames."""
        config, out, reconstruction = self.config, self.folder / "out.json", self.folder / "reconstruction.npy"
        held_out = self.folder / "held_out.npy"
        job = {
            "contender": name,
            "kind": kind,
            "activations": str(self.folder / "train.npy"),
            "held_out": str(held_out),
            "decode": "auto",
            "tf32": config.device == "cuda",
            "out": str(out),
            "reconstruction": str(reconstruction) if measure_loss else None,
        }
        for setting in ("d_sae", "k", "batch", "steps", "warmup", "lr", "seed", "threads", "device"):
            job[setting] = getattr(config, setting)
        (self.folder / "job.json").write_text(json.dumps(job | changes), encoding="utf-8")
        out.unlink(missing_ok=True)
        threads = {"OMP_NUM_THREADS": str(config.threads), "MKL_NUM_THREADS": str(config.threads)}
        command = [str(self.pythons[name]), str(DRIVER), str(self.folder / "job.json")]
        offline = {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled"}
        done = subprocess.run(
            command, env=os.environ | threads | offline, cwd=self.folder, capture_output=True, text=True, check=False
        )
        if done.returncode or not out.is_file():
            last = "; ".join(done.stderr.strip().splitlines()[-3:]) or f"exit code {done.returncode}"
            raise SpeedError(f"{name} ({kind}) failed: {last}")
        measured = json.loads(out.read_text(encoding="utf-8"))
        if measure_loss:
            measured |= loss(np.load(held_out), np.load(reconstruction))
        return measured


def loss(x: np.ndarray, x_hat: np.ndarray) -> dict[str, float]:
    """Mean squared error per element, and the fraction of variance unexplained, of frames [frame, d_in]."""
    squared = float(((x.astype(np.float64) - x_hat) ** 2).sum())
    variance = float(((x.astype(np.float64) - x.mean(axis=0)) ** 2).sum())
    return {"mse": squared / x.size, "fvu": squared / variance}


def _device(asked: str) -> str:
    there = torch.cuda.is_available()
    if asked == "cuda" and not there:
        raise SteerOptionError("speed: there is no GPU that PyTorch can use; take --device cpu")
    return ("cuda" if there else "cpu") if asked == "auto" else asked


def _versions(name: str, python: Path) -> dict[str, str]:
    return versions(python, [PEERS[name].package, "torch", "transformer-lens", "transformers", "nnsight", "numpy"])
