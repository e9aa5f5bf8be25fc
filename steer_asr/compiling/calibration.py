"""How large a model's own numbers are at the end of its encoder and decoder: measured at compile time.

No recordings are needed for that: silence, coloured noise, tones, bursts, and a crude voice (pulse trains through
moving resonances). What is taken from them is coarse: the typical size of a residual, and where it hardly varies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

RATE_HZ = 16_000
SECONDS = (2.0, 8.0, 20.0, 30.0)


@dataclass(frozen=True)
class DecoderResidual:
    """The decoder's residual h before its final LayerNorm, at the positions of a few prompts."""

    sigma: float
    """Median standard deviation of a position over its channels."""
    quiet: np.ndarray
    """float64 [d_model]: a unit direction of mean 0 out of two channels, along which LayerNorm(h) varies least."""
    mean: float
    """Mean of LayerNorm(h) along it."""


def encoder_sigma(encode: Any, n_windows: int = 8) -> float:
    """Median standard deviation of a frame of the encoder's residual; `encode` takes 16-kHz samples to [frame, d]."""
    return float(np.median(np.concatenate([encode(sound(i)).std(axis=1) for i in range(n_windows)])))


def decoder_residual(rows: np.ndarray) -> DecoderResidual:
    """`rows` is float [position, d_model]."""
    rows = rows.astype(np.float64)
    spread = rows.std(axis=1, keepdims=True)
    normal = (rows - rows.mean(axis=1, keepdims=True)) / spread
    one, other = np.argsort(normal.std(axis=0))[:2]
    quiet = np.zeros(rows.shape[1])
    quiet[one], quiet[other] = 0.5**0.5, -(0.5**0.5)
    return DecoderResidual(float(np.median(spread)), quiet, float((normal @ quiet).mean()))


def sound(seed: int) -> np.ndarray:
    """One synthetic recording, float32; its sort and length follow from `seed`."""
    rng = np.random.default_rng(seed)
    n = int(SECONDS[seed % len(SECONDS)] * RATE_HZ)
    time = np.arange(n) / RATE_HZ
    sort = seed % 6
    if sort == 0:
        samples = np.zeros(n)
    elif sort == 1:
        samples = _noise(rng, n, rng.uniform(0, 2))
    elif sort == 2:
        samples = np.sum([np.sin(2 * np.pi * hz * time) for hz in rng.uniform(50, 4000, 4)], axis=0) / 4
    elif sort == 3:
        samples = _noise(rng, n, 1.0) * (np.sin(2 * np.pi * rng.uniform(0.5, 6) * time) > 0.3)
    else:
        samples = _voice(rng, n)
    return (samples * 10 ** rng.uniform(-2, -0.3)).astype(np.float32)


def _noise(rng: np.random.Generator, n: int, slope: float) -> np.ndarray:
    """Noise whose power falls with frequency to the power `slope`, at most 1 in size."""
    spectrum = np.fft.rfft(rng.normal(size=n))
    spectrum[1:] /= np.arange(1, len(spectrum)) ** (slope / 2)
    samples = np.fft.irfft(spectrum, n)
    return samples / np.abs(samples).max()


def _voice(rng: np.random.Generator, n: int) -> np.ndarray:
    """Pulses at the pitch of a voice through three resonances that jump every 60 to 200 ms, with pauses and hisses."""
    time = np.arange(n) / RATE_HZ
    pitch = rng.uniform(80, 260) * (1 + 0.15 * np.sin(2 * np.pi * 0.7 * time))
    pulses = np.diff(np.floor(np.cumsum(pitch) / RATE_HZ), prepend=0)
    samples, start = np.zeros(n), 0
    while start < n:
        piece = pulses[start : start + int(rng.uniform(0.06, 0.2) * RATE_HZ)]
        kind = rng.random()
        source = rng.normal(0, 0.1, len(piece)) if kind < 0.25 else piece * (kind < 0.85)
        hz = np.fft.rfftfreq(2 * len(piece), 1 / RATE_HZ)
        formants = ((1.0, rng.uniform(250, 800), 60), (0.6, rng.uniform(800, 2400), 90), (0.3, 2700.0, 120))
        shape = np.sum([a / (1 + ((hz - centre) / width) ** 2) for a, centre, width in formants], axis=0)
        samples[start : start + len(piece)] = np.fft.irfft(np.fft.rfft(source, 2 * len(piece)) * shape)[: len(piece)]
        start += len(piece)
    return samples / np.abs(samples).max() + 1e-3 * rng.normal(size=n)
