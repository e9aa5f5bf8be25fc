from __future__ import annotations

import numpy as np
import pytest

from steer_asr.edits import Edit, EditPlan
from steer_asr.errors import PackError

IDS = (10, 11, 12, 13)


def test_each_operation_on_firing_and_silent_features() -> None:
    plan = EditPlan.build(
        [Edit(10, "scale", -2.0), Edit(11, "clamp", 5.0), Edit(12, "cap", 1.0), Edit(13, "add", 0.5)], IDS
    )
    z = np.array([[3.0, 3.0, 3.0, 3.0], [0.0, 0.0, 0.0, 0.0]], np.float32)
    np.testing.assert_array_equal(plan(z), [[-6.0, 5.0, 1.0, 3.5], [0.0, 5.0, 0.0, 0.5]])


def test_a_feature_may_be_scaled_and_added_to() -> None:
    plan = EditPlan.build([Edit(12, "add", 0.5), Edit(12, "scale", -2.0)], IDS)
    np.testing.assert_array_equal(plan(np.array([[1.0, 1.0, 3.0, 1.0]], np.float32)), [[1.0, 1.0, -5.5, 1.0]])


def test_features_without_an_edit_keep_their_activation() -> None:
    z = np.random.default_rng(0).random((5, 4), dtype=np.float32)
    edited = EditPlan.build([Edit(11, "scale", 0.0)], IDS)(z)
    np.testing.assert_array_equal(edited[:, [0, 2, 3]], z[:, [0, 2, 3]])
    assert not edited[:, 1].any()


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ([], "steer nothing"),
        ([Edit(99, "scale", 0.0)], "no feature 99"),
        ([Edit(10, "scale", 0.0), Edit(10, "cap", 1.0)], "edited twice"),
        ([Edit(10, "add", 0.5), Edit(10, "add", 1.0)], "edited twice"),
        ([Edit(10, "clamp", 0.5), Edit(10, "add", 1.0)], "edited twice"),
    ],
)
def test_impossible_plans_are_refused(edits: list[Edit], message: str) -> None:
    with pytest.raises(PackError, match=message):
        EditPlan.build(edits, IDS)


def test_unknown_operations_and_values_are_refused() -> None:
    with pytest.raises(PackError, match="scale, clamp, cap, add"):
        Edit(1, "mute", 0.0)  # pyright: ignore[reportArgumentType]
    with pytest.raises(PackError, match="not finite"):
        Edit(1, "scale", float("nan"))
