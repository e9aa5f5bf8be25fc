"""Response functions: the same numbers as mTRFpy, and lags that are what was planted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from mtrf.model import TRF
from mtrf.stats import crossval, nested_crossval

from steer_asr.errors import SteerOptionError
from steer_asr_training.eeg.signals import RATE_HZ, EegError
from steer_asr_training.eeg.simulate import Simulated, SimulationConfig, simulate
from steer_asr_training.eeg.trf import Fits, Listener, TrfConfig, check_trials, lag_ready, response_function

LAST_LAG = int(TrfConfig().lags[-1])
STUDY = SimulationConfig(
    n_listeners=1, n_trials=4, trial_s=12.0, n_features=3, n_planted=1, coupling=0.4, latency_s=0.2, n_channels=2
)


@pytest.fixture(scope="module")
def made() -> Simulated:
    return simulate(STUDY, seed=0)


def feature(made: Simulated, column: int) -> list[np.ndarray]:
    return [x[:, column] for x in made.source.stimuli]


def ready(signals: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [lag_ready(x, LAST_LAG)[:, None] for x in signals]


@pytest.mark.parametrize("column", [0, 1])
def test_scores_and_lambdas_are_those_of_mtrfpy(made: Simulated, column: int) -> None:
    config, [listener], signals = TrfConfig(), made.listeners, feature(made, column)
    eeg = [trial.copy() for trial in listener.eeg]
    r, chosen = nested_crossval(
        TRF(), ready(signals), eeg, RATE_HZ, *config.lags_s, list(config.lambdas), verbose=False
    )
    fits = Fits(config, listener, signals)
    assert fits.scores().shape == (1, 2)
    assert fits.scores().mean() == pytest.approx(r.mean(), abs=1e-6)
    assert fits.best_lambda() == pytest.approx(np.median(chosen))


def test_a_single_lambda_needs_no_choice_and_two_trials_are_enough(made: Simulated) -> None:
    config = TrfConfig(lambdas=(10.0,))
    listener = Listener("1", made.listeners[0].eeg[:2])
    signals = feature(made, 0)[:2]
    r = crossval(TRF(), ready(signals), [x.copy() for x in listener.eeg], RATE_HZ, *config.lags_s, 10.0, verbose=False)
    check_trials(config, listener)
    fits = Fits(config, listener, signals)
    assert fits.scores().mean() == pytest.approx(float(np.mean(r)), abs=1e-6)
    assert fits.best_lambda() == 10.0


def test_turning_is_rolling_the_eeg(made: Simulated) -> None:
    config, [listener], signals = TrfConfig(), made.listeners, feature(made, 0)
    shifts = np.array([[0, 0, 0, 0], [5, 700, 0, 1535], [100, 100, 100, 100]])
    found = Fits(config, listener, signals).scores(shifts)
    for row, expected in zip(shifts, found, strict=True):
        rolled = [np.roll(eeg, -shift, axis=0) for eeg, shift in zip(listener.eeg, row, strict=True)]
        np.testing.assert_allclose(Fits(config, Listener("1", rolled), signals).scores()[0], expected, atol=1e-9)
    assert found[0].mean() > found[1:].mean(axis=1).max() + 0.1


@pytest.mark.parametrize("latency_s", [0.1, 0.3])
def test_the_lag_is_found(latency_s: float) -> None:
    config = SimulationConfig(
        n_listeners=1, n_trials=3, trial_s=40.0, n_features=1, n_planted=1, coupling=0.5, latency_s=latency_s
    )
    made = simulate(config, seed=2)
    lags_s, weights = response_function(TrfConfig(), made.listeners[0], feature(made, 0), 10.0)
    assert lags_s[[0, -1]].tolist() == [0.0, 0.5]
    assert abs(lags_s[weights[:, 0].argmax()] - latency_s) <= 0.025
    late = TrfConfig(lags_s=(latency_s + 0.15, 0.5)) if latency_s < 0.2 else TrfConfig(lags_s=(0.0, latency_s - 0.15))
    inside = Fits(TrfConfig(), made.listeners[0], feature(made, 0)).scores().mean()
    assert inside > Fits(late, made.listeners[0], feature(made, 0)).scores().mean() + 0.1


def test_a_feature_that_is_silent_in_a_trial_scores_nothing_there(made: Simulated) -> None:
    [listener], signals = made.listeners, feature(made, 0)
    silent = [np.zeros_like(signals[0]), *signals[1:]]
    r = Fits(TrfConfig(lambdas=(10.0,)), listener, silent).scores()
    assert np.isfinite(r).all()
    without = Fits(TrfConfig(lambdas=(10.0,)), Listener("1", listener.eeg[1:]), signals[1:])
    assert 0 < r.mean() < without.scores().mean()


def test_bad_options_and_too_little_data_are_named(made: Simulated) -> None:
    with pytest.raises(SteerOptionError, match="lags from 0.5 to 0.1 s"):
        TrfConfig(lags_s=(0.5, 0.1))
    with pytest.raises(SteerOptionError, match="all above 0"):
        TrfConfig(lambdas=(0.0,))
    eeg = made.listeners[0].eeg
    with pytest.raises(EegError, match="subject 'ann' has 2 trials, leaving one out takes at least 3.*--split"):
        check_trials(TrfConfig(), Listener("ann", eeg[:2]))
    with pytest.raises(EegError, match="has 1 trial, leaving one out takes at least 2;"):
        check_trials(TrfConfig(lambdas=(1.0,)), Listener("ann", eeg[:1]))
    with pytest.raises(EegError, match="1.56 s is too short for lags up to 0.5 s"):
        check_trials(TrfConfig(), Listener("ann", [x[:200] for x in eeg]))
