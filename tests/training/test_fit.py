from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from steer_asr.errors import HookPointError, SteerOptionError
from steer_asr.sae import TENSORS, load_features
from steer_asr_training import fit as module
from steer_asr_training.fit import CHECKPOINT_FILE, FitConfig, fit
from steer_asr_training.sae_kinds import KINDS
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


def test_the_first_configuration_still_gives_the_same_tensors(tmp_path: Path) -> None:
    """Numbers of the first trainer: old recipes must not give another dictionary after a change of it."""
    features = load_features(fit(CONFIG, planted_store(tmp_path / "acts"), tmp_path / "fit"))
    sums = {"W_enc": 223.3777, "b_enc": 5.63226, "threshold": 37.93882, "W_dec": 219.8256, "b_dec": 3.27855}
    for name, total in sums.items():
        assert np.abs(getattr(features, name)).sum() == pytest.approx(total, rel=1e-3), name
    np.testing.assert_allclose(features.W_enc[0, :3], [-0.24184, 0.03893, -0.13955], atol=2e-3)
    np.testing.assert_allclose(features.W_dec[0, :3], [-0.35006, -0.15764, -0.04263], atol=2e-3)


class Interrupted(Exception):
    pass


def stop_after(n_updates: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the next fit end as if the power had gone, in its update number `n_updates` + 1."""
    step, calls = module.train_step, 0

    def interrupted(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > n_updates:
            raise Interrupted
        return step(*args)

    monkeypatch.setattr(module, "train_step", interrupted)


def checkpoint(folder: Path) -> dict[str, Any]:
    return torch.load(folder / CHECKPOINT_FILE, weights_only=True)


def assert_same(a: Any, b: Any, where: str = "checkpoint") -> None:
    """Bit by bit, all the way down."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}[{key!r}]")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (left, right) in enumerate(zip(a, b, strict=True)):
            assert_same(left, right, f"{where}[{i}]")
    else:
        assert a == b, where


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_run_resumes_bit_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Parameters, optimizer, thresholds, dead-feature counters, position in the data: all as in the straight run."""
    store = planted_store(tmp_path / "acts")
    config = replace(
        CONFIG, kind=kind, steps=30, checkpoint_every=7, dead_after_frames=100, weights={"kind:speech": 1.5}
    )
    whole = load_features(fit(config, store, tmp_path / "whole"))
    stop_after(17, monkeypatch)  # between two checkpoints
    with pytest.raises(Interrupted):
        fit(config, store, tmp_path / "broken")
    monkeypatch.undo()
    assert checkpoint(tmp_path / "broken")["step"] == 14
    resumed = load_features(fit(config, store, tmp_path / "broken"))
    assert_same(checkpoint(tmp_path / "broken"), checkpoint(tmp_path / "whole"))
    for name in TENSORS:
        np.testing.assert_array_equal(getattr(resumed, name), getattr(whole, name))


def test_a_finished_run_is_exported_again_as_it_was(tmp_path: Path) -> None:
    store, config = planted_store(tmp_path / "acts"), replace(CONFIG, steps=10, checkpoint_every=4)
    first = (fit(config, store, tmp_path / "fit") / "cfg.json").read_text()
    assert (fit(config, store, tmp_path / "fit") / "cfg.json").read_text() == first


def test_an_early_checkpoint_resumes(tmp_path: Path) -> None:
    """It held one dictionary at the top level, fewer settings, and no position but the number of steps."""
    store, config = planted_store(tmp_path / "acts"), replace(CONFIG, steps=10, checkpoint_every=10)
    whole = load_features(fit(config, store, tmp_path / "fit"))
    state = checkpoint(tmp_path / "fit")
    known = ("hook_point", "d_sae", "k", "k_start", "k_anneal_share", "steps", "batch_frames", "lr", "warmup_share")
    known += ("decay_share", "seed", "checkpoint_every")
    old = {"step": 10, "config": {name: state["config"][name] for name in known}} | state["learners"]["encoder.output"]
    torch.save(old, tmp_path / "fit" / CHECKPOINT_FILE)
    again = load_features(fit(config, store, tmp_path / "fit"))
    for name in TENSORS:
        np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    store = planted_store(tmp_path / "acts")
    config = replace(CONFIG, steps=3)
    fit(config, store, tmp_path / "fit")
    with pytest.raises(SteerOptionError, match="other settings .lr."):
        fit(replace(config, lr=1e-4), store, tmp_path / "fit")


def test_a_hook_point_that_was_not_collected_is_named(tmp_path: Path) -> None:
    with pytest.raises(HookPointError, match=r"unknown hook point 'encoder.outptu'; did you mean 'encoder.output'"):
        fit(replace(CONFIG, hook_point="encoder.outptu"), planted_store(tmp_path / "acts"), tmp_path / "fit")


def test_a_batch_larger_than_the_store_is_refused_instead_of_searched_for_ever(tmp_path: Path) -> None:
    with pytest.raises(SteerOptionError, match="no buffer of windows holds the 5000 frames"):
        fit(replace(CONFIG, batch_frames=5000), planted_store(tmp_path / "acts"), tmp_path / "fit")


def test_curves_can_be_read_by_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is an optional extra")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = replace(CONFIG, steps=31, k_anneal_share=0.9)
    fit(config, planted_store(tmp_path / "acts"), tmp_path / "fit", tensorboard=True)
    events = EventAccumulator(str(tmp_path / "fit" / "events")).Reload()
    k = {event.step: event.value for event in events.Scalars("encoder.output/k")}
    assert sorted(k) == [0, 10, 20, 30]
    assert k[0] == 8.0
    assert k[10] == pytest.approx(8 - 5 * 10 / 27.9)
    assert k[30] == 3.0
    assert len(events.Scalars("encoder.output/fvu")) == 4


def test_without_tensorboard_the_option_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(SteerOptionError, match=r"steer-asr\[tensorboard\]"):
        fit(CONFIG, planted_store(tmp_path / "acts"), tmp_path / "fit", tensorboard=True)
