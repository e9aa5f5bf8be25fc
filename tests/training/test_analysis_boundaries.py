"""Detectors of speech starts and ends that were planted."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from steer_asr.errors import SteerOptionError
from steer_asr_training.analysis.aligned import AlignedFrames, pack_frames
from steer_asr_training.analysis.boundaries import boundary_report, edge_scores, event_frames, timeline

STARTS, ENDS, SPEECH, LOUD = 2, 4, 6, 8
N = 12


def planted(n_windows: int = 8, frames: int = 300, delay: int = 0) -> AlignedFrames:
    """Three stretches of speech a window: one feature fires where each starts, one where it ends, one all through.

    LOUD fires at random, and harder where speech starts.
    """
    rng = np.random.default_rng(0)
    parts, speech = [], []
    for _ in range(n_windows):
        z = (rng.random((frames, N)) < 0.1) * rng.uniform(1, 3, (frames, N))
        z[:, [STARTS, ENDS, SPEECH, LOUD]] = 0.0
        z[rng.permutation(frames)[:15], LOUD] = 1.0
        stretches = []
        for k in range(3):
            start, end = 20 + 95 * k + rng.integers(0, 20), 70 + 95 * k + rng.integers(0, 20)
            z[start + delay : start + delay + 5, STARTS] = 2.0
            z[end : end + 3, ENDS] = 2.0
            z[start:end, SPEECH] = 1.0
            z[start : start + 2, LOUD] = 5.0
            stretches.append((start * 0.02, end * 0.02))
        parts.append(sparse.csr_array(z.astype(np.float32)))
        speech.append(stretches)
    groups = [f"speaker {i // 2}" for i in range(n_windows)]
    return pack_frames(parts, [[None] * frames] * n_windows, groups=groups, speech=speech)


def test_planted_detectors_are_found() -> None:
    report = boundary_report(planted(), ids=range(50, 50 + N))
    start, end = report["start"], report["end"]
    assert (start["events"], start["events_where_chosen"]) == (12, 12)
    best = {row["feature"] - 50: row for row in start["best"]}
    assert {row["feature"] - 50 for row in start["best"][:3]} == {STARTS, SPEECH, LOUD}
    for feature in (STARTS, SPEECH, LOUD):
        assert best[feature]["f1"] == 1.0, feature
    assert best[STARTS]["lag_s"] == pytest.approx(0, abs=0.001)
    assert best[LOUD]["threshold"] >= 1, "its own threshold would call the noise"
    assert (end["best"][0]["feature"], end["best"][0]["f1"]) == (50 + ENDS, 1.0)
    assert end["best"][1]["f1"] < 0.5
    assert end["control_f1"] < 0.6
    assert report["speakers"] == 4


def test_what_is_late_shows_its_lag_or_is_missed() -> None:
    late = {row["feature"]: row for row in boundary_report(planted(delay=4))["start"]["best"]}
    assert late[STARTS]["lag_s"] == pytest.approx(0.08, abs=0.001)
    assert late[STARTS]["f1"] == 1.0
    strict = boundary_report(planted(delay=4), tolerance_s=0.05)["start"]["best"]
    assert STARTS not in {row["feature"] for row in strict}


def test_edges_are_counted_once() -> None:
    """Events at 10 and 60. Edges: 9 and 12 (one event, so one is false), 30 (false); 0 is where the window begins."""
    z = np.zeros((100, 2), np.float32)
    z[[0, 1, 9, 12, 13, 30], 0] = 1.0
    aligned = pack_frames([sparse.csr_array(z)], [[None] * 100], groups=["g"], speech=[[(0.2, 1.2)]])
    line = timeline(aligned, np.array([0]))
    f1, precision, recall, lag = edge_scores(line, np.zeros(2), np.array([10.0, 60.0]), 0.1)
    assert precision.tolist() == [pytest.approx(1 / 3), 0.0]
    assert recall.tolist() == [0.5, 0.0]
    assert f1[0] == pytest.approx(0.4)
    assert lag[0] == pytest.approx(-0.02)
    assert np.isnan(lag[1])


def test_what_the_clip_cuts_off_is_no_event() -> None:
    z = sparse.csr_array(np.ones((100, 2), np.float32))
    speech = [[(0.05, 0.5), (0.9, 1.98)], [(0.5, 1.0)]]
    aligned = pack_frames([z, z], [[None] * 100] * 2, groups=["a", "b"], speech=speech, centre_s=0.01)
    both = np.array([0, 1])
    np.testing.assert_allclose(event_frames(aligned, both, "start"), [44.5, 224.5])
    np.testing.assert_allclose(event_frames(aligned, both, "end"), [24.5, 249.5])
    np.testing.assert_allclose(event_frames(aligned, both, "start", shifted=True), [94.5, 274.5])


def test_too_few_events_and_bad_tolerances() -> None:
    silent = pack_frames(
        [sparse.csr_array(np.ones((50, 3), np.float32))] * 4, [[None] * 50] * 4, groups=list("abcd"), speech=[()] * 4
    )
    report = boundary_report(silent)
    assert (report["start"]["events"], report["start"]["best"]) == (0, None)
    for tolerance in (0.0, 2.0):
        with pytest.raises(SteerOptionError, match="tolerance"):
            boundary_report(silent, tolerance_s=tolerance)
