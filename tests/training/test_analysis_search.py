from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from steer_asr.errors import SteerOptionError
from steer_asr_training.analysis.activations import clip_table
from steer_asr_training.analysis.labels import WindowLabels, all_tags, find_tag
from steer_asr_training.analysis.search import Peaks, best_thresholds, halves, scores_at, search_label
from tests.training.analysis_builders import N_FEATURES, Listed, label, orthonormal, sparse_codes, tied

RAIN = 5


def rainy(n: int = 40) -> tuple[Listed, list[WindowLabels]]:
    """Feature 5 fires at 2 to 3 where it rains, which is every fourth window, and at 0.5 to 1 elsewhere."""
    rng = np.random.default_rng(0)
    frames, labels = [], []
    for i in range(n):
        z = sparse_codes(rng, 30)
        rains = i % 4 == 0
        z[:, RAIN] = 0.0
        z[10:20, RAIN] = rng.uniform(2, 3, 10) if rains else rng.uniform(0.5, 1, 10)
        frames.append(z @ orthonormal())
        tags = ("label:rain", "category:water") if rains else ("label:dog", "category:animal")
        labels.append(label("nonspeech", *tags, group=f"recording {i // 2}"))
    return Listed(frames, labels), labels


def peaks_of(windows: Listed) -> Peaks:
    return Peaks.of(clip_table(windows, tied(orthonormal())))


def test_the_planted_feature_is_found() -> None:
    windows, labels = rainy()
    found = search_label(peaks_of(windows), labels, "label:rain", ids=range(100, 100 + N_FEATURES))
    best = found["best"][0]
    assert (best["feature"], best["f1"], best["precision"], best["recall"]) == (100 + RAIN, 1.0, 1.0, 1.0)
    assert 1 < best["threshold"] < 2
    assert (found["windows"], found["of"]) == (10, 40)
    assert found["best"][1]["f1"] < 0.7
    assert found["f1_of_always"] == pytest.approx(0.4, abs=0.1)
    assert search_label(peaks_of(windows), labels, "label:rain", n_best=3)["best"] == [
        b | {"feature": b["feature"] - 100} for b in found["best"][:3]
    ]


def test_chance_does_not_count_where_it_was_not_chosen() -> None:
    """A label without meaning: the best of many features looks good on the half that chose it, and nowhere else."""
    rng = np.random.default_rng(1)
    rows = orthonormal(200, 200)
    labels = [label("nonspeech", *(("label:odd",) if i % 5 == 0 else ()), group=str(i)) for i in range(60)]
    windows = Listed([sparse_codes(rng, 4, 200, 0.05) @ rows for _ in labels], labels)
    found = search_label(Peaks.of(clip_table(windows, tied(rows))), labels, "label:odd", n_best=20)
    chosen = np.mean([best["f1_where_chosen"] for best in found["best"]])
    held = np.mean([best["f1"] for best in found["best"]])
    assert chosen > 0.5
    assert held < chosen - 0.15
    assert held < found["f1_of_always"] + 0.1


def test_halves_are_whole_recordings_dealt_evenly_and_always_the_same() -> None:
    _, labels = rainy()
    positive = np.array(["label:rain" in window.tags for window in labels])
    held = halves(labels, positive)
    assert held is not None
    for a, b in zip(range(0, 40, 2), range(1, 40, 2), strict=True):
        assert held[a] == held[b], "one recording is in one half"
    assert positive[held].sum() == positive[~held].sum() == 5
    np.testing.assert_array_equal(held, halves(labels, positive))


def test_too_few_recordings_give_no_answer() -> None:
    windows, labels = rainy()
    thrice = [label("nonspeech", "label:rain" if i in (0, 4, 8) else "label:dog", group=str(i)) for i in range(40)]
    assert search_label(peaks_of(windows), thrice, "label:rain")["best"] is None
    assert search_label(peaks_of(windows), labels, "kind:nonspeech")["best"] is None, "nothing lacks it"


def test_thresholds_are_the_best_of_all_cuts() -> None:
    rng = np.random.default_rng(2)
    values = np.round(rng.uniform(0.3, 1.5, (30, N_FEATURES)), 1) * (rng.random((30, N_FEATURES)) < 0.7)
    values[:, 3] = 0.0
    positive, within = rng.random(30) < 0.4, rng.random(30) < 0.7
    windows = Listed([(row[None] @ orthonormal()).astype(np.float32) for row in values])
    table = clip_table(windows, tied(orthonormal(), threshold=0.05))
    table.peak.data[:] = np.round(table.peak.data, 1)  # equal peaks are equal
    peaks = Peaks.of(table)
    f1, threshold = best_thresholds(peaks, positive, within)
    for j in range(N_FEATURES):
        cuts = [v for v in np.unique(values[within, j]) if v > 0]
        scores = [
            2 * (positive & within & (values[:, j] >= cut - 1e-3)).sum()
            / ((within & (values[:, j] >= cut - 1e-3)).sum() + (positive & within).sum())
            for cut in cuts
        ]  # fmt: skip
        assert f1[j] == pytest.approx(max(scores, default=0.0))
    assert np.isinf(threshold[3])
    np.testing.assert_allclose(scores_at(peaks, threshold, positive, within)[2], f1)


def test_labels_are_found_by_their_bare_name_and_unknown_ones_name_the_nearest() -> None:
    labels = [label("nonspeech", "label:rain", "source:rain"), label("speech", "label:dog")]
    assert find_tag(labels, "dog") == "label:dog"
    assert find_tag(labels, "source:rain") == "source:rain"
    with pytest.raises(SteerOptionError, match="several things; give one of label:rain, source:rain"):
        find_tag(labels, "rain")
    with pytest.raises(SteerOptionError, match="unknown label 'dig'; did you mean 'dog'"):
        find_tag(labels, "dig")
    with pytest.raises(SteerOptionError, match="unknown label 'label:dig'; did you mean 'label:dog'"):
        find_tag(labels, "label:dig")
    assert all_tags(labels) == ["kind:nonspeech", "kind:speech", "label:dog", "label:rain", "source:rain"]


def test_silent_windows_are_no_obstacle() -> None:
    windows = Listed([np.zeros((5, 16))] * 8)
    peaks = peaks_of(windows)
    f1, threshold = best_thresholds(peaks, np.ones(8, bool), np.ones(8, bool))
    assert not f1.any()
    assert np.isinf(threshold).all()


def test_nothing_is_read_from_files_that_are_not_there(tmp_path: Path) -> None:
    from steer_asr.errors import PackError
    from steer_asr_training.analysis.inputs import load_dictionary

    with pytest.raises(PackError, match="unknown pack"):
        load_dictionary(tmp_path / "nowhere")
