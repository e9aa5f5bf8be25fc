"""The same sound otherwise: another voice, another room, another line. For speech and non-speech alike.

    wave = disguise(wave, np.random.default_rng(0))
    wave = apart([wave], np.random.default_rng(0))         # a few short pieces with pauses between them

A collection of recordings knows few voices and fewer languages. What these changes have in common is that speech stays
speech and noise stays noise: a voice backwards or in another register still is one, in no language anybody speaks.
Both sorts go through the same changes, so that none of them gives away what it was done to.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.signal import fftconvolve, resample_poly

SAMPLE_RATE_HZ = 16_000
Rng = np.random.Generator
Wave = np.ndarray  # float32 [n_samples]


def disguise(wave: Wave, rng: Rng) -> Wave:
    """A random selection of all changes below, and another level: float32, peak at most 1."""
    if rng.random() < 0.6:
        wave = respeed(wave, float(np.exp(rng.uniform(np.log(0.75), np.log(1.35)))))
    if rng.random() < 0.35:
        wave = wave[::-1]
    if rng.random() < 0.3:
        wave = reverberate(wave, rng)
    if rng.random() < 0.3:
        wave = telephone(wave, rng)
    wave = wave / max(1e-9, float(np.abs(wave).max())) * 10 ** (rng.uniform(-30, 0) / 20)
    floor = rng.standard_normal(len(wave)) * 10 ** (rng.uniform(-90, -50) / 20)
    return np.clip(wave + floor, -1, 1).astype(np.float32)


def respeed(wave: Wave, factor: float) -> Wave:
    """Played `factor` times as fast: pitch, formants and tempo move together, as between a child and a large man."""
    return resample_poly(wave, 100, round(100 * factor)).astype(np.float32)


def reverberate(wave: Wave, rng: Rng) -> Wave:
    """In a room: convolved with noise that decays by 60 dB within 0.15 to 1.2 s, from near to far."""
    decay_s = np.exp(rng.uniform(np.log(0.15), np.log(1.2)))
    t = np.arange(int(decay_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    tail = rng.standard_normal(len(t)) * 10 ** (-3 * t / decay_s)
    response = tail / np.sqrt(np.sum(tail**2)) * 10 ** (rng.uniform(-15, 5) / 20)
    response[0] += 1.0  # the direct sound
    return fftconvolve(wave, response)[: len(wave)].astype(np.float32)


def telephone(wave: Wave, rng: Rng) -> Wave:
    """Through a telephone: 300 to 3400 Hz, 8-bit mu-law (ITU-T G.711)."""
    spectrum = np.fft.rfft(wave)
    frequency = np.fft.rfftfreq(len(wave), 1 / SAMPLE_RATE_HZ)
    spectrum[(frequency < rng.uniform(200, 350)) | (frequency > rng.uniform(3200, 3800))] = 0
    band = np.clip(np.fft.irfft(spectrum, len(wave)), -1, 1)
    companded = np.sign(band) * np.log1p(255 * np.abs(band)) / np.log(256)
    coarse = np.round(companded * 127) / 127
    return np.sign(coarse) * (np.expm1(np.abs(coarse) * np.log(256))) / 255


def apart(waves: Sequence[Wave], rng: Rng, max_pieces: int = 8) -> Wave:
    """One to `max_pieces` pieces of 0.2 to 0.9 s, cut where it is loud, with pauses of 0.1 to 1.5 s around them.

    Speech becomes a list of single words or syllables, which is what a careless edit takes for noise first.
    """
    parts = [_pause(rng)]
    for _ in range(int(rng.integers(1, max_pieces + 1))):
        wave = waves[int(rng.integers(len(waves)))]
        parts += [_loud_piece(wave, int(rng.uniform(0.2, 0.9) * SAMPLE_RATE_HZ), rng), _pause(rng)]
    return np.concatenate(parts)


def _pause(rng: Rng) -> Wave:
    return np.zeros(int(rng.uniform(0.1, 1.5) * SAMPLE_RATE_HZ), np.float32)


def _loud_piece(wave: Wave, n: int, rng: Rng) -> Wave:
    """`n` samples around a random moment within 12 dB of the loudest one, faded in and out over 10 ms."""
    step = SAMPLE_RATE_HZ // 50
    usable = wave[: len(wave) // step * step] if len(wave) >= step else np.pad(wave, (0, step - len(wave)))
    power = np.square(usable.reshape(-1, step), dtype=np.float64).mean(axis=1)
    moment = int(rng.choice(np.flatnonzero(power >= power.max() * 10**-1.2))) * step
    start = max(0, min(moment - n // 2, len(wave) - n))
    piece = wave[start : start + n].astype(np.float32)
    fade = np.minimum(1, np.arange(len(piece)) / (SAMPLE_RATE_HZ // 100)).astype(np.float32)
    return piece * fade * fade[::-1]
