from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from steer_asr.errors import HookPointError, PackMismatchError, SteerOptionError
from steer_asr_training.analysis import stability as module
from steer_asr_training.analysis.inputs import Dictionary
from steer_asr_training.analysis.stability import CoFiring, match_directions, stability
from steer_asr_training.store import ActivationStore
from tests.training.analysis_builders import D_IN, N_FEATURES, code_store, orthonormal, sparse_codes, tied
from tests.training.builders import POINT, write_store

SPEECH = {"kind": "speech", "source": "s", "treatment": "plain"}
MUSIC = {"kind": "nonspeech", "source": "m", "treatment": "plain", "category": "music"}
UNKNOWN = {"kind": "nonspeech", "source": "u", "treatment": "plain"}


def dictionary(rows: np.ndarray, threshold: float = 0.25) -> Dictionary:
    return Dictionary("test", tied(rows, threshold=threshold), tuple(range(len(rows))), POINT, None)


@pytest.fixture
def store(tmp_path: Path) -> ActivationStore:
    rng = np.random.default_rng(0)
    codes = [sparse_codes(rng, 80, share=0.1) for _ in range(9)]
    return code_store(tmp_path / "store", codes, [SPEECH, MUSIC, UNKNOWN] * 3)


def test_a_shuffled_copy_matches_throughout(store: ActivationStore) -> None:
    rows = orthonormal()
    report = stability(store, dictionary(rows), dictionary(rows[np.random.default_rng(1).permutation(len(rows))]))
    for name in ("all", "speech", "nonspeech", "music"):
        row = report["by_domain"][name]
        assert (row["matched_a"], row["matched_b"], row["one_to_one"]) == (N_FEATURES,) * 3
        assert row["matched_share_of_alive_a"] == row["mean_iou_of_pairs"] == 1.0
    assert report["by_domain"]["all"]["frames"] == 720, "padding is left out"
    assert report["by_domain"]["nonspeech"]["frames"] == 480, "those of unknown category, too"
    assert report["by_domain"]["sounds"] is None, "there are no such windows"
    assert report["by_domain"]["all"]["matched_a_when_shifted"] == 0
    assert report["decoder"]["assigned"]["mean"] == pytest.approx(1.0, abs=1e-5)
    assert report["decoder"]["best_for_a"]["share_over"] == 1.0
    assert report["decoder"]["best_for_a_among_random"]["mean"] < 0.8


def test_only_what_is_shared_matches(store: ActivationStore) -> None:
    rows = orthonormal()
    other = rows.copy()
    other[:4] = np.linalg.qr(rows[:4].T @ np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]))[0].T
    report = stability(store, dictionary(rows), dictionary(other, threshold=0.9))
    row = report["by_domain"]["all"]
    assert row["matched_a"] == row["matched_b"] == row["one_to_one"] == N_FEATURES - 4
    assert row["matched_share_a"] == pytest.approx((N_FEATURES - 4) / N_FEATURES)
    assert report["decoder"]["assigned"]["share_over"] == pytest.approx((N_FEATURES - 4) / N_FEATURES)


def test_a_match_in_one_domain_alone(tmp_path: Path) -> None:
    """Feature 0 of B is feature 0 of A in speech and feature 1 in music."""
    rng = np.random.default_rng(2)
    rows = orthonormal()
    codes = [sparse_codes(rng, 100, share=0.1) for _ in range(4)]
    for i, z in enumerate(codes):
        z[:, 2] = z[:, i % 2]
    store = code_store(tmp_path / "s", codes, [SPEECH, MUSIC] * 2)
    report = stability(store, dictionary(rows[:2]), dictionary(rows[2:3]))
    assert [report["by_domain"][name]["matched_a"] for name in ("speech", "music", "all")] == [1, 1, 0]


def test_one_feature_cannot_stand_for_two_in_one_to_one(store: ActivationStore) -> None:
    rows = orthonormal()
    doubled = np.concatenate([rows[:1], rows[:1]])
    row = stability(store, dictionary(doubled), dictionary(rows[:1]))["by_domain"]["all"]
    assert (row["matched_a"], row["matched_b"], row["one_to_one"]) == (2, 1, 1)


def test_counts_are_those_of_plain_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    parts = [(rng.random((20, 5)) < 0.5, rng.random((20, 4)) < 0.5) for _ in range(5)]
    monkeypatch.setattr(module, "PENDING_FIRINGS", 60)
    counts = CoFiring(5, 4)
    for a, b in parts:
        counts.add(sparse.csr_array(a.astype(np.float32)), sparse.csr_array(b.astype(np.float32)))
    a, b = (np.concatenate([part[side] for part in parts]) for side in (0, 1))
    expected = {
        (i, j): (a[:, i] & b[:, j]).sum() / (a[:, i] | b[:, j]).sum()
        for i in range(5)
        for j in range(4)
        if (a[:, i] & b[:, j]).sum() / (a[:, i] | b[:, j]).sum() > 0.33
    }
    assert 0 < len(expected) < 20
    found = {(int(i), int(j)): iou for i, j, iou in zip(*counts.pairs_over(0.33), strict=True)}
    assert found == pytest.approx(expected)


def test_an_iou_of_exactly_a_half_is_no_match() -> None:
    a, b = np.array([[1], [1]], np.float32), np.array([[1], [0]], np.float32)
    counts = CoFiring(1, 1)
    counts.add(sparse.csr_array(a), sparse.csr_array(b))
    assert len(counts.pairs_over(0.5)[0]) == 0
    assert counts.pairs_over(0.49)[2].tolist() == [0.5]


def test_directions_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    # Both rows of A like the first of B best; the assignment has to give one of them the second.
    a, b = np.array([[1.0, 0.0], [0.8, 0.6]]), np.array([[2.0, 0.0], [0.0, 3.0]])
    found = match_directions(a, b)
    assert found["best_for_a"]["mean"] == pytest.approx(0.9)
    assert found["best_for_b"]["mean"] == pytest.approx(0.8)
    assert found["assigned"]["mean"] == pytest.approx(0.8)
    assert found["assigned"]["share_over"] == 0.5
    monkeypatch.setattr(module, "MAX_ASSIGNED", 1)
    assert match_directions(a, b)["assigned"] is None


def test_another_hook_point_is_matched_by_firing_alone(tmp_path: Path) -> None:
    from steer_asr_training.encoders import Window
    from steer_asr_training.store import open_store, write_shard

    rng = np.random.default_rng(4)
    codes = [sparse_codes(rng, 60, share=0.1) for _ in range(3)]
    rows, deeper = orthonormal(), orthonormal(seed=7)
    windows = [Window({POINT: z @ rows, "encoder.layers.0": z @ deeper}, len(z)) for z in codes]
    points = [POINT, "encoder.layers.0"]
    open_store(tmp_path, {"model": "t", "model_sha256": "0" * 64, "n_shards": 1, "hook_points": points})
    write_shard(tmp_path, 0, windows, [SPEECH] * 3)
    store = ActivationStore(tmp_path)
    lower = replace(dictionary(deeper), hook_point="encoder.layers.0")
    report = stability(store, dictionary(rows), lower)
    assert report["by_domain"]["all"]["matched_a"] == N_FEATURES
    assert report["decoder"] is None
    with pytest.raises(HookPointError, match=r"encoder.layers.1.*did you mean"):
        stability(store, dictionary(rows), replace(lower, hook_point="encoder.layers.1"))


def test_what_does_not_fit_is_refused(store: ActivationStore, tmp_path: Path) -> None:
    right = dictionary(orthonormal())
    with pytest.raises(PackMismatchError, match=f"8 wide.*are {D_IN}"):
        stability(store, right, dictionary(orthonormal(4, 8)))
    with pytest.raises(PackMismatchError, match="belongs to a model with weights 111"):
        stability(store, replace(right, model_sha256="1" * 64), right)
    with pytest.raises(SteerOptionError, match="no windows.*steer-asr-train collect"):
        stability(write_store(tmp_path / "empty", [], []), right, right)
