from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from steer_asr_training.analysis import activations, quality, tables
from steer_asr_training.analysis.inputs import load_dictionary, stored_windows
from steer_asr_training.analysis.quality import density_histogram
from tests.training.analysis_builders import (
    D_IN,
    N_FEATURES,
    Listed,
    code_store,
    everything,
    label,
    orthonormal,
    sparse_codes,
    tied,
    write_sae,
)

measure = quality.quality


def test_explained_variance_by_hand() -> None:
    # Two frames, two dimensions. From their mean (101, 102) they lie 5 + 5 apart; each is missed by 1.
    x = np.array([[100.0, 100.0], [102.0, 104.0]])
    features = tied(np.eye(2), threshold=0.0)
    features.b_dec[:] = [1, 0]
    report = measure(Listed([x]), features, control_seed=None).report
    assert report["all"]["explained_variance"] == pytest.approx(0.8)
    assert report["all"]["fvu"] == pytest.approx(0.2)
    assert report["all"]["mse_per_frame"] == pytest.approx(1.0)
    assert report["l0"]["mean"] == 2


def test_a_dictionary_of_nothing_but_the_mean_explains_nothing_however_far_the_mean() -> None:
    x = np.random.default_rng(0).standard_normal((200, 4)) + 1000
    features = tied(np.eye(4), threshold=1e6)
    features.b_dec[:] = x.mean(axis=0)
    assert measure(Listed([x[:50], x[50:]]), features, control_seed=None).report["all"][
        "explained_variance"
    ] == pytest.approx(0.0, abs=1e-4)


def test_planted_features_are_counted(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    codes = [sparse_codes(rng, 50 + i) for i in range(6)]
    for z in codes:
        z[:, 7] = 0.0
    store = code_store(tmp_path / "store", codes, [{"kind": "speech", "source": "a"}] * 6)
    dictionary = load_dictionary(write_sae(tmp_path / "sae", tied(orthonormal())))
    report = measure(stored_windows(store, dictionary), dictionary.features).report
    z = np.concatenate(codes)
    assert report["all"]["frames"] == len(z), "padding is left out"
    assert report["all"]["explained_variance"] == pytest.approx(1.0, abs=1e-4)
    assert report["l0"]["mean"] == pytest.approx((z > 0).sum() / len(z))
    assert report["l0"]["p50"] == np.median((z > 0).sum(axis=1))
    assert report["alive"] == N_FEATURES - 1
    assert report["density"]["never"] == 1
    assert sum(report["density"]["counts"]) == N_FEATURES - 1
    assert report["density"]["on_over_10_percent"] == N_FEATURES - 1


def test_small_blocks_give_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    windows = Listed([sparse_codes(rng, 40) @ orthonormal() + 5 for _ in range(3)])
    features = tied(orthonormal(), mean=np.full(D_IN, 5.0))
    whole = measure(windows, features, control_seed=None).report
    monkeypatch.setattr(activations, "BLOCK_NUMBERS", 7 * N_FEATURES)
    monkeypatch.setattr(quality, "BLOCK_NUMBERS", 2 * N_FEATURES)
    pieces = measure(windows, features, control_seed=None).report
    assert pieces["all"]["explained_variance"] == pytest.approx(whole["all"]["explained_variance"], abs=1e-9)
    for key in ("l0", "alive", "density", "duplicates"):
        assert pieces[key] == whole[key]


def test_parts_are_centred_on_their_own_mean() -> None:
    rng = np.random.default_rng(3)
    near, far = rng.standard_normal((100, 4)), rng.standard_normal((100, 4)) + 50
    features = tied(np.eye(4), threshold=1e6)  # writes its bias: the mean of `far`
    features.b_dec[:] = far.mean(axis=0)
    labels = [label("speech", domain="speech"), label("nonspeech", domain="music")]
    report = measure(Listed([near, far], labels), features, control_seed=None).report
    assert report["parts"]["domain:music"]["explained_variance"] == pytest.approx(0.0, abs=1e-4)
    assert report["parts"]["domain:speech"]["explained_variance"] < -100
    assert set(report["parts"]) == {"domain:music", "domain:speech", "kind:speech", "kind:nonspeech"}


def test_twins_are_found_by_direction_and_by_firing() -> None:
    rows = orthonormal(5)
    rows[4] = rows[1]  # the same direction, so it fires on the same frames, too
    z = np.concatenate([sparse_codes(np.random.default_rng(4), 300, 4, 0.1), np.zeros((300, 1))], axis=1)
    twins = measure(Listed([z @ rows]), tied(rows), control_seed=None).report["duplicates"]
    assert twins["decoder_cosine"] == {"over": 0.9, "features": 2, "pairs": 1}
    assert (twins["iou"]["features"], twins["iou"]["pairs"]) == (2, 1)
    none = measure(Listed([z[:, :4] @ rows[:4]]), tied(rows[:4]), control_seed=None).report["duplicates"]
    assert none["decoder_cosine"]["features"] == none["iou"]["features"] == 0


def test_the_random_sae_fires_as_often_and_explains_less() -> None:
    rng = np.random.default_rng(5)
    rows = np.concatenate([orthonormal(), orthonormal(seed=8)])  # 24 directions of width 16
    windows = Listed([sparse_codes(rng, 400, 24, 0.08) @ rows + 3 for _ in range(4)])
    features = tied(rows, threshold=0.6, mean=np.full(D_IN, 3.0))
    found = measure(windows, features)
    report, control = found.report, found.control
    assert control is not None
    assert control.W_dec.shape == features.W_dec.shape
    assert report["random_sae"]["l0"] == pytest.approx(report["l0"]["mean"], rel=0.05)
    assert 0 < report["random_sae"]["explained_variance"] < report["all"]["explained_variance"]
    again = measure(windows, control, control_seed=None).report["all"]
    assert again["explained_variance"] == pytest.approx(report["random_sae"]["explained_variance"], abs=1e-4)
    assert measure(windows, features).report == report, "deterministic"
    assert measure(windows, features, control_seed=1).report["random_sae"] != report["random_sae"]


def test_frames_that_do_not_vary_have_no_explained_variance() -> None:
    report = measure(Listed([np.ones((5, 4))]), everything(4)).report
    assert report["all"]["explained_variance"] is None
    assert report["random_sae"]["explained_variance"] is None


def test_density_bins() -> None:
    found = density_histogram(np.array([0, 1, 10, 1000, 1000]), 1000)
    by_edge = dict(zip(found["log10_edges"], found["counts"], strict=False))
    assert (by_edge[-3.0], by_edge[-2.0], by_edge[-0.25]) == (1, 1, 2)
    assert (found["never"], found["on_over_10_percent"]) == (1, 2)


def test_without_matplotlib_there_is_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "find_spec", lambda _: None)
    assert tables.draw_density(density_histogram(np.array([1]), 10), tmp_path / "p.png") is None
    assert not list(tmp_path.iterdir())
