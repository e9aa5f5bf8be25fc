"""Temporal response functions of one stimulus feature, fitted and scored from correlations alone.

    listener = Listener("1", eeg)                        # per trial: float [sample, channel]
    fitted = Fits(config, listener, feature)             # per trial: float [sample]
    fitted.scores()                                      # r, [1, channel]: held-out trials, lambda from the others
    fitted.scores(shifts)                                # the same with the EEG turned against the stimulus

The model is mTRFpy's (Bialas et al., JOSS 2023; Crosse et al., Front. Hum. Neurosci. 2016): ridge regression of the
EEG on the feature at lags 0 to 500 ms, zero-padded, with mTRFpy's unit of lambda. A null needs it tens of thousands of
times per feature, so nothing here touches samples twice: all that ridge, prediction and Pearson's r need are the
feature's autocorrelation and its cross-correlation with the EEG, and turning the EEG in a circle by any number of
samples only reads that cross-correlation elsewhere (one FFT gives all of them). tests/training/test_eeg_trf.py holds
it against mTRFpy's own `nested_crossval`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from mtrf.model import TRF
from threadpoolctl import threadpool_limits

from steer_asr.errors import SteerOptionError
from steer_asr_training.eeg.signals import RATE_HZ, EegError, standardised

LAMBDAS = tuple(10.0**power for power in range(-1, 6))
RAMP = RATE_HZ // 2
"""Samples over which a feature is faded in and out."""
SMALLEST_EIGENVALUE = 1e-7
"""Of the largest: directions of lag space below hold nothing of a band-passed feature, and are left out."""


@dataclass(frozen=True)
class TrfConfig:
    """Lags and ridge of the response functions. Raises `SteerOptionError` for values that make no model."""

    lags_s: tuple[float, float] = (0.0, 0.5)
    """First and last time by which the EEG may follow the feature."""
    lambdas: tuple[float, ...] = LAMBDAS
    """Ridge parameters to choose from, in mTRFpy's unit."""

    def __post_init__(self) -> None:
        first, last = self.lags_s
        if not 0 <= first < last <= 2:
            raise SteerOptionError(f"lags from {first:g} to {last:g} s: they must rise and lie in 0 to 2 s")
        if not self.lambdas or min(self.lambdas) <= 0:
            raise SteerOptionError(f"lambdas {self.lambdas}: give at least one, all above 0")

    @property
    def lags(self) -> np.ndarray:
        """In samples: int [lag]."""
        first, last = self.lags_s
        return np.arange(int(np.floor(first * RATE_HZ)), int(np.ceil(last * RATE_HZ)) + 1)

    @property
    def min_trials(self) -> int:
        """One trial to test on, and, where lambda has to be chosen, one more to choose on."""
        return 2 if len(self.lambdas) == 1 else 3


def one_blas_thread() -> threadpool_limits:
    """A context in which BLAS runs on one thread: on matrices of 20 by 20 more of them only wait for each other."""
    return threadpool_limits(limits=1, user_api="blas")


class Listener:
    """The EEG of one person, trial by trial, and its spectra: what does not depend on the feature."""

    def __init__(self, name: str, eeg: Sequence[np.ndarray], stimuli: Sequence[int] | None = None) -> None:
        """`eeg` is float [sample, channel] per trial at 128 Hz; `stimuli` says which stimulus each trial heard."""
        self.name = name
        self.stimuli = list(range(len(eeg))) if stimuli is None else list(stimuli)
        self.eeg = [standardised(np.asarray(trial, np.float64)) for trial in eeg]
        self.spectra = [np.fft.rfft(trial, axis=0) for trial in self.eeg]

    @property
    def n_samples(self) -> list[int]:
        return [len(trial) for trial in self.eeg]


def check_trials(config: TrfConfig, listener: Listener) -> None:
    """Raises `EegError` for too few trials, and for trials that are hardly longer than the lags."""
    n, wanted = len(listener.eeg), config.min_trials
    if n < wanted:
        raise EegError(
            f"subject {listener.name!r} has {n} trial{'s' * (n != 1)}, leaving one out takes at least {wanted}"
            + (" (2 with a single lambda)" if wanted == 3 else "")
            + "; cut long recordings into pieces with --split"
        )
    if min(listener.n_samples) < 4 * len(config.lags):
        raise EegError(
            f"subject {listener.name!r}: a trial of {min(listener.n_samples) / RATE_HZ:.2f} s is too short for lags up "
            f"to {config.lags_s[1]:g} s"
        )


def lag_ready(x: np.ndarray, last_lag: int) -> np.ndarray:
    """A feature with mean 0 and variance 1 that rises from 0 and is 0 for its last `last_lag` samples.

    No lag can carry it past the end then: the zero-padded lags of a regression and the lags of a circle are the same,
    and every column has mean 0. Without steps at its ends it stays inside its band, so few directions of lag space
    hold it.
    """
    n = len(x) - last_lag
    ramp = np.sin(0.5 * np.pi * (np.arange(min(RAMP, n // 4)) + 0.5) / min(RAMP, n // 4)) ** 2
    window = np.ones(n)
    window[: len(ramp)], window[n - len(ramp) :] = ramp, ramp[::-1]
    inside = window * (x[:n] - np.average(x[:n], weights=window))
    ready = np.zeros(len(x))
    ready[:n] = inside / max(float(np.sqrt(np.square(inside).mean())), 1e-12)
    return ready


class Fits:
    """One feature against one listener."""

    def __init__(self, config: TrfConfig, listener: Listener, feature: Sequence[np.ndarray]) -> None:
        """`feature` is float [sample] per trial, as long as the trial's EEG."""
        self.config, self.lags = config, config.lags
        self.sizes = listener.n_samples
        last = int(self.lags[-1])
        auto, self.cross = [], []
        for x, n, spectrum in zip(feature, self.sizes, listener.spectra, strict=True):
            own = np.fft.rfft(lag_ready(x, last))
            auto.append(np.fft.irfft(np.abs(own) ** 2, n)[: len(self.lags)])
            self.cross.append(np.fft.irfft(own.conj()[:, None] * spectrum, n, axis=0))
        apart = np.abs(self.lags[:, None] - self.lags)
        covariances = np.stack(auto)[:, apart]  # [trial, lag, lag]
        self.basis = _basis(covariances.mean(axis=0))
        self.covariances = self.basis.T @ covariances @ self.basis
        self._prepare()

    def _prepare(self) -> None:
        """Inverses for every set of training trials: all but one, and all but two to choose lambda on."""
        n = len(self.sizes)
        self.pairs = list(combinations(range(n), 2)) if len(self.config.lambdas) > 1 else []
        total = self.covariances.sum(axis=0)
        self.all_but_one = self._inverses([(total - self.covariances[h]) / (n - 1) for h in range(n)])
        if self.pairs:
            training = [(total - self.covariances[g] - self.covariances[h]) / (n - 2) for g, h in self.pairs]
            self.all_but_two = self._inverses(training)

    def _inverses(self, covariances: list[np.ndarray]) -> np.ndarray:
        """[set, lambda, d, d]."""
        ridge = np.array(self.config.lambdas)[:, None, None] * RATE_HZ * np.eye(self.basis.shape[1])
        return np.linalg.inv(np.stack(covariances)[:, None] + ridge)

    def scores(self, shifts: np.ndarray | None = None) -> np.ndarray:
        """Mean over held-out trials of Pearson's r, float [draw, channel].

        `shifts` is int [draw, trial]: by how many samples the EEG is turned; without it, one draw that turns nothing.
        """
        r, chosen = self._held_out(self._project(shifts))
        return np.take_along_axis(r, chosen[:, None, :, None], axis=1)[:, 0].mean(axis=0)

    def best_lambda(self) -> float:
        """The median of the lambdas chosen for the held-out trials."""
        _, chosen = self._held_out(self._project(None))
        return float(np.median(np.array(self.config.lambdas)[chosen[:, 0]]))

    def _project(self, shifts: np.ndarray | None) -> np.ndarray:
        """Cross-correlations at the lags, in the basis: [trial, d, draw, channel]."""
        if shifts is None:
            shifts = np.zeros((1, len(self.sizes)), np.int64)
        projected = []
        for trial, (cross, n) in enumerate(zip(self.cross, self.sizes, strict=True)):
            at = (self.lags[:, None] + shifts[:, trial]) % n  # [lag, draw]
            projected.append(np.tensordot(self.basis.T, cross[at], axes=1))
        return np.stack(projected)

    def _held_out(self, cross: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(r [trial, lambda, draw, channel], chosen lambda's index [trial, draw])."""
        n, n_draws = len(cross), cross.shape[2]
        flat = cross.reshape(n, cross.shape[1], -1)
        total = flat.sum(axis=0)
        r = np.stack([self._score(self.all_but_one[h], total - flat[h], (n - 1), h, flat) for h in range(n)])
        r = r.reshape(*r.shape[:2], n_draws, -1)
        if not self.pairs:
            return r, np.zeros((n, n_draws), np.int64)
        within = np.zeros((n, len(self.config.lambdas), n_draws))
        for (g, h), inverse in zip(self.pairs, self.all_but_two, strict=True):
            training = total - flat[g] - flat[h]
            weights = inverse @ (training / (n - 2))
            for held, inner in ((h, g), (g, h)):  # held is kept for the test, inner for choosing lambda
                found = self._correlation(weights, inner, flat)
                within[held] += found.reshape(len(found), n_draws, -1).mean(axis=-1)
        return r, within.argmax(axis=1)

    def _score(self, inverse: np.ndarray, training: np.ndarray, n: int, held: int, flat: np.ndarray) -> np.ndarray:
        return self._correlation(inverse @ (training / n), held, flat)

    def _correlation(self, weights: np.ndarray, held: int, flat: np.ndarray) -> np.ndarray:
        """Pearson's r, [lambda, draw x channel], of prediction and EEG on one trial; 0 for a constant prediction."""
        along = (weights * flat[held]).sum(axis=1)
        power = (weights * (self.covariances[held] @ weights)).sum(axis=1)
        return along / np.sqrt(np.maximum(power, 1e-30) * self.sizes[held])


def _basis(covariance: np.ndarray) -> np.ndarray:
    """Orthonormal directions of lag space that the feature has anything in: [lag, d]."""
    values, vectors = np.linalg.eigh(covariance)
    kept = values > SMALLEST_EIGENVALUE * max(values[-1], 1e-30)
    kept[-1] = True
    return vectors[:, kept]


def response_function(
    config: TrfConfig, listener: Listener, feature: Sequence[np.ndarray], ridge: float
) -> tuple[np.ndarray, np.ndarray]:
    """(lags in s [lag], weights [lag, channel]) of a model of all trials, by mTRFpy."""
    model = TRF(direction=1)
    ready = [lag_ready(x, int(config.lags[-1]))[:, None] for x in feature]
    model.train(ready, list(listener.eeg), RATE_HZ, *config.lags_s, ridge, verbose=False)
    return np.asarray(model.times, float), np.asarray(model.weights)[0]
