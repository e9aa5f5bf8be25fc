"""The parts of learning that need no model: the served gate, and the edits of a pack."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from steer_asr.edits import Edit
from steer_asr.errors import PackError, SteerOptionError
from steer_asr.gate import Gate
from steer_asr.models import ModelFiles
from steer_asr.sae import SaeFeatures, save_features
from steer_asr_training.export import build_pack, load_learned
from steer_asr_training.fewer import kept, mean_effect, parse_sizes
from steer_asr_training.learn import Learned, save_learned, served
from steer_asr_training.learn_config import LearnConfig, within_room

GATE = Gate(np.array([1.0, 0.0, 0.0], np.float32), 0.0, 1, 2, (2.0, -1.0), (2.0, -1.0))


def weight_at(gate: Gate, evidence: float) -> float:
    z = np.zeros((8, 3), np.float32)
    z[4, 0] = evidence
    return float(gate(z).weights[0])


def test_the_served_gate_looks_at_the_whole_window_leans_and_makes_up_its_mind() -> None:
    gate = served(GATE, LearnConfig(protect_log_odds=1.0, steepness=4.0))
    # Log-odds of speech are 2 e - 1; the edit's weight is even where they are -1, at e = 0.
    assert weight_at(gate, 0.0) == pytest.approx(0.5)
    assert weight_at(gate, 0.5) == pytest.approx(1 / (1 + np.exp(4 * 1.0)))
    z = np.zeros((8, 3), np.float32)
    z[7, 0] = 5.0
    assert not gate(z).weights.any(), "a word at the end protects the first frame"
    assert gate(z).nobody_speaks == GATE(z).nobody_speaks, "the probability is as calibrated"


def learned() -> Learned:
    rng = np.random.default_rng(0)
    features = SaeFeatures(
        rng.standard_normal((4, 3)).astype(np.float32),
        np.zeros(3, np.float32),
        np.ones(3, np.float32),
        rng.standard_normal((3, 4)).astype(np.float32),
        np.zeros(4, np.float32),
    )
    scales, adds = np.array([0.5, 1.0, 1.00001], np.float32), np.array([0.25, -2.0, 0.0], np.float32)
    return Learned((7, 3, 9), scales, adds, GATE, features)


def test_a_pack_holds_both_parts_of_an_edit_and_no_idle_ones() -> None:
    model = ModelFiles("base", Path("unused"), "0" * 64, "path")
    pack = build_pack(learned(), model, name="test", provenance={})
    assert pack.edits == (Edit(7, "scale", 0.5), Edit(7, "add", 0.25), Edit(3, "add", -2.0))
    np.testing.assert_allclose(pack.edit_plan(np.array([[2.0, 0.0, 1.0]], np.float32)), [[1.25, -2.0, 1.0]])


def test_a_finished_run_is_read_back(tmp_path: Path) -> None:
    features = SaeFeatures(
        np.zeros((4, 10), np.float32), np.zeros(10, np.float32), np.ones(10, np.float32),
        np.zeros((10, 4), np.float32), np.zeros(4, np.float32),
    )  # fmt: skip
    (tmp_path / "sae").mkdir()
    save_features(tmp_path / "sae", features, {})
    save_learned(tmp_path, LearnConfig(), learned())
    again = load_learned(tmp_path, tmp_path / "sae")
    assert again.feature_ids == (7, 3, 9)
    np.testing.assert_array_equal(again.scales, learned().scales)
    np.testing.assert_array_equal(again.adds, learned().adds)
    (tmp_path / "learned.json").write_text("{}")
    with pytest.raises(PackError, match="no finished learning run"):
        load_learned(tmp_path, tmp_path / "sae")


def test_of_fewer_features_the_gates_best_stay_and_those_of_most_effect() -> None:
    config = LearnConfig(n_features=6, n_gate_features=2)
    rng = np.random.default_rng(0)
    gate = Gate(np.zeros(6, np.float32), 0.0, 1, 0, (1.0, 0.0), (1.0, 0.0))  # every weight is 1/2
    scales = np.array([1.0, 1.0, 1.0, 0.0, 1.0, 1.5], np.float32)
    adds = np.array([0.0, 0.0, 0.25, 0.0, 0.0, 0.0], np.float32)
    features = SaeFeatures(
        rng.standard_normal((4, 6)).astype(np.float32),
        np.zeros(6, np.float32),
        np.ones(6, np.float32),
        rng.standard_normal((6, 4)).astype(np.float32),
        np.zeros(4, np.float32),
    )
    whole = Learned((10, 11, 12, 13, 14, 15), scales, adds, gate, features)
    quiet = np.array([[1, 1, 0, 1, 1, 1], [1, 1, 0, 3, 1, 1]], np.float16)
    loud = np.full((2, 6), 100, np.float16)
    effect = mean_effect(whole, [quiet, loud], np.array([True, False]))
    np.testing.assert_allclose(effect, [0, 0, 0.125, 1.0, 0, 0.25])
    assert kept(whole, effect, config, 3) == [0, 3, 5]
    assert kept(whole, effect, config, 5) == [0, 1, 3, 5, 2]


@pytest.mark.parametrize("text", ["16,few", "1", "", "16,,32", "-4"])
def test_sizes_that_make_no_sense(text: str) -> None:
    with pytest.raises(SteerOptionError, match="neither a number of features from 2 on nor 'all'"):
        parse_sizes(text)


def test_sizes() -> None:
    assert parse_sizes("16, 128,all") == (16, 128, None)


def test_a_wide_models_pack_has_room_for_fewer_features() -> None:
    config = LearnConfig(n_features=128, n_heard=256)
    assert within_room(config, 384) == config
    base, large = within_room(config, 512), within_room(config, 1280)
    assert (base.n_features, large.n_gate_features) == (128, 64)
    assert 128 < base.n_heard < 256
    assert 64 < large.n_features == large.n_heard < 128
