"""What a report says of a gate's probabilities, against numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from steer_asr_benchmarks.gate_metrics import gate_metrics
from steer_asr_benchmarks.scoring import ClipScore
from steer_asr_benchmarks.table import gates
from tests.benchmarks.builders import quiet_score, speech_score


def scores(quiet: list[float | None], speech: list[float | None]) -> list[ClipScore]:
    made = [replace(quiet_score(f"q{i}"), nobody_speaks=p) for i, p in enumerate(quiet)]
    return made + [replace(speech_score(f"s{i}", None), nobody_speaks=p) for i, p in enumerate(speech)]


def test_auroc_and_ece_by_hand() -> None:
    """Of 3 x 2 pairs 0.9 and 0.8 win all, 0.4 wins one and ties none: 5/6. Bins: 0.0, 0.4, 0.6, 0.8, 0.9."""
    found = gate_metrics(scores([0.9, 0.8, 0.4], [0.6, 0.0]))
    assert found is not None
    assert found["auroc"] == pytest.approx(5 / 6)
    assert found["ece"] == pytest.approx((0.1 + 0.2 + 0.6 + 0.6 + 0.0) / 5)
    assert (found["clips"], found["nonspeech_clips"]) == (5, 3)
    assert [(b["from"], b["clips"]) for b in found["bins"]] == [(0.0, 1), (0.4, 1), (0.6, 1), (0.8, 1), (0.9, 1)]


def test_ties_count_half_and_bins_are_averaged() -> None:
    found = gate_metrics(scores([0.5, 0.5], [0.5, 0.5]))
    assert found is not None
    assert (found["auroc"], found["ece"]) == (0.5, 0.0)
    assert found["bins"] == [{"from": 0.5, "clips": 4, "predicted": 0.5, "observed": 0.5}]


def test_certainty_falls_into_the_last_bin() -> None:
    found = gate_metrics(scores([1.0], [0.0]))
    assert found is not None
    assert (found["auroc"], found["ece"]) == (1.0, 0.0)
    assert [b["from"] for b in found["bins"]] == [0.0, 0.9]


def test_without_probabilities_there_is_no_gate() -> None:
    assert gate_metrics(scores([None], [None])) is None
    assert gate_metrics([]) is None
    only_quiet = gate_metrics(scores([0.7, None], [None]))
    assert only_quiet is not None
    assert (only_quiet["auroc"], only_quiet["clips"]) == (None, 1)


def test_the_table_has_the_systems_that_tell() -> None:
    known = gate_metrics(scores([0.9], [0.2]))
    text = gates({"systems": {"stock": {"gate": None}, "steered": {"gate": known}}})
    [row] = [line for line in text.splitlines() if "steered" in line]
    assert [cell.strip() for cell in row.split("|")[1:-1]] == [
        *("steered", "2", "1.0000", "0.150"),
        "0.20: 0.00 (1), 0.90: 1.00 (1)",
    ]
    assert "stock" not in text
    assert gates({"systems": {"stock": {"gate": None}}}) == ""
