from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from steer_asr.gate import Gate
from steer_asr.manifest import Clip, Span
from steer_asr.models import find_model
from steer_asr_training.gate_fit import (
    FOLDS,
    discriminative_features,
    fit_gate,
    further_features,
    source_folds,
    source_weights,
)
from steer_asr_training.moments import fit_moments, moment_calibration, spans_of
from tests.steer_asr.packs import build_pack, open_gate, random_pack
from tests.tiny_whisper import WIDTH


def planted(n: int = 80, frames: int = 200, n_features: int = 6, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    """Feature 2 fires for 20 frames somewhere in speech windows; features 0 and 1 fire alike in both; 3.. never."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    windows = []
    for label in labels:
        z = np.zeros((frames, n_features), np.float32)
        z[:, :2] = (rng.random((frames, 2)) < 0.3) * rng.uniform(0.5, 2, (frames, 2))
        if label:
            start = rng.integers(0, frames - 20)
            z[start : start + 20, 2] = rng.uniform(1, 2, 20)
        windows.append(z)
    return windows, labels


def test_the_gate_finds_the_word_from_window_labels_alone() -> None:
    windows, labels = planted()
    gate = fit_gate(windows, labels, np.ones(len(labels), np.float32), reach_frames=10)
    unseen, truth = planted(seed=1)
    nobody = np.array([gate(z).nobody_speaks for z in unseen])
    assert nobody[truth == 0].min() > 0.5 > nobody[truth == 1].max()
    for z, label in zip(unseen, truth, strict=True):
        weights = gate(z).weights
        if label:
            word = np.flatnonzero(z[:, 2])
            assert weights[word].max() < 0.5, "words are protected"
            assert weights[np.abs(np.arange(200) - word.mean()) > 40].min() > 0.5, "the rest is edited"


def test_the_deciding_feature_is_chosen_first() -> None:
    windows, labels = planted()
    pooled = np.stack([z.max(axis=0) for z in windows])
    assert discriminative_features(pooled, labels, np.ones(len(labels), np.float32), 1) == [2]


def test_further_features_are_those_that_say_the_same_again() -> None:
    windows, labels = planted()
    pooled = np.stack([z.max(axis=0) for z in windows])
    twice = np.c_[pooled, 0.8 * pooled[:, 2]]
    weights = np.ones(len(labels), np.float32)
    assert further_features(twice, labels, weights, 1, taken=[2]) == [6]
    assert set(further_features(twice, labels, weights, 99, taken=[2])) == {0, 1, 6}, "what never fires is no help"
    assert further_features(twice, labels, weights, -3, taken=[2]) == []


def test_source_weights_balance_labels_and_dampen_large_sources() -> None:
    labels = np.array([1] * 10 + [0] * 10)
    weights = source_weights(["a"] * 9 + ["b"] + ["c"] * 10, labels)
    assert weights[labels == 1].sum() == pytest.approx(weights[labels == 0].sum())
    assert weights[9] == pytest.approx(3 * weights[0])


def test_folds_are_whole_sources_and_each_lacks_some_of_both_sorts() -> None:
    labels = np.array([1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0])
    sources = ["a", "a", "b", "c", "d", "e", "v", "w", "x", "y", "y"]
    fold = source_folds(labels, sources)
    assert fold is not None
    assert len({(source, f) for source, f in zip(sources, fold, strict=True)}) == len(set(sources))
    for k in range(FOLDS):
        assert set(labels[fold == k]) == {0, 1}
    assert source_folds(labels, ["a"] * 6 + ["v"] * 5) is None


def test_probabilities_are_calibrated_on_sources_not_fitted_on() -> None:
    """The evidence is the same; only what it is worth is judged on held-out sources."""
    windows, labels = planted()
    sources = [f"{label}/{i // 2 % FOLDS}" for i, label in enumerate(labels)]
    ones = np.ones(len(labels), np.float32)
    seen = fit_gate(windows, labels, ones, reach_frames=10)
    held_out = fit_gate(windows, labels, ones, reach_frames=10, sources=sources)
    np.testing.assert_array_equal(held_out.coefficients, seen.coefficients)
    assert held_out.clip_calibration != seen.clip_calibration
    assert held_out.clip_calibration[0] > 0


def test_moments_are_calibrated_to_what_is_so_and_unknown_frames_have_no_say() -> None:
    """Evidence 2 is speech in 3 frames of 4, evidence 0 in one of 4; balanced, log-odds are +-log 3."""
    evidence = np.repeat([2.0, 0.0], 4000).astype(np.float32)
    truth = np.tile([1, 1, 1, 0], 1000).tolist() + np.tile([0, 0, 0, 1], 1000).tolist()
    fitted = fit_moments(np.append(evidence, [9.0] * 500), np.array([*truth, *[-1] * 500], np.int8))
    assert fitted is not None
    slope, offset = fitted
    assert offset == pytest.approx(-np.log(3), abs=0.02)
    assert 2 * slope + offset == pytest.approx(np.log(3), abs=0.02)
    assert fit_moments(np.ones(5, np.float32), np.array([1, 1, 1, -1, -1], np.int8)) is None
    assert fit_moments(np.ones(2, np.float32), np.array([-1, -1], np.int8)) is None


def test_only_packs_and_clips_that_can_tell_of_moments_do(tmp_path: Path) -> None:
    speech = Clip(tmp_path / "a.wav", 1.0, "hi", "speech")
    quiet = replace(speech, kind="nonspeech", text="")
    gated = build_pack(gate=open_gate(3))
    assert moment_calibration(gated, [speech, quiet], "unused") is None, "nobody says when"
    aligned = replace(speech, spans=(Span(0.2, 0.8, "hi"),))
    assert moment_calibration(gated, [aligned], "unused") is None, "no non-speech"
    assert moment_calibration(build_pack(), [aligned, quiet], "unused") is None, "no gate"
    assert spans_of(aligned) == [(0.2, 0.8)]


def test_moments_of_a_pack_on_audio(tmp_path: Path, tiny_whisper_dir: Path) -> None:
    """Noise bursts count as speech here: the random gate's evidence is turned to what tells them from silence."""
    rng, rate = np.random.default_rng(0), 16_000
    waves = {"burst": np.zeros(6 * rate, np.float32), "still": np.zeros(3 * rate, np.float32)}
    waves["burst"][2 * rate : 4 * rate] = 0.3 * rng.standard_normal(2 * rate)
    for name, wave in waves.items():
        soundfile.write(tmp_path / f"{name}.wav", wave, rate)
    clips = [
        Clip(tmp_path / "burst.wav", 6.0, "x", "speech", spans=(Span(2.0, 4.0, "x"),)),
        Clip(tmp_path / "still.wav", 3.0, "", "nonspeech"),
    ]
    gate = Gate(rng.normal(0, 1, 16).astype(np.float32), 0.0, 11, 100, (1.0, 0.0), (1.0, 0.0))
    pack = random_pack(WIDTH, find_model(str(tiny_whisper_dir)).sha256, gate=gate)
    fitted = moment_calibration(pack, clips, str(tiny_whisper_dir))
    assert fitted is not None
    assert fitted == moment_calibration(pack, clips, str(tiny_whisper_dir))
    assert fitted[0] != 0
