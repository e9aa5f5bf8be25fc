"""Filter, sampling rate and units that EEG and stimulus features share.

    y = standardised(resampled(band_passed(eeg, 512.0), 512.0))

Both sides go through the same zero-phase filter, so that it moves neither against the other.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from scipy import signal

from steer_asr.errors import SteerASRError

RATE_HZ = 128
BAND_HZ = (1.0, 8.0)
FILTER_ORDER = 3
"""Of the Butterworth filter, which runs forwards and backwards."""
MAX_FACTOR = 2048
MAX_DRIFT_S = 0.5 / RATE_HZ


class EegError(SteerASRError):
    """A recording cannot be used: missing, unreadable, of unknown rate, too short, or not of this audio."""


def band_passed(x: np.ndarray, rate_hz: float, band_hz: tuple[float, float] = BAND_HZ) -> np.ndarray:
    """`x`, [sample, ...], between the two frequencies: Butterworth of order 3, forwards and backwards, float64.

    Raises `EegError` for a rate that is too low for the band and for fewer samples than the filter needs.
    """
    low, high = band_hz
    if not 0 < low < high < rate_hz / 2:
        raise EegError(f"a band of {low:g} to {high:g} Hz needs a sampling rate above {2 * high:g} Hz, not {rate_hz:g}")
    sections = signal.butter(FILTER_ORDER, band_hz, "bandpass", fs=rate_hz, output="sos")
    padding = min(len(x) - 1, round(2 * rate_hz / low))
    if padding < rate_hz / low:
        raise EegError(f"{len(x) / rate_hz:.2f} s are too short for a filter at {low:g} Hz")
    return signal.sosfiltfilt(sections, np.asarray(x, np.float64), axis=0, padlen=padding)


def resampled(x: np.ndarray, rate_hz: float, to_hz: float = RATE_HZ) -> np.ndarray:
    """`x`, [sample, ...], at another rate, with a linear-phase filter against aliases; sample 0 stays at time 0.

    Raises `EegError` for a rate that is no ratio of small numbers to `to_hz`: the clocks would drift apart.
    """
    ratio = Fraction(to_hz / rate_hz).limit_denominator(MAX_FACTOR)
    if ratio == 0 or abs(float(ratio) * rate_hz / to_hz - 1) * len(x) / rate_hz > MAX_DRIFT_S:
        raise EegError(f"{rate_hz:g} Hz cannot be brought to {to_hz:g} Hz; resample the recording first")
    if ratio == 1:
        return np.asarray(x, np.float64)
    return signal.resample_poly(np.asarray(x, np.float64), ratio.numerator, ratio.denominator, axis=0)


def standardised(x: np.ndarray) -> np.ndarray:
    """Mean 0 and standard deviation 1 along the first axis; what does not vary becomes 0."""
    x = x - x.mean(axis=0)
    scale = x.std(axis=0)
    return x / np.where(scale > 1e-12 * max(1.0, float(np.max(scale, initial=0.0))), scale, np.inf)
