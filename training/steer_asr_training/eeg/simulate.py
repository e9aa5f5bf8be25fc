"""EEG with known coupling to known features: does the analysis find it, and what would a study of some size find?

    made = simulate(SimulationConfig(n_planted=3), seed=0)
    tested = score_features(TrfConfig(), NullConfig(), made.listeners, made.source)
    found = holm(tested.p) < 0.05                        # made.planted says which ones should be

Features are bursts, as SAE features of speech are. The EEG is noise with the spectrum of EEG, plus the response to each
planted feature: the feature's envelope through a bump at the latency. `coupling` is the correlation between that
response and the EEG, both at 1 to 8 Hz; 0.03 to 0.1 is usual at a good channel. `shared` is the part of the variance
that all listeners have in common, a response to something that is not among the features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import signal

from steer_asr._progress import Progress
from steer_asr.errors import SteerOptionError
from steer_asr_training.eeg.nulls import NullConfig, Signals, holm, score_features
from steer_asr_training.eeg.signals import RATE_HZ, band_passed, standardised
from steer_asr_training.eeg.trf import Listener, TrfConfig

BURSTS_PER_S = 2.0
BURST_S = (0.06, 0.24)
BUMP_S = 0.03
"""Standard deviation of the response function's bump."""


@dataclass(frozen=True)
class SimulationConfig:
    """A study. Raises `SteerOptionError` for one that cannot be."""

    n_listeners: int = 19
    n_trials: int = 5
    trial_s: float = 180.0
    n_features: int = 100
    n_planted: int = 5
    coupling: float = 0.05
    latency_s: float = 0.15
    shared: float = 0.0
    n_channels: int = 1

    def __post_init__(self) -> None:
        counts = (self.n_listeners, self.n_trials, self.n_features, self.n_channels)
        if min(counts) < 1 or not 0 <= self.n_planted <= self.n_features or not 2 <= self.trial_s <= 7200:
            raise SteerOptionError(
                "a simulated study needs at least one listener, trial, feature and channel, trials of 2 s to 2 hours, "
                "and no more planted features than there are"
            )
        if not 0 <= self.coupling <= 1 or self.shared < 0 or self.n_planted * self.coupling**2 + self.shared > 1:
            raise SteerOptionError(
                f"{self.n_planted} responses of correlation {self.coupling:g} and a shared part of {self.shared:g} "
                "explain more than all of the EEG"
            )


@dataclass(frozen=True, eq=False)
class Simulated:
    """What was made, and what was put into it."""

    source: Signals
    listeners: list[Listener]
    planted: np.ndarray
    """bool [feature]"""


def simulate(config: SimulationConfig, seed: int) -> Simulated:
    """The first `n_planted` features drive the EEG of every listener."""
    rng = np.random.default_rng(seed)
    n = round(config.trial_s * RATE_HZ)
    stimuli = [_bursts(rng, n, config.n_features) for _ in range(config.n_trials)]
    responses = [
        sum((config.coupling * _response(x[:, f], config.latency_s) for f in range(config.n_planted)), np.zeros(n))
        for x in stimuli
    ]
    common = [np.sqrt(config.shared) * eeg_noise(rng, n, config.n_channels) for _ in stimuli]
    own = np.sqrt(1 - config.shared - config.n_planted * config.coupling**2)
    listeners = [
        Listener(
            str(i + 1),
            [
                heard[:, None] + also + own * eeg_noise(rng, n, config.n_channels)
                for heard, also in zip(responses, common, strict=True)
            ],
        )
        for i in range(config.n_listeners)
    ]
    return Simulated(Signals(stimuli), listeners, np.arange(config.n_features) < config.n_planted)


def _bursts(rng: np.random.Generator, n: int, n_features: int) -> np.ndarray:
    """Envelopes of features that come in bursts of random strength: float [sample, feature], 1 to 8 Hz, variance 1."""
    raw = np.zeros((n, n_features))
    for f in range(n_features):
        starts = rng.integers(0, n, max(2, rng.poisson(BURSTS_PER_S * n / RATE_HZ)))
        lengths = (rng.uniform(*BURST_S, len(starts)) * RATE_HZ).astype(int)
        for start, length, level in zip(starts, lengths, rng.gamma(2.0, 1.0, len(starts)), strict=True):
            raw[start : start + length, f] += level
    return standardised(band_passed(raw, RATE_HZ))


def _response(x: np.ndarray, latency_s: float) -> np.ndarray:
    lags = np.arange(round((latency_s + 5 * BUMP_S) * RATE_HZ)) / RATE_HZ
    bump = np.exp(-0.5 * ((lags - latency_s) / BUMP_S) ** 2)
    return standardised(np.asarray(signal.lfilter(bump, [1.0], x)))


def eeg_noise(rng: np.random.Generator, n: int, n_channels: int) -> np.ndarray:
    """float [sample, channel]: 1/f noise with an alpha peak, band-passed 1 to 8 Hz, variance 1."""
    hz = np.fft.rfftfreq(2 * n, 1 / RATE_HZ)
    amplitude = 1 / np.sqrt(np.maximum(hz, 0.5)) + 1.5 * np.exp(-0.5 * ((hz - 10) / 1.0) ** 2)
    spectrum = amplitude[:, None] * (
        rng.standard_normal((len(hz), n_channels)) + 1j * rng.standard_normal((len(hz), n_channels))
    )
    return standardised(band_passed(np.fft.irfft(spectrum, 2 * n, axis=0), RATE_HZ)[:n])


def power(
    config: SimulationConfig, trf: TrfConfig, null: NullConfig, *, n_repeats: int, seed: int = 0
) -> dict[str, Any]:
    """What a study like `config` finds, over `n_repeats` simulated ones, as JSON values.

    Raises what `score_features` raises, and `SteerOptionError` without a repeat.
    """
    if n_repeats < 1:
        raise SteerOptionError(f"repeats {n_repeats}: at least one study has to be simulated")
    found, wrong, scores, chance = [], [], [], []
    with Progress(total=n_repeats, unit="study", label="power") as progress:
        for i in range(n_repeats):
            made = simulate(config, seed + i)
            tested = score_features(trf, null, made.listeners, made.source, label="simulated study")
            significant = holm(tested.p) < null.alpha
            found.append(significant[made.planted].mean() if made.planted.any() else np.nan)
            wrong.append(bool(significant[~made.planted].any()))
            scores += tested.r[made.planted].tolist()
            chance += tested.null_p95.tolist()
            progress.advance()
    return {
        "studies": n_repeats,
        "planted_found": float(np.mean(found)) if config.n_planted else None,
        "studies_with_a_false_positive": int(np.sum(wrong)),
        "alpha": null.alpha,
        "mean_r_of_planted": float(np.mean(scores)) if scores else None,
        "r_of_chance_p95": float(np.mean(chance)),
    }
