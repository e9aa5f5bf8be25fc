"""What a report says of a gate's probabilities, against numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from praatio import textgrid
from praatio.utilities.constants import Interval

from steer_asr.errors import ManifestError
from steer_asr.manifest import Clip, Span
from steer_asr_benchmarks.gate_metrics import frame_metrics, gate_metrics
from steer_asr_benchmarks.moments import FrameScores, frame_scores, speech_times
from steer_asr_benchmarks.scoring import ClipScore
from steer_asr_benchmarks.table import gates
from tests.benchmarks.builders import quiet_score, record, speech_score, window


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


def framed(name: str, said: list[float], quiet: list[bool]) -> ClipScore:
    score = quiet_score(name) if all(quiet) else speech_score(name, None)
    return replace(score, nobody_speaks=0.5, frames=FrameScores(np.array(said, np.float32), np.array(quiet)))


def test_frames_by_hand() -> None:
    """Quiet 0.9 0.8 and 0.45, spoken 0.1 and 0.6: of 3 x 2 pairs 0.45 loses one. Inside: 0.45 against 0.1 and 0.6."""
    found = frame_metrics([framed("q", [0.9, 0.8], [True, True]), framed("s", [0.1, 0.6, 0.45], [False, False, True])])
    assert found is not None
    assert (found["clips"], found["frames"], found["nonspeech_frames"]) == (2, 5, 3)
    assert found["auroc"] == pytest.approx(5 / 6)
    assert found["ece"] == pytest.approx((0.1 + 0.6 + 0.55 + 0.2 + 0.1) / 5)
    inside = found["inside"]
    assert (inside["clips"], inside["frames"], inside["nonspeech_frames"], inside["auroc"]) == (1, 3, 1, 0.5)


def test_frames_that_say_nothing_and_frames_of_one_sort() -> None:
    rng = np.random.default_rng(0)
    said, quiet = rng.random(20_000), rng.random(20_000) < 0.5
    null = frame_metrics([framed("s", said.tolist(), quiet.tolist())])
    assert null is not None
    assert null["auroc"] == pytest.approx(0.5, abs=0.02)
    assert null["ece"] == pytest.approx(0.25, abs=0.02), "the mean distance of a uniform probability from one half"
    only = frame_metrics([framed("q", [0.75], [True])])
    assert only is not None
    assert (only["auroc"], only["ece"], only["inside"]) == (None, 0.25, None)
    assert frame_metrics(scores([0.5], [0.5])) is None
    known = gate_metrics(scores([0.5], [0.5]))
    assert known is not None
    assert known["frames"] is None


def gated(start_s: float, frames: list[float]) -> dict[str, Any]:
    return window() | {"start_s": start_s, "frames": frames}


def test_frames_of_a_record_by_hand() -> None:
    aligned = record(kind="speech", spans=[[0.2, 0.4]], windows=[gated(0.0, [i / 100 for i in range(40)])])
    found = frame_scores(aligned)
    assert found is not None
    # 0.1 s, which is five frames, on either side of 0.2 and 0.4 s is not known; nor is it in a span so short.
    np.testing.assert_allclose(found.said, [*np.arange(0, 6) / 100, 0.15, *np.arange(25, 40) / 100], rtol=1e-6)
    np.testing.assert_array_equal(np.flatnonzero(~found.quiet), [6])
    overlapping = record(windows=[gated(0.0, [0.25] * 10), gated(0.1, [0.75] * 10)])
    found = frame_scores(overlapping)
    assert found is not None
    assert (found.said.tolist(), bool(found.quiet.all())) == ([0.25] * 5 + [0.75] * 10, True)
    assert frame_scores(record(kind="speech", windows=[gated(0.0, [0.5])])) is None, "nobody says when"
    assert frame_scores(record()) is None, "no gate"
    assert frame_scores(record(windows=None)) is None


def test_when_somebody_speaks(tmp_path: Path) -> None:
    clip = Clip(tmp_path / "a.wav", 3.0, "hello there", "speech", alignment_path=tmp_path / "a.TextGrid")
    with pytest.raises(ManifestError, match="cannot be read as a TextGrid"):
        speech_times(clip)
    write_textgrid(tmp_path / "a.TextGrid", words=[(0.5, 1.0, "hello"), (1.2, 1.6, "there"), (2.0, 2.5, "now")])
    assert speech_times(clip) == [[0.5, 1.6], [2.0, 2.5]], "0.2 s are no pause, 0.4 s are"
    assert speech_times(replace(clip, kind="nonspeech")) == []
    assert speech_times(replace(clip, alignment_path=None)) is None
    assert speech_times(replace(clip, alignment_path=tmp_path / "a.ctm")) is None, "phones of no known words"
    assert speech_times(replace(clip, spans=(Span(1.0, 2.0, "x"),))) == [[1.0, 2.0]]
    write_textgrid(tmp_path / "a.TextGrid", words=[], name="notes")
    with pytest.raises(ManifestError, match="no word in it"):
        speech_times(clip)


def write_textgrid(path: Path, words: list[tuple[float, float, str]], name: str = "words") -> None:
    grid = textgrid.Textgrid()
    entries = [Interval(*word) for word in words or [(0.0, 0.1, "x")]]
    grid.addTier(textgrid.IntervalTier(name, entries, 0.0, 3.0))
    grid.save(str(path), format="long_textgrid", includeBlankSpaces=True)


def test_the_table_has_the_systems_that_tell() -> None:
    known = gate_metrics([*scores([0.9], [0.2])])
    text = gates({"systems": {"stock": {"gate": None}, "steered": {"gate": known}}})
    [row] = [line for line in text.splitlines() if "steered" in line]
    assert [cell.strip() for cell in row.split("|")[1:-1]] == [
        *("steered", "2", "1.0000", "0.150"),
        "0.20: 0.00 (1), 0.90: 1.00 (1)",
    ]
    assert "stock" not in text
    assert gates({"systems": {"stock": {"gate": None}}}) == ""
    assert "frame" not in text
    known = gate_metrics([framed("q", [0.9, 0.8], [True, True]), framed("s", [0.25, 0.95], [False, True])])
    rows = [line for line in gates({"systems": {"steered": {"gate": known}}}).splitlines() if "(3)" in line]
    assert [cell.strip() for cell in rows[0].split("|")[1:-1]][:6] == [
        "steered",
        "all",
        "2",
        "4 (3)",
        "1.0000",
        "0.150",
    ]
