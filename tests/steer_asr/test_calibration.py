from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steer_asr.calibration import strength_within
from steer_asr.errors import SteerOptionError
from steer_asr.steering import Steering, parse_steer
from tests.steer_asr.packs import build_pack


def curve(*points: tuple[float, float]) -> tuple[dict[str, float], ...]:
    return tuple({"strength": strength, "changed_words": change} for strength, change in points)


RISING = curve((0.25, 0.01), (0.5, 0.03), (1.0, 0.07))


@pytest.mark.parametrize(
    ("bound", "strength"),
    [(0.01, 0.25), (0.02, 0.375), (0.03, 0.5), (0.05, 0.75), (0.07, 1.0), (1.0, 1.0)],
)
def test_the_largest_strength_within_the_bound(bound: float, strength: float) -> None:
    assert strength_within(RISING, bound, "p") == pytest.approx(strength)
    assert strength_within(RISING[::-1], bound, "p") == pytest.approx(strength), "the order of points does not matter"


def test_nothing_is_assumed_beyond_the_measured_strengths() -> None:
    assert strength_within(curve((0.25, 0.0), (0.6, 0.01)), 0.5, "p") == 0.6
    assert strength_within(curve((0.5, 0.0), (1.0, 0.0), (1.5, 0.0)), 0.5, "p") == 1.0
    with pytest.raises(SteerOptionError, match=r"0\.25, the smallest measured, changes 0\.01 of all words; allow that"):
        strength_within(RISING, 0.009, "p")
    # A curve that was measured at 0 may be read below its next point.
    assert strength_within(curve((0.0, 0.0), (0.5, 0.1)), 0.05, "p") == pytest.approx(0.25)


def test_a_bound_that_leaves_only_strength_0_is_an_error() -> None:
    with pytest.raises(SteerOptionError, match="leaves no strength of pack 'p'"):
        strength_within(curve((0.0, 0.0), (0.5, 0.1)), 0.0, "p")
    with pytest.raises(SteerOptionError, match="leaves no strength"):
        strength_within(curve((0.0, 0.2), (0.5, 0.3)), 0.1, "p")


def test_a_dip_in_the_curve_is_not_believed() -> None:
    bumpy = curve((0.25, 0.0), (0.5, 0.04), (0.75, 0.01), (1.0, 0.08))
    assert strength_within(bumpy, 0.02, "p") == pytest.approx(0.375), "0.75 changes less, but 0.5 has changed more"
    assert strength_within(bumpy, 0.04, "p") == pytest.approx(0.75)


def test_a_flat_curve_without_harm_gives_the_whole_edit() -> None:
    assert strength_within(curve((0.25, 0.0), (1.0, 0.0)), 0.0, "p") == 1.0


@pytest.mark.parametrize("points", [(), ({"strength": 1.0},), ({"strength": 0.5, "changed_words": float("nan")},)])
def test_a_pack_without_a_curve_says_what_would_work(points: tuple[dict[str, Any], ...]) -> None:
    with pytest.raises(SteerOptionError, match="'bare' has no strength curve.*steer-asr-train calibrate"):
        strength_within(points, 0.05, "bare")


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=8, unique_by=lambda point: point[0]),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_more_allowed_is_never_weaker_and_the_envelope_is_kept(
    points: list[tuple[float, float]], bound: float, other: float
) -> None:
    def chosen(allowed: float) -> float:
        try:
            return strength_within(curve(*points), allowed, "p")
        except SteerOptionError:
            return 0.0

    low, high = sorted((bound, other))
    assert chosen(low) <= chosen(high) + 1e-12
    if strength := chosen(bound):
        ordered = sorted(points)
        assert strength <= ordered[-1][0]
        at = [s for s, _ in ordered]
        envelope = np.maximum.accumulate([change for _, change in ordered])
        assert np.interp(strength, at, envelope) <= bound + 1e-9


def test_edit_distance_is_a_bound_whatever_was_said() -> None:
    """The reason why `changed_words` bounds the rise of WER, on random words."""
    import jiwer

    rng = np.random.default_rng(0)
    for _ in range(50):
        said, stock, steered = (" ".join(rng.choice(list("abc"), rng.integers(1, 9))) for _ in range(3))

        def distance(reference: str, text: str) -> int:
            found = jiwer.process_words([reference], [text])
            return found.substitutions + found.deletions + found.insertions

        assert distance(said, steered) - distance(said, stock) <= distance(stock, steered)


@pytest.mark.parametrize(
    ("value", "pack", "bound"),
    [
        ({"max_wer_increase": 0.05}, "default", 0.05),
        ({"pack": "mine", "max_wer_increase": 0}, "mine", 0),
        ("max_wer=0.05", "default", 0.05),
        ("max_wer_increase=0.05", "default", 0.05),
        ("packs/mine@max_wer=0.1", "packs/mine", 0.1),
    ],
)
def test_how_it_is_written(value: object, pack: str, bound: float) -> None:
    assert parse_steer(value) == Steering(pack=pack, max_wer_increase=bound)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"max_wer_increase": 5}, "share from 0 to 1"),
        ({"max_wer_increase": -0.1}, "share from 0 to 1"),
        ({"max_wer_increase": True}, "share from 0 to 1"),
        ({"max_wer_increase": "0.05"}, "share from 0 to 1"),
        ({"max_wer_increase": float("nan")}, "share from 0 to 1"),
        ({"max_wer_increase": 0.05, "strength": 0.5}, "give one of them"),
        ({"max_wer_increase": 0.05, "strength": 1}, "give one of them"),
        ("max_wer=a lot", "as a share, for example max_wer=0.05"),
        ("mine@max_wer=", "as a share"),
        ("max_wer=5", "share from 0 to 1"),
    ],
)
def test_how_it_is_not_written(value: object, message: str) -> None:
    with pytest.raises(SteerOptionError, match=message):
        parse_steer(value)


def test_a_request_is_settled_by_the_pack() -> None:
    pack = build_pack(calibration=RISING)
    settled = Steering(max_wer_increase=0.05, steer_language_detection=True).for_pack(pack)
    assert settled == Steering(strength=settled.strength, steer_language_detection=True)
    assert settled.strength == pytest.approx(0.75)
    assert Steering(strength=0.3).for_pack(pack) == Steering(strength=0.3)
    with pytest.raises(SteerOptionError, match="'test' has no strength curve"):
        Steering(max_wer_increase=0.05).for_pack(build_pack())
    with pytest.raises(SteerOptionError, match="early_exit needs .* strength of 0.25"):
        Steering(max_wer_increase=0.01, early_exit=True).for_pack(pack)
