from __future__ import annotations

import numpy as np
import pytest

from steer_asr_benchmarks.stats import cluster_interval, wilson


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        # z = 1.959964, z^2 = 3.841459
        (0, 10, 0.0, 0.277533),  # high = z^2 / (10 + z^2)
        (10, 10, 0.722467, 1.0),
        (5, 10, 0.236593, 0.763407),
        (2, 100, 0.005502, 0.070012),
    ],
)
def test_wilson_known_values(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson(successes, trials) == pytest.approx((low, high), abs=1e-6)


def test_wilson_without_trials() -> None:
    assert wilson(0, 0) is None


def test_equal_groups_leave_nothing_to_chance() -> None:
    assert cluster_interval([1, 3, 2, 2], [10, 10, 10, 10], ["a", "a", "b", "b"]) == pytest.approx((0.2, 0.2))


def test_one_group_says_nothing_about_others() -> None:
    assert cluster_interval([1, 2], [10, 10], ["a", "a"]) is None
    assert cluster_interval([], [], []) is None


def test_two_groups_by_hand() -> None:
    # Drawing two of {0, 1} with replacement gives 0, 0.5 or 1 with probability 1/4, 1/2, 1/4.
    assert cluster_interval([0, 1], [1, 1], ["a", "b"]) == (0.0, 1.0)


def test_it_covers_what_the_theory_says() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(3.0, 2.0, size=400)
    interval = cluster_interval(values.tolist(), [1] * 400, [str(i) for i in range(400)])
    assert interval is not None
    spread = 1.96 * values.std() / 20
    assert interval == pytest.approx((values.mean() - spread, values.mean() + spread), abs=0.03)


def test_clips_of_one_speaker_count_as_one() -> None:
    rng = np.random.default_rng(2)
    values = np.repeat(rng.normal(size=20), 50).tolist()
    alone = cluster_interval(values, [1] * 1000, [str(i) for i in range(1000)])
    grouped = cluster_interval(values, [1] * 1000, [str(i // 50) for i in range(1000)])
    assert alone is not None
    assert grouped is not None
    assert grouped[1] - grouped[0] > 4 * (alone[1] - alone[0])


def test_the_seed_is_fixed() -> None:
    arguments = [1, 5, 2], [10, 9, 8], ["a", "b", "c"]
    assert cluster_interval(*arguments) == cluster_interval(*arguments)
