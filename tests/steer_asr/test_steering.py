from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from steer_asr.edits import Edit
from steer_asr.errors import SteerOptionError
from steer_asr.steering import Steering, audio_frames, parse_steer, steer_frames, top_features
from tests.steer_asr.packs import build_pack, open_gate


@pytest.mark.parametrize("value", [None, False, "off", "none", "OFF"])
def test_no_steering(value: object) -> None:
    assert parse_steer(value) is None


@pytest.mark.parametrize(
    ("value", "pack", "strength"),
    [
        (True, "default", 1.0),
        ("default", "default", 1.0),
        ("on", "default", 1.0),
        (0, "default", 0.0),
        (1, "default", 1.0),
        (0.25, "default", 0.25),
        ("0.25", "default", 0.25),
        ("my-pack", "my-pack", 1.0),
        ("my-pack@0.5", "my-pack", 0.5),
        ("user@host/pack", "user@host/pack", 1.0),
        (Path("packs/mine"), "packs/mine", 1.0),
        ({"pack": "mine", "strength": 0.5}, "mine", 0.5),
        ({}, "default", 1.0),
    ],
)
def test_what_steer_means(value: object, pack: str, strength: float) -> None:
    assert parse_steer(value) == Steering(pack=pack, strength=strength)


@pytest.mark.parametrize(
    "value",
    [2, -0.1, "1.5", "mine@7", float("nan"), "", "mine@", {"strenght": 1}, {"strength": "0.5"}, {"strength": True},
     {"steer_language_detection": "yes"},
     {"pack": 3}, object(), [0.5]],
)  # fmt: skip
def test_what_steer_does_not_mean(value: object) -> None:
    with pytest.raises(SteerOptionError):
        parse_steer(value)


def test_more_than_full_strength_has_to_be_asked_for() -> None:
    with pytest.raises(SteerOptionError, match="allow_overdrive=True"):
        Steering(strength=1.5)
    assert Steering(strength=1.5, allow_overdrive=True).strength == 1.5


def test_the_edit_touches_only_what_its_feature_wrote() -> None:
    x = np.array([[2.0, 2.0, 2.0, 2.0], [0.25, 2.0, 2.0, 2.0]], np.float32)  # feature 7 fires on frame 0 only
    report = steer_frames(x, build_pack(), 1.0)
    np.testing.assert_array_equal(x, [[0.0, 2.0, 2.0, 2.0], [0.25, 2.0, 2.0, 2.0]])
    np.testing.assert_array_equal(report.weights, [1.0, 1.0])
    assert np.isnan(report.nobody_speaks), "a pack without a gate has no opinion"


def test_strength_is_linear_between_identity_and_full() -> None:
    original = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)
    edited = {}
    for strength in (0.0, 0.5, 1.0):
        edited[strength] = original.copy()
        steer_frames(edited[strength], build_pack(gate=open_gate(3)), strength)
    np.testing.assert_array_equal(edited[0.0], original)
    np.testing.assert_allclose(edited[0.5], (original + edited[1.0]) / 2, atol=1e-6)
    assert np.abs(edited[1.0] - original).max() > 0.5


def test_features_are_ranked_by_what_their_edit_moved() -> None:
    x = np.zeros((50, 4), np.float32)
    x[10:20, 0], x[30:32, 1] = 1.0, 3.0
    pack = build_pack(edits=(Edit(7, "scale", 0.0), Edit(8, "scale", 0.0)))
    report = steer_frames(x, pack, 1.0)
    first, second = top_features(report, pack, 0, 50, 5.0)
    assert (first.feature, first.peak, first.start_s, first.end_s) == (7, 1.0, 5.2, 5.4)
    assert (second.feature, second.peak, second.start_s, second.end_s) == (8, 3.0, 5.6, 5.64)
    assert [f.feature for f in top_features(report, pack, 25, 50, 0.0)] == [8]


def test_audio_ends_where_nothing_but_zeros_follows() -> None:
    mel = np.zeros((4, 3, 10), np.float32)
    mel[0, 1, 6] = -0.5
    mel[0, 2, 2] = 1.0
    mel[1, 0, 9] = 1e-6
    mel[3, 0, 5] = 1.0
    assert audio_frames(mel) == [4, 5, 0, 3]
