from __future__ import annotations

import io
import wave
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from steer_asr.errors import SteerOptionError
from steer_asr.manifest import Clip
from steer_asr_training.synth import GENERATORS, synthesize
from steer_asr_training.windows import DataConfig, plan_windows, render

SMALL = DataConfig(
    varied_nonspeech=6,
    synthetic_nonspeech=10,
    noisy_speech=6,
    placed_speech=6,
    disguised_speech=8,
    disguised_nonspeech=7,
)


@pytest.fixture
def clips(tmp_path: Path) -> list[Clip]:
    """Four clips of speech and four of non-speech, one second each; the last of each may not be shipped."""
    made = []
    for i in range(8):
        samples = (np.random.default_rng(i).standard_normal(16000) * 3000).astype("<i2")
        buffer = io.BytesIO()
        with wave.open(buffer, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16000)
            file.writeframes(samples.tobytes())
        path = tmp_path / f"{i}.wav"
        path.write_bytes(buffer.getvalue())
        kind = "speech" if i < 4 else "nonspeech"
        made.append(
            Clip(path, 1.0, "hello" if i < 4 else "", kind, source=kind, group=str(i), shippable=i not in (3, 7))
        )
    return made


def test_the_plan_holds_what_was_asked_for_and_depends_on_the_seed_alone(clips: list[Clip]) -> None:
    plan = plan_windows(clips, SMALL, seed=0)
    assert Counter((spec.kind, spec.treatment) for spec in plan) == {
        ("speech", "plain"): 3,
        ("nonspeech", "plain"): 3,
        ("nonspeech", "varied"): 6,
        ("nonspeech", "synthetic"): 10,
        ("speech", "noisy"): 6,
        ("speech", "placed"): 6,
        ("speech", "disguised"): 8,
        ("nonspeech", "disguised"): 7,
    }
    assert plan == plan_windows(clips, SMALL, seed=0)
    assert plan != plan_windows(clips, SMALL, seed=1)
    assert {spec.generator for spec in plan if spec.treatment == "synthetic"} == set(GENERATORS)


def test_clips_that_may_not_be_shipped_are_left_out(clips: list[Clip]) -> None:
    used = {i for spec in plan_windows(clips, SMALL, seed=0) for i in spec.clips}
    assert used <= {0, 1, 2, 4, 5, 6}


def test_every_window_renders_the_same_each_time_and_fits(clips: list[Clip]) -> None:
    for spec in plan_windows(clips, SMALL, seed=0):
        sound = render(spec, clips)
        assert sound.dtype == np.float32
        assert 0.1 * 16000 <= len(sound) <= 30 * 16000
        assert np.isfinite(sound).all()
        assert np.abs(sound).max() <= 1.0 + 1e-6
        np.testing.assert_array_equal(sound, render(spec, clips))


def test_noise_is_mixed_at_the_planned_ratio(clips: list[Clip]) -> None:
    for spec in plan_windows(clips, SMALL, seed=0):
        if spec.treatment == "noisy":
            speech = render(spec, clips)
            assert 0.0 <= spec.snr_db <= 20.0
            assert len(speech) == 16000


def test_learning_needs_both_sorts(clips: list[Clip]) -> None:
    with pytest.raises(SteerOptionError, match="found 3 speech and 0 non-speech"):
        plan_windows(clips[:4], SMALL, seed=0)


@pytest.mark.parametrize("kind", GENERATORS)
def test_synthetic_sounds_repeat_and_stay_in_range(kind: str) -> None:
    for seed, duration_s in enumerate((0.3, 2.0, 31.0)):
        sound = synthesize(kind, np.random.default_rng(seed), duration_s)
        assert len(sound) == round(duration_s * 16000)
        assert np.isfinite(sound).all()
        assert np.abs(sound).max() <= 1.0
        np.testing.assert_array_equal(sound, synthesize(kind, np.random.default_rng(seed), duration_s))
