from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from steer_asr.errors import SteerOptionError
from steer_asr.sae import load_features
from steer_asr_training.fit import FitConfig, fit, k_at, lr_factor
from tests.training.builders import planted_store

CONFIG = FitConfig(d_sae=48, k=3, k_start=8, steps=120, batch_frames=64, lr=5e-3, checkpoint_every=40)


def test_planted_directions_are_recovered(tmp_path: Path) -> None:
    store = planted_store(tmp_path / "acts", n_windows=40)
    features = load_features(fit(replace(CONFIG, steps=400), store, tmp_path / "fit"))
    rng = np.random.default_rng(0)  # the same draws as the store's directions
    planted = rng.standard_normal((24, 32)).astype(np.float32)
    planted /= np.linalg.norm(planted, axis=1, keepdims=True)
    best = (planted @ features.W_dec.T).max(axis=1)
    assert np.median(best) > 0.9
    cfg = json.loads((tmp_path / "fit" / "sae" / "cfg.json").read_text())
    assert cfg["metadata"]["statistics"]["explained_variance"] > 0.6


def test_an_interrupted_run_resumes_bit_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = planted_store(tmp_path / "acts")
    whole = load_features(fit(CONFIG, store, tmp_path / "whole"))

    from steer_asr_training import fit as module

    step, calls = module.train_step, 0

    def interrupted(*args: object) -> object:
        nonlocal calls
        calls += 1
        if calls > 57:  # between two checkpoints
            raise KeyboardInterrupt
        return step(*args)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(module, "train_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(CONFIG, store, tmp_path / "broken")
    monkeypatch.undo()
    resumed = load_features(fit(CONFIG, store, tmp_path / "broken"))
    for name in ("W_enc", "b_enc", "threshold", "W_dec", "b_dec"):
        np.testing.assert_array_equal(getattr(resumed, name), getattr(whole, name))


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    store = planted_store(tmp_path / "acts")
    fit(CONFIG, store, tmp_path / "fit")
    with pytest.raises(SteerOptionError, match="other settings"):
        fit(replace(CONFIG, lr=1e-4), store, tmp_path / "fit")


def test_schedules() -> None:
    config = FitConfig(d_sae=64, k=8, k_start=16, steps=100, warmup_share=0.1, decay_share=0.2, k_anneal_share=0.5)
    assert lr_factor(config, 0) == pytest.approx(0.1)
    assert lr_factor(config, 50) == 1.0
    assert lr_factor(config, 99) == pytest.approx(0.05)
    assert (k_at(config, 0), k_at(config, 25), k_at(config, 50), k_at(config, 99)) == (16, 12, 8, 8)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(SteerOptionError):
        FitConfig(d_sae=8, k=9)
