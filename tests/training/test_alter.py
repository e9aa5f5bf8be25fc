"""Changes that leave speech speech: each does what it says, and repeats under a seed."""

from __future__ import annotations

import numpy as np
import pytest

from steer_asr_training.alter import apart, disguise, respeed, reverberate, telephone

RATE = 16_000


def tone(hz: float, seconds: float = 1.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def loudest_hz(wave: np.ndarray) -> float:
    return float(np.abs(np.fft.rfft(wave)).argmax() * RATE / len(wave))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("factor", [0.75, 1.0, 1.35])
def test_faster_is_higher_and_shorter(factor: float) -> None:
    wave = respeed(tone(400), factor)
    assert len(wave) == pytest.approx(RATE / factor, abs=2)
    assert loudest_hz(wave) == pytest.approx(400 * factor, rel=0.01)


def test_a_room_rings_on_and_starts_with_the_direct_sound() -> None:
    click = np.zeros(RATE, np.float32)
    click[1000] = 1.0
    wave = reverberate(click, rng())
    assert len(wave) == len(click)
    assert not np.abs(wave[:1000]).max() > 1e-6
    assert np.abs(wave[1000]) > 0.5
    early, late = np.square(wave[1001:3000]).sum(), np.square(wave[-3000:]).sum()
    assert early > 0
    assert late < early / 100


def test_the_telephone_keeps_its_band() -> None:
    assert np.abs(telephone(tone(100), rng())).max() < 0.05
    np.testing.assert_allclose(telephone(tone(1000), rng()), tone(1000), atol=0.05)


def test_pieces_come_from_where_it_is_loud_with_pauses_between_them() -> None:
    """Half a second of tone in ten of silence: every piece holds some of it."""
    wave = np.concatenate([np.zeros(5 * RATE, np.float32), tone(300, 0.5), np.zeros(5 * RATE, np.float32)])
    for seed in range(20):
        pieces = apart([wave], rng(seed), max_pieces=1)
        sounding = np.flatnonzero(np.abs(pieces) > 1e-3)
        assert len(sounding) > 0.05 * RATE
        assert len(pieces) < 4 * RATE
        assert not pieces[: RATE // 10].any()
        assert not pieces[-RATE // 10 :].any()
    assert len(apart([wave], rng(1), max_pieces=8)) < 8 * 2.5 * RATE


@pytest.mark.parametrize(
    "wave", [tone(300, 0.01), tone(300, 3.0), np.zeros(RATE, np.float32)], ids=["10 ms", "3 s", "0"]
)
def test_disguises_repeat_under_a_seed_and_stay_in_range(wave: np.ndarray) -> None:
    different = set()
    for seed in range(12):
        changed = disguise(apart([wave], rng(seed)), rng(seed))
        assert changed.dtype == np.float32
        assert np.isfinite(changed).all()
        assert np.abs(changed).max() <= 1.0
        np.testing.assert_array_equal(changed, disguise(apart([wave], rng(seed)), rng(seed)))
        different.add(changed.tobytes())
    assert len(different) == 12
