"""What of a growing sound is settled; no model."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from faster_whisper.transcribe import Segment

from steer_asr_serving.live import KEPT_S, WINDOW_S, Hearing

RATE = 16_000


def segment(start: float, end: float, text: str = " word") -> Segment:
    values: dict[str, Any] = {field.name: None for field in fields(Segment)}
    return Segment(**values | {"start": start, "end": end, "text": text})


def heard(seconds: float) -> tuple[Hearing, float]:
    hearing = Hearing()
    hearing.add(np.ones(int(seconds * RATE), "<i2").tobytes())
    return hearing, len(hearing.audio()) / RATE


def times(segments: list[Segment]) -> list[tuple[float, float]]:
    return [(s.start, s.end) for s in segments]


def test_a_segment_settles_once_enough_sound_follows_it() -> None:
    hearing, seconds = heard(5.0)
    settled, pending = hearing.settle([segment(0, 2), segment(2, 4.5)], seconds)
    assert (times(settled), times(pending)) == ([(0, 2)], [(2, 4.5)])
    assert hearing.waiting_s == 3.0, "sound before the end of what is settled is done with"
    settled, pending = hearing.settle([segment(0, 1)], 3.0)
    assert times(settled) == [(2.0, 3.0)], "times count from the stream's beginning"


def test_nothing_behind_an_open_segment_settles() -> None:
    hearing, seconds = heard(6.0)
    settled, pending = hearing.settle([segment(0, 5.5), segment(1, 2)], seconds)
    assert (settled, len(pending), hearing.waiting_s) == ([], 2, 6.0)


@pytest.mark.parametrize("segments", [[], [segment(0, 1, " ")]], ids=["none", "blank"])
def test_silence_is_forgotten_but_for_its_end(segments: list[Segment]) -> None:
    hearing = Hearing()
    for _ in range(100):
        hearing.add(b"\0\0" * RATE)
        seconds = len(hearing.audio()) / RATE
        assert hearing.settle(segments, seconds) == ([], [])
        assert hearing.waiting_s <= KEPT_S
    assert hearing.start_s == 100 - KEPT_S


def test_all_settles_at_the_end_and_in_a_full_window() -> None:
    hearing, seconds = heard(3.0)
    settled, pending = hearing.settle([segment(0, 2.9)], seconds, last=True)
    assert (times(settled), pending, hearing.waiting_s) == ([(0, 2.9)], [], 0.0)
    hearing, seconds = heard(WINDOW_S + 3)
    assert seconds == WINDOW_S
    assert hearing.new_s == pytest.approx(3.0), "what does not fit waits for the next turn"
    settled, _ = hearing.settle([segment(0, WINDOW_S)], seconds)
    assert times(settled) == [(0, WINDOW_S)]
    assert hearing.waiting_s == pytest.approx(3.0)


def test_a_full_window_always_moves_on() -> None:
    """Also when its only segment has no length."""
    hearing, seconds = heard(WINDOW_S)
    hearing.settle([segment(0, 0)], seconds)
    assert hearing.waiting_s <= KEPT_S


def test_samples_may_be_cut_anywhere() -> None:
    pcm = np.arange(-500, 500, dtype="<i2").tobytes()
    whole, parts = Hearing(), Hearing()
    whole.add(pcm)
    for start in range(0, len(pcm), 7):
        parts.add(pcm[start : start + 7])
    assert np.array_equal(whole.audio(), parts.audio())
    assert whole.audio()[0] == -500 / 32768
