"""How long a run of the laboratory will take on this machine: a few windows and steps are timed, the rest is counted.

estimate(recipe, run, todo_names).minutes
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from steer_asr.manifest import read_manifest
from steer_asr_training.collect import CollectConfig
from steer_asr_training.encoders import load_encoder
from steer_asr_training.fit import FitConfig, train_step
from steer_asr_training.fit_run import FitRun
from steer_asr_training.lab.recipe import LabRecipe
from steer_asr_training.windows import WINDOW_S, plan_windows, render

TIMED_WINDOWS, TIMED_STEPS = 2, 2
FRAMES_PER_S = 50
PASSES = {
    "evaluate": 8,
    "stability": 12,
    "features": 3,
    "search": 3,
    "phonemes": 1,
    "boundaries": 2,
    "probe": 3,
    "erase": 1,
}
"""What each analysis costs, in products of all frames with the dictionary, what it does with the results included."""
PROBE_S = {"probe": 40.0, "erase": 80.0}
"""Fitting the probes themselves, which depends on the data more than on anything that is known beforehand."""
DECODED_WINDOW_S, EFFECT_WINDOW_S = 2.0, 6.0
"""Splicing a window (two modes, three sorts of activations) and measuring an effect on it, in encoder passes."""
SPREAD = 2.0
"""It may well take so many times as long: a machine that is shared, probes that converge slowly."""


@dataclass(frozen=True)
class Estimate:
    """Seconds by kind of work."""

    collect_s: float
    fit_s: float
    analyses_s: float
    n_windows: int

    @property
    def minutes(self) -> float:
        return (self.collect_s + self.fit_s + self.analyses_s) / 60

    def __str__(self) -> str:
        parts = f"collect {self.collect_s / 60:.0f}, fit {self.fit_s / 60:.0f}, analyses {self.analyses_s / 60:.0f}"
        return f"about {self.minutes:.0f} to {SPREAD * self.minutes:.0f} minutes ({parts})"


def estimate(
    recipe: LabRecipe, configs: dict[str, CollectConfig], jobs: Collection[tuple[str, dict[str, object]]], workers: int
) -> Estimate:
    """Times a few windows and steps; `configs` by part, `jobs` as (name, options) of what is still to be done."""
    plans = {}
    for part, config in configs.items():
        clips = [clip for manifest in config.manifests for clip in read_manifest(manifest)]
        plans[part] = (clips, plan_windows(clips, config.data, config.seed))
    clips, plan = plans["train"]
    encoder = load_encoder(recipe.model, precision=recipe.precision)
    points = configs["train"].hook_points
    [window] = encoder.capture([render(plan[0], clips)], points)
    started = time.perf_counter()
    for spec in plan[:TIMED_WINDOWS]:
        encoder.capture([render(spec, clips)], points)
    window_s = (time.perf_counter() - started) / min(TIMED_WINDOWS, len(plan))
    d_in = window.activations[points[0]].shape[1]
    step_s = seconds_per_step(recipe.fit, d_in)
    dev_clips, dev_plan = plans["dev"]
    dev_s = sum(min(WINDOW_S, dev_clips[spec.clips[0]].duration_s) for spec in dev_plan if spec.clips)
    # a step is six products with the dictionary: encoder and decoder, forwards, and twice backwards
    pass_s = dev_s * FRAMES_PER_S / recipe.fit.batch_frames * step_s / 6
    collect_s = fit_s = analyses_s = 0.0
    for name, options in jobs:
        kind, *rest = name.split()
        if kind == "collect":
            collect_s += len(plans[rest[0]][1]) * window_s / workers
        elif kind == "fit":
            n_points = len(options["hook_points"])  # pyright: ignore[reportArgumentType]
            fit_s += recipe.fit.steps * step_s * n_points
        else:
            analyses_s += PASSES[kind] * pass_s + PROBE_S.get(kind, 0.0)
            if options.get("splice"):
                analyses_s += DECODED_WINDOW_S * window_s * int(str(options.get("windows", 64)))
            if kind == "features":
                analyses_s += EFFECT_WINDOW_S * window_s * int(str(options.get("effect_windows", 16)))
    return Estimate(collect_s, fit_s, analyses_s, sum(len(plan) for _, plan in plans.values()))


def seconds_per_step(config: FitConfig, d_in: int) -> float:
    """Of one update of one dictionary, on noise."""
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((config.batch_frames, d_in)).astype(np.float32))
    run = FitRun(config, Path())
    run.start({"noise": x})
    learner = run.learners["noise"]
    x = x.to(run.device)
    train_step(config, learner, x, config.steps - 1)
    started = time.perf_counter()
    for _ in range(TIMED_STEPS):
        train_step(config, learner, x, config.steps - 1)
    return (time.perf_counter() - started) / TIMED_STEPS
