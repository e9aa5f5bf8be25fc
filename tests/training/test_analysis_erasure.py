"""Concepts with planted features: erasing exactly those kills the target and leaves the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse

from steer_asr.errors import SteerOptionError
from steer_asr_training.analysis.erasure import ERASED_MCC, KEPT_MCC, erasure_report
from steer_asr_training.analysis.probes import ProbeRows, choose_classes

N, CYCLE = 30, 11
NAMES = ("A", "E", "O", "none")


def planted(n_groups: int = 12, cycles: int = 4, *, shared: bool = False) -> ProbeRows:
    """Features 0 to 2 are A's, 3 to 5 E's, 6 to 8 O's, among noise; eight of eleven rows are none of the three.

    So many, that a row without any of these features is best called none, and not A. `shared`: E is told by A's
    features alone, which are stronger there.
    """
    rng = np.random.default_rng(1)
    n = n_groups * cycles * CYCLE
    group, y = np.repeat(np.arange(n_groups), cycles * CYCLE), np.minimum(np.arange(n) % CYCLE, 3)
    x = (rng.random((n, N)) < 0.3) * rng.uniform(1, 2, (n, N))
    for c in range(3):
        for k, chance in enumerate((1.0, 0.95, 0.9)):
            on = (y == c) & (rng.random(n) < chance)
            x[:, 3 * c + k] = np.where(on, rng.uniform(1, 2, n), 0.0)
    if shared:
        x[:, 3:6] = 0.0
        x[:, :3] += np.where((y == 1)[:, None], rng.uniform(4, 5, (n, 3)), 0.0)
    return ProbeRows(sparse.csr_array(x.astype(np.float32)), y, NAMES, np.array([f"s{g}" for g in group]))


def at(found: dict[str, Any], removed: int) -> dict[str, Any]:
    return next(point for point in found["curve"] if point["removed"] == removed)


@pytest.mark.parametrize("penalty", [None, 0.1])
def test_erasing_the_planted_features_kills_the_target_alone(penalty: float | None) -> None:
    report = erasure_report(planted(), "A", removed=[0, 1, 2, 3, 4], penalties=[penalty], ids=range(100, 100 + N))
    assert set(report["first_removed"][:3]) == {100, 101, 102}
    [found] = report["variants"].values()
    assert at(found, 0)["target_mcc"] > 0.95
    assert at(found, 2)["target_mcc"] > 0.7, "one feature is left, and tells it"
    assert at(found, 3)["target_mcc"] < ERASED_MCC
    for removed in range(5):
        for other in ("E", "O"):
            assert at(found, removed)["mcc"][other] > 0.95
    assert (found["erased_at"], found["erased_at_share"]) == (3, pytest.approx(0.1))
    assert found["others_mean_mcc_when_erased"] > KEPT_MCC
    assert found["others_kept_on_average_until"] == 4
    assert found["target_mcc_after_putting_back"]["1"] > 0.8
    assert found["target_mcc_after_putting_back"]["2"] > 0.9


def test_erasing_another_number_erases_nothing_else() -> None:
    """The order is the target's: E's features go first when E is the target, and A stays."""
    [found] = erasure_report(planted(), "E", removed=[0, 3], penalties=[0.1])["variants"].values()
    assert at(found, 3)["mcc"]["E"] < ERASED_MCC
    assert min(at(found, 3)["mcc"][name] for name in ("A", "O")) > 0.95


def test_a_concept_that_shares_its_features_goes_too() -> None:
    [found] = erasure_report(planted(shared=True), "A", removed=[0, 1, 3], penalties=[0.1])["variants"].values()
    assert at(found, 0)["mcc"]["E"] > 0.95
    assert at(found, 3)["mcc"]["E"] < KEPT_MCC
    assert at(found, 3)["mcc"]["O"] > 0.95
    assert found["all_others_kept_until"] == 1


def test_every_penalty_has_its_curve_and_shares_are_of_the_dictionary() -> None:
    rows = choose_classes(planted(8, 2), n_folds=2)
    report = erasure_report(rows, "A", removed=[0], n_folds=2)
    assert list(report["variants"]) == ["none", "l2, C 1", "l2, C 0.01"]
    assert (report["n_features"], report["fire"], report["rows"], report["groups"]) == (N, N, 176, 8)
    [found] = erasure_report(rows, "A", penalties=[0.01], n_folds=2)["variants"].values()
    removed = [point["removed"] for point in found["curve"]]
    assert removed == sorted(set(removed))
    assert (removed[0], removed[-1]) == (0, 27)


def test_what_was_never_told_is_not_erased() -> None:
    rows = planted(6, 2)
    rng = np.random.default_rng(0)
    blind = ProbeRows(rows.x, rng.permutation(rows.y), rows.classes, rows.groups)
    [found] = erasure_report(blind, "A", removed=[0, 5], penalties=[0.01])["variants"].values()
    assert (found["target_told_at_first"], found["erased_at"], found["all_others_kept_until"]) == (False, None, None)
    assert found["target_mcc_after_putting_back"] == {}


@pytest.mark.parametrize(
    ("target", "options", "what"),
    [
        ("AA", {}, "unknown class 'AA'; did you mean 'A'"),
        ("A", {"removed": [3, 1]}, "rising numbers from 0 to 29"),
        ("A", {"removed": [0, 30]}, "rising numbers from 0 to 29"),
        ("A", {"penalties": [0.0]}, "give positive numbers"),
        ("A", {"penalties": []}, "give positive numbers"),
        ("A", {"n_folds": 13}, "13 folds of 12 speakers"),
    ],
)
def test_mistakes_are_named(target: str, options: dict[str, Any], what: str) -> None:
    with pytest.raises(SteerOptionError, match=what):
        erasure_report(planted(), target, **options)
