from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from steer_asr.errors import SteerOptionError
from steer_asr_training.fit_config import PRESETS, FitConfig, k_at, lr_factor, penalty_at, preset


def test_schedules() -> None:
    config = FitConfig(d_sae=64, k=8, k_start=16, steps=100, warmup_share=0.1, decay_share=0.2, k_anneal_share=0.5)
    assert lr_factor(config, 0) == pytest.approx(0.1)
    assert lr_factor(config, 50) == 1.0
    assert lr_factor(config, 99) == pytest.approx(0.05)
    assert (k_at(config, 0), k_at(config, 25), k_at(config, 50), k_at(config, 99)) == (16, 12, 8, 8)
    assert penalty_at(config, 0) == 1.0
    warm = replace(config, penalty_warmup_share=0.2)
    assert (penalty_at(warm, 0), penalty_at(warm, 9), penalty_at(warm, 60)) == (0.05, 0.5, 1.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"d_sae": 8, "k": 9}, "k must lie in"),
        ({"kind": "batchtopk"}, "did you mean 'batch_topk'"),
        ({"kind": "topk", "k": 2.5}, "whole number"),
        ({"decay_share": 1.5}, "decay_share is a share of the steps"),
        ({"k_anneal_share": 1.0}, "k is still above its final value at the last step"),
        ({"steps": 0}, "steps must be positive"),
        ({"checkpoint_every": 0}, "checkpoint_every must be positive"),
        ({"device": "gpu"}, "unknown device"),
        ({"weights": {"kind:speech": -1.0}}, "weights cannot be negative"),
        ({"lr": float("nan")}, "lr must be positive"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SteerOptionError, match=message):
        FitConfig(**settings)


def test_the_paper_preset_is_the_papers() -> None:
    """AudioSAE on Whisper small: 6144 features of 768 dimensions; the learning rate falls from step 160,000 on."""
    paper = preset("paper")
    sae = paper.sae(768)
    assert (sae.d_sae, sae.k, sae.aux_k_coefficient) == (6144, 50, 0)
    assert (paper.steps, paper.batch_frames, paper.lr) == (200_000, 2500, 2e-4)
    assert lr_factor(paper, 160_000) == 1.0
    assert lr_factor(paper, 180_000) == pytest.approx(0.5)
    assert {k_at(paper, step) for step in (0, 1, 199_999)} == {50}
    assert penalty_at(paper, 4_999) == pytest.approx(0.5)


def test_the_laptop_preset_is_the_default() -> None:
    assert preset("laptop") == FitConfig()


def test_an_unknown_preset_is_named() -> None:
    with pytest.raises(SteerOptionError, match="unknown preset 'papr'; did you mean 'paper'"):
        preset("papr")
    assert set(PRESETS) == {"paper", "laptop"}


def test_an_expansion_that_is_too_small_for_k_is_refused_where_the_width_is_known() -> None:
    with pytest.raises(SteerOptionError, match="k is 32, more than the 16 features"):
        FitConfig(expansion_factor=2).sae(8)
