"""What is kept of recordings, and the pictures that are drawn of them."""

from __future__ import annotations

import numpy as np
import pytest

from steer_asr.transcription import SteerReport, WindowReport
from steer_asr_serving.ui.memory import Bounds, Heard, Shelf
from steer_asr_serving.ui.picture import MAX_COLUMNS, draw_features, draw_mel, edit_weights
from tests.steer_asr.packs import build_pack


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def shelf(clock: Clock | None = None, **bounds: float) -> Shelf[bytearray]:
    return Shelf(Bounds(**{"items": 10, "bytes": 100} | bounds), len, clock or Clock())  # pyright: ignore[reportArgumentType]


def test_the_least_recently_used_goes_first() -> None:
    kept = shelf(items=2)
    kept.put("a", bytearray(1))
    kept.put("b", bytearray(1))
    assert kept.get("a") is not None
    kept.put("c", bytearray(1))
    assert [kept.get(name) is not None for name in "abc"] == [True, False, True]


def test_bytes_are_bounded_also_when_items_grow() -> None:
    kept, first = shelf(), bytearray(40)
    kept.put("a", first)
    kept.put("b", bytearray(40))
    assert kept.bytes == 80
    first.extend(bytes(40))
    assert kept.get("b") is not None
    assert kept.get("a") is None
    kept.put("c", bytearray(101))
    assert kept.bytes == 0, "what is larger than everything may be is not kept at all"


def test_age_counts_from_the_last_use() -> None:
    clock = Clock()
    kept = shelf(clock, age_s=10)
    kept.put("a", bytearray(1))
    clock.now_s += 9
    assert kept.get("a") is not None
    clock.now_s += 9
    assert kept.get("a") is not None
    clock.now_s += 11
    assert kept.get("a") is None
    assert kept.bytes == 0


def test_a_recording_s_windows_are_bounded() -> None:
    heard = Heard(max_bytes=1000)
    heard.mel = np.zeros((2, 5), np.float32)
    for name in range(4):
        heard.windows.put(name, np.zeros((1, 10, 10), np.float32))
    assert heard.bytes == 2 * 400 + 40


def window(start_s: float, weights: list[float]) -> WindowReport:
    end_s = start_s + 0.02 * len(weights)
    return WindowReport(start_s, end_s, 0.5, float(np.mean(weights)), np.array(weights, np.float32), ())


def test_the_edit_along_the_recording_is_the_later_window_s() -> None:
    report = SteerReport("test", 1.0, "ct2", [window(0.0, [1, 1, 1, 1]), window(0.04, [0, 0.5, 0.5])])
    assert edit_weights(report, 0.12).tolist() == [255, 255, 0, 128, 128, 0]
    assert edit_weights(report, 0.06).tolist() == [255, 255, 0], "a window may reach beyond the end"


def test_features_are_ranked_by_what_a_full_edit_moves_then_by_what_fires() -> None:
    """The pack switches feature 7 off and leaves 8 and 9 alone; coordinate i is feature 7 + i."""
    plain = np.zeros((1, 6, 4), np.float32)
    plain[0, 0, 0] = 1.0
    plain[0, 1:3, 1] = 4.0
    plain[0, 3:4, 1] = 2.0
    picture = draw_features([plain], [window(0.0, [0.0] * 4)], build_pack(), 0.08)
    assert [(track.feature, track.peak) for track in picture.features] == [(7, 1.0), (8, 4.0)]
    assert picture.features[0].levels.tolist() == [255, 0, 0, 0]
    assert picture.features[1].levels.tolist() == [0, 255, 255, 128]


def test_a_long_spectrogram_is_drawn_in_fewer_columns() -> None:
    mel = np.zeros((3, 5000), np.float32)
    mel[1] = np.linspace(0, 1, 5000)
    picture = draw_mel(mel, 45.0)
    assert picture.mel is not None
    assert picture.mel.shape[0] == 3
    assert picture.mel.shape[1] <= MAX_COLUMNS
    assert picture.mel.shape[1] * picture.column_s == pytest.approx(45.0)
    assert picture.mel.dtype == np.uint8
    assert (picture.mel[1, 0], picture.mel[1, -1]) == (0, 255)
    assert np.all(np.diff(picture.mel[1].astype(int)) >= 0)


def test_silence_has_a_spectrogram_too() -> None:
    picture = draw_mel(np.zeros((3, 10), np.float32), 0.1)
    assert picture.mel is not None
    assert set(picture.mel.ravel().tolist()) == {0}
