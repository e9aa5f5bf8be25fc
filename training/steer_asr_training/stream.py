"""Activations made while they are needed: audio through the encoder straight into the fit, without a disk cache.

    batches = StreamBatches(CollectConfig("base", ("train.jsonl",)), batch=2048, seed=0, augment=Augment(noise=0.05))
    fit_stream(FitConfig(), batches, "sae/base")

Every pass over the manifests is planned and rendered anew (`windows.py`), so that no window comes twice the same.
Encoding costs far more than fitting: this is for data that would not fit on the disk, and for a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np
import torch

from steer_asr.errors import HookPointError, SteerOptionError, unknown_name
from steer_asr.manifest import read_manifest
from steer_asr_training.analysis.labels import MUSIC
from steer_asr_training.batches import one_pass, too_few_frames, window_weights
from steer_asr_training.collect import CollectConfig
from steer_asr_training.encoders import load_encoder
from steer_asr_training.windows import WindowSpec, plan_windows, render


@dataclass(frozen=True)
class Augment:
    """How often something is laid over a clip that the plan takes as it is. The paper: noise 0.05, music 0.025."""

    noise: float = 0.0
    """Chance that noise is laid over it: a non-speech clip that is not music."""
    music: float = 0.0
    snr_db: tuple[float, float] = (0.0, 20.0)
    """Range of the signal-to-noise ratio, uniform."""

    def __post_init__(self) -> None:
        if min(self.noise, self.music) < 0 or self.noise + self.music > 1 or self.snr_db[0] > self.snr_db[1]:
            raise SteerOptionError(f"augment: noise and music are chances, together at most 1; got {self}")


class StreamBatches:
    """Shuffled real frames of freshly rendered windows, for ever; `Batches`, with a position that can be kept.

    To go on from a position, the windows of its buffer, and nothing before, are encoded again. Raises the errors of
    `collect`; `SteerOptionError` for a weight or an augmentation that the manifests have no clip for.
    """

    def __init__(
        self,
        config: CollectConfig,
        *,
        batch: int,
        seed: int,
        weights: Mapping[str, float] | None = None,
        augment: Augment | None = None,
        windows_in_buffer: int = 64,
    ) -> None:
        self.config, self.batch, self.seed = config, batch, seed
        self.weights, self.augment, self.windows_in_buffer = weights or {}, augment or Augment(), windows_in_buffer
        self.clips = [clip for manifest in config.manifests for clip in read_manifest(manifest)]
        self.encoder = load_encoder(config.model, precision=config.precision)
        if unknown := sorted(set(config.hook_points) - set(self.encoder.hook_points())):
            known = self.encoder.hook_points()
            raise HookPointError(f"{self.encoder.name}: {unknown_name('hook point', unknown[0], known)}")
        self.origin = {"model_name": self.encoder.name, "model_sha256": self.encoder.sha256}
        """What the exported dictionary says about where it belongs."""
        self._over = {"noise": self._clips_over(music=False), "music": self._clips_over(music=True)}
        self.plan(0)  # what is wrong with the settings is said at once
        self._position = (0, 0, 0)
        self._frames = self._from(*self._position)

    def __next__(self) -> dict[str, torch.Tensor]:
        return next(self._frames)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        return self

    def state_dict(self) -> dict[str, Any]:
        return dict(zip(("pass", "buffer", "batch"), self._position, strict=True))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._position = (state["pass"], state["buffer"], state["batch"])
        self._frames = self._from(*self._position)

    def plan(self, n_pass: int) -> list[WindowSpec]:
        """The windows of one pass over the manifests, in the order in which they come."""
        rng = np.random.default_rng([self.seed, n_pass])
        plan = plan_windows(self.clips, self.config.data, self.config.seed + n_pass)
        plan = [self._augmented(spec, rng) for spec in plan]
        if not self.weights:
            return plan
        weights = window_weights([spec.to_json() for spec in plan], self.clips, self.weights)
        chosen = rng.permutation(one_pass(len(plan), weights, rng))
        # a window that comes again sounds different again
        return [replace(plan[i], seed=int(rng.integers(0, 2**31))) for i in chosen]

    def _from(self, n_pass: int, n_buffer: int, n_batch: int) -> Iterator[dict[str, torch.Tensor]]:
        for number in count(n_pass):
            plan, found = self.plan(number), n_buffer > 0
            for buffer in range(n_buffer, -(-len(plan) // self.windows_in_buffer)):
                pools = self._encode(plan[buffer * self.windows_in_buffer : (buffer + 1) * self.windows_in_buffer])
                n_frames = len(next(iter(pools.values())))
                shuffled = np.random.default_rng([self.seed, number, buffer]).permutation(n_frames)
                for b in range(n_batch, n_frames // self.batch):
                    found, self._position = True, (number, buffer, b + 1)
                    rows = shuffled[b * self.batch : (b + 1) * self.batch]
                    yield {point: torch.from_numpy(pool[rows]) for point, pool in pools.items()}
                found, n_batch = found or n_batch > 0, 0
            if not found:
                raise too_few_frames(", ".join(self.config.manifests), self.batch)
            n_buffer = 0

    def _encode(self, specs: list[WindowSpec]) -> dict[str, np.ndarray]:
        """Hook point to float32 [frame, d_in]: the frames that hear audio."""
        windows = []
        for start in range(0, len(specs), self.config.batch_size):
            waves = [render(spec, self.clips) for spec in specs[start : start + self.config.batch_size]]
            windows += self.encoder.capture(waves, self.config.hook_points)
        return {
            point: np.concatenate([window.activations[point][: window.n_real_frames] for window in windows])
            for point in self.config.hook_points
        }

    def _augmented(self, spec: WindowSpec, rng: np.random.Generator) -> WindowSpec:
        """A clip that is taken as it is, in some cases with another one under it."""
        if spec.treatment != "plain":
            return spec
        dice, snr_db = rng.random(), float(rng.uniform(*self.augment.snr_db))
        over = "noise" if dice < self.augment.noise else "music"
        if dice >= self.augment.noise + self.augment.music:
            return spec
        return replace(spec, treatment="noisy", clips=(*spec.clips, int(rng.choice(self._over[over]))), snr_db=snr_db)

    def _clips_over(self, *, music: bool) -> list[int]:
        chance = self.augment.music if music else self.augment.noise
        found = [
            i
            for i, clip in enumerate(self.clips)
            if clip.kind == "nonspeech"
            and (clip.category in MUSIC) == music
            and (clip.shippable or not self.config.data.only_shippable)
        ]
        if chance and not found:
            what = f"music (category {' or '.join(MUSIC)})" if music else "non-speech other than music"
            raise SteerOptionError(f"augment: the manifests hold no usable {what}; set its chance to 0")
        return found
