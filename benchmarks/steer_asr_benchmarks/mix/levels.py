"""Powers and levels. **SNR** is the active power of the speech over the power of the noise under it.

Active power is the mean over those 20-ms frames that are within 30 dB of the loudest one: pauses, and silence before
and after, do not count, so that a slow speaker does not get less noise than a fast one. The noise counts where it
overlaps the speech, pauses and all. Levels in dBFS: 0 is a power of 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from steer_asr.audio import SAMPLE_RATE_HZ

FRAME = SAMPLE_RATE_HZ // 50
ACTIVE_RANGE_DB = 30.0
PEAK = 10 ** (-0.1 / 20)
"""Largest sample of a mix."""
FADE_S = 0.02


@dataclass(frozen=True)
class Mixed:
    """Speech and noise as they stand in a mix: `wave` is their sum. float32 [n_samples] each."""

    speech: np.ndarray
    noise: np.ndarray
    speech_dbfs: float
    """Active level of the speech in the mix."""

    @property
    def wave(self) -> np.ndarray:
        return self.speech + self.noise


def frame_powers(wave: np.ndarray) -> np.ndarray:
    """Mean square of each 20-ms frame: float64 [n_frames], at least one; a last part of a frame does not count."""
    n = max(1, len(wave) // FRAME)
    frames = wave[: n * FRAME].reshape(n, -1)
    return np.square(frames, dtype=np.float64).mean(axis=1) if frames.size else np.zeros(1)


def active_power(wave: np.ndarray) -> float:
    """Mean square over the frames within 30 dB of the loudest one; 0 for silence."""
    powers = frame_powers(wave)
    return float(powers[powers >= powers.max() * 10 ** (-ACTIVE_RANGE_DB / 10)].mean())


def power(wave: np.ndarray) -> float:
    """Mean square; 0 for nothing."""
    return float(np.square(wave, dtype=np.float64).mean()) if len(wave) else 0.0


def dbfs(power: float) -> float:
    """A power as a level; -inf for silence."""
    return 10 * float(np.log10(power)) if power > 0 else float("-inf")


def lay_over(speech: np.ndarray, noise: np.ndarray, snr_db: float, *, speech_power: float, noise_power: float) -> Mixed:
    """`speech` as it is, `noise` scaled to the SNR; both made quieter together if their sum would clip.

    Both float [n_samples]; the powers are those that the SNR is about, and not 0.
    """
    scaled = noise * np.sqrt(speech_power / noise_power) * 10 ** (-snr_db / 20)
    gain = min(1.0, PEAK / max(1e-9, float(np.abs(speech + scaled).max())))
    return Mixed((gain * speech).astype(np.float32), (gain * scaled).astype(np.float32), dbfs(speech_power * gain**2))


def excerpt(wave: np.ndarray, start: int, n: int) -> np.ndarray:
    """`n` samples from `start`, repeated when the recording is over, each time faded into itself over 20 ms."""
    if start + n <= len(wave):
        return wave[start : start + n]
    fade = min(int(FADE_S * SAMPLE_RATE_HZ), len(wave) // 4)
    period = crossfaded([wave, wave], fade)[len(wave) - fade : 2 * (len(wave) - fade)]
    return np.resize(np.roll(period, -(start % len(period))), n)


def crossfaded(waves: list[np.ndarray], fade: int) -> np.ndarray:
    """One behind the other, each faded into the next over `fade` samples at constant power (less for short ones)."""
    fades = [min(fade, len(a) // 4, len(b) // 4) for a, b in zip(waves, waves[1:], strict=False)]
    joined = np.zeros(sum(map(len, waves)) - sum(fades), np.float32)
    at = 0
    for i, wave in enumerate(waves):
        before, after = ([0, *fades][i], [*fades, 0][i])
        shaped = wave.astype(np.float32)
        shaped[:before] *= ramp(before)
        shaped[len(wave) - after :] *= ramp(after)[::-1]
        joined[at : at + len(wave)] += shaped
        at += len(wave) - after
    return joined


def ramp(n: int) -> np.ndarray:
    """From 0 to 1 in `n` samples; its square and that of its mirror image add up to 1."""
    return np.sin(np.pi / 2 * (np.arange(n) + 0.5) / max(1, n)).astype(np.float32)
