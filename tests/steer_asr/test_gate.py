from __future__ import annotations

import json

import numpy as np
import pytest

from steer_asr.errors import PackError
from steer_asr.gate import Gate, moving_average, sliding_max, speech_at


def build_gate(**overrides: object) -> Gate:
    values: dict[str, object] = {
        "coefficients": np.array([10.0, 0.0], np.float32),
        "bias": -5.0,
        "smooth_frames": 1,
        "reach_frames": 2,
        "frame_calibration": (4.0, 0.0),
        "clip_calibration": (1.0, 0.0),
    }
    return Gate(**values | overrides)  # pyright: ignore[reportArgumentType]


def one_word(frames: int = 12, at: int = 6) -> np.ndarray:
    z = np.zeros((frames, 2), np.float32)
    z[at, 0] = 1.0
    return z


def test_a_word_protects_its_surroundings_exactly() -> None:
    reading = build_gate()(one_word())
    edited = reading.weights > 0.5
    np.testing.assert_array_equal(np.flatnonzero(~edited), [4, 5, 6, 7, 8])
    assert (reading.weights[4:9] == 0.0).all(), "clear speech has to stay bit-identical"


def test_nobody_speaks_is_the_sigmoid_of_the_best_frame() -> None:
    gate = build_gate()
    assert gate(one_word()).nobody_speaks == pytest.approx(1 / (1 + np.exp(5.0)))
    assert gate(np.zeros((12, 2), np.float32)).nobody_speaks == pytest.approx(1 / (1 + np.exp(-5.0)))


def test_each_moment_has_a_probability_of_its_own() -> None:
    gate = build_gate(reach_frames=1500, moment_calibration=(0.5, 1.0))
    reading = gate(one_word())
    assert reading.frames[6] == pytest.approx(1 / (1 + np.exp(0.5 * 5 + 1)))
    np.testing.assert_allclose(np.delete(reading.frames, 6), 1 / (1 + np.exp(0.5 * -5 + 1)), rtol=1e-6)
    plain = build_gate(reach_frames=1500)(one_word())
    np.testing.assert_array_equal(plain.weights, reading.weights)
    assert plain.nobody_speaks == reading.nobody_speaks == pytest.approx(float(plain.frames.min()))


def test_who_speaks_when_by_hand() -> None:
    np.testing.assert_array_equal(speech_at([(0.04, 0.08)], 6), [0, 0, 1, 1, 1, 0])
    np.testing.assert_array_equal(speech_at([(0.04, 0.08)], 6, start_s=0.06), [1, 1, 0, 0, 0, 0])
    known = speech_at([(0.1, 0.3)], 20, margin_s=0.05)
    np.testing.assert_array_equal(np.flatnonzero(known == 1), [8, 9, 10, 11, 12])
    np.testing.assert_array_equal(np.flatnonzero(known == 0), [0, 1, 2, 18, 19])
    assert not speech_at([], 5, margin_s=1.0).any()


def test_a_reach_beyond_the_window_makes_one_decision_for_all_frames() -> None:
    weights = build_gate(reach_frames=1500)(one_word()).weights
    assert (weights == 0.0).all()


def test_padding_follows_the_window() -> None:
    """Far from the word but behind the end of the audio: edited only where the whole window is."""
    np.testing.assert_array_equal(np.flatnonzero(build_gate()(one_word(), 11).weights), [0, 1, 2, 3, 9, 10])
    np.testing.assert_array_equal(np.flatnonzero(build_gate()(one_word(), 0).weights), [])
    assert (build_gate()(np.zeros((12, 2), np.float32), 3).weights > 0.5).all()
    np.testing.assert_array_equal(build_gate()(one_word(), 12).weights, build_gate()(one_word()).weights)


def test_moving_average_shortens_at_the_edges() -> None:
    np.testing.assert_allclose(moving_average(np.array([3.0, 0.0, 0.0, 6.0], np.float32), 3), [1.5, 1.0, 2.0, 3.0])


def test_sliding_max() -> None:
    values = np.array([0.0, 1.0, 0.0, 0.0, 5.0], np.float32)
    np.testing.assert_array_equal(sliding_max(values, 1), [1, 1, 1, 5, 5])
    np.testing.assert_array_equal(sliding_max(values, 0), values)


@pytest.mark.parametrize("moments", [None, (0.25, -1.5)])
def test_json_round_trip(moments: tuple[float, float] | None) -> None:
    gate = build_gate(coefficients=np.array([1.25, -3.5], np.float32), moment_calibration=moments)
    again = Gate.from_json(json.loads(json.dumps(gate.to_json())), 2)
    z = np.random.default_rng(0).random((30, 2), dtype=np.float32)
    np.testing.assert_array_equal(again(z).weights, gate(z).weights)
    np.testing.assert_array_equal(again(z).frames, gate(z).frames)
    assert again.moment_calibration == moments


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"coefficients": [1.0]}, "1 coefficients for 2 features"),
        ({"smooth_frames": 4}, "odd"),
        ({"bias": float("inf")}, "not finite"),
        ({"clip_calibration": [1.0]}, "broken"),
        ({"bias": None}, "broken"),
        ({"moment_calibration": [1.0]}, "broken"),
        ({"moment_calibration": [1.0, float("nan")]}, "not finite"),
    ],
)
def test_broken_gates_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(PackError, match=message):
        Gate.from_json(build_gate().to_json() | change, 2)


def test_a_missing_key_is_named() -> None:
    data = build_gate().to_json()
    del data["reach_frames"]
    with pytest.raises(PackError, match="reach_frames"):
        Gate.from_json(data, 2)
