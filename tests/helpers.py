"""Sounds whose samples are known: float32, mono, 16 kHz, in [-1, 1]."""

from __future__ import annotations

import numpy as np

RATE_HZ = 16_000


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE_HZ), np.float32)


def tone(seconds: float, hz: float = 440.0, level: float = 0.1) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hz / RATE_HZ * np.arange(round(seconds * RATE_HZ)))).astype(np.float32)


def noise(seconds: float, level: float = 0.05, seed: int = 0) -> np.ndarray:
    """White noise of standard deviation `level`."""
    return np.random.default_rng(seed).normal(0, level, round(seconds * RATE_HZ)).clip(-1, 1).astype(np.float32)


PEAK_MEMORY = (
    "def peak_kb():\n"
    "    with open('/proc/self/status') as file:\n"
    "        return next(int(line.split()[1]) for line in file if line.startswith('VmHWM'))\n"
)
"""Source of `peak_kb()` for a child process. Not ru_maxrss: that starts at the mark of whoever forked the child."""
