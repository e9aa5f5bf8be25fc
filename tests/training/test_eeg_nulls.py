"""What counts as significant: planted features do, chance does not more often than it may."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from steer_asr.errors import SteerOptionError
from steer_asr_training.eeg import nulls
from steer_asr_training.eeg.nulls import NullConfig, Signals, holm, score_features
from steer_asr_training.eeg.simulate import SimulationConfig, power, simulate
from steer_asr_training.eeg.trf import Listener, TrfConfig

FAST = TrfConfig(lambdas=(10.0,))
PLANTED = SimulationConfig(n_listeners=3, n_trials=3, trial_s=20.0, n_features=8, n_planted=2, coupling=0.25)


def test_planted_features_are_found_and_no_other() -> None:
    made = simulate(PLANTED, seed=1)
    tested = score_features(TrfConfig(), NullConfig(seed=3), made.listeners, made.source)
    np.testing.assert_array_equal(holm(tested.p) < 0.05, made.planted)
    assert (tested.r[:2] > tested.null_p95[:2]).all()
    assert tested.p[:2] == pytest.approx(1 / 1001), "the smallest p there is"
    assert (tested.n_draws[2:] < 1000).all(), "hopeless features stop early"
    np.testing.assert_allclose(tested.by_listener.mean(axis=0), tested.r)
    np.testing.assert_allclose(tested.null_mean, 0, atol=0.06)
    assert tested.p_t is not None
    expected = stats.ttest_rel(tested.by_listener, tested.null_by_listener, axis=0, alternative="greater")
    np.testing.assert_allclose(tested.p_t, expected.pvalue)
    again = score_features(TrfConfig(), NullConfig(seed=3), made.listeners, made.source)
    np.testing.assert_array_equal(again.p, tested.p)


def test_a_wrong_pairing_finds_nothing() -> None:
    made = simulate(PLANTED, seed=1)
    turned = [Listener(one.name, [*one.eeg[1:], one.eeg[0]], one.stimuli) for one in made.listeners]
    tested = score_features(TrfConfig(), NullConfig(), turned, made.source)
    assert holm(tested.p).min() > 0.05
    assert tested.r.max() < 0.2


@pytest.mark.parametrize("shared", [0.0, 0.8])
def test_chance_is_significant_as_often_as_it_says(shared: float) -> None:
    """Also when listeners share a response to something else: a null that turned each on its own would fail here."""
    alpha, n_studies, n_features = 0.2, 14, 8
    config = SimulationConfig(4, 2, 6.0, n_features, n_planted=0, shared=shared)
    studies_with_any, p = 0, []
    for seed in range(n_studies):
        made = simulate(config, 1000 + seed)
        found = score_features(FAST, NullConfig(n_draws=100, alpha=alpha, seed=seed), made.listeners, made.source).p
        studies_with_any += int((holm(found) < alpha).any())
        p.append(found)
    assert studies_with_any <= stats.binom.ppf(0.999, n_studies, alpha)
    every = np.concatenate(p)
    assert (every <= 0.05).sum() <= stats.binom.ppf(0.999, every.size, 0.05)
    assert stats.binom.ppf(0.001, every.size, 0.5) <= (every <= 0.5).sum() <= stats.binom.ppf(0.999, every.size, 0.5)


def test_p_values_of_features_that_stop_early_are_those_of_all_draws_within_chance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = simulate(PLANTED, seed=4)
    early = score_features(FAST, NullConfig(seed=1), made.listeners, made.source)
    all_draws = score_features(FAST, NullConfig(seed=1, exceedances=10**9), made.listeners, made.source)
    assert (all_draws.n_draws == 1000).all()
    assert (early.n_draws <= all_draws.n_draws).all()
    assert (early.p >= 10 / np.maximum(early.n_draws, 1))[2:].all()
    assert np.abs(np.log(early.p / all_draws.p)).max() < np.log(3)
    monkeypatch.setattr(nulls, "FEATURES_AT_A_TIME", 3)
    pieces = score_features(FAST, NullConfig(seed=1), made.listeners, made.source)
    np.testing.assert_array_equal(pieces.p, early.p)


def test_holm() -> None:
    """Worked by hand: 4 x 0.01; 3 x 0.02; 2 x 0.03 and no less than before; 0.5."""
    np.testing.assert_allclose(holm(np.array([0.03, 0.01, 0.5, 0.02])), [0.06, 0.04, 0.5, 0.06])
    np.testing.assert_allclose(holm(np.array([0.9, 0.8])), [1.0, 1.0])
    assert holm(np.array([0.04])) == pytest.approx(0.04)


def test_too_few_draws_are_refused_before_they_are_drawn() -> None:
    assert NullConfig().draws_for(1000) == 40_000
    assert NullConfig().draws_for(3) == 1000
    with pytest.raises(SteerOptionError, match="999 draws.* 1000 features.*at least 20000 draws or fewer features"):
        NullConfig(n_draws=999).draws_for(1000)
    at_least = NullConfig(n_draws=160).draws_for(8)
    assert holm(np.array([1 / (at_least + 1)] + [1.0] * 7))[0] < 0.05
    with pytest.raises(SteerOptionError, match="alpha 2"):
        NullConfig(alpha=2.0)
    with pytest.raises(SteerOptionError, match="draws 5 at least 100"):
        NullConfig(n_draws=5)


def test_one_listener_has_no_t_test() -> None:
    made = simulate(SimulationConfig(1, 3, 8.0, 2, n_planted=0), seed=0)
    tested = score_features(FAST, NullConfig(), made.listeners, Signals(made.source.stimuli))
    assert tested.p_t is None
    assert tested.by_listener.shape == (1, 2)


def test_power_grows_with_the_coupling() -> None:
    null = NullConfig(n_draws=100)

    def found(coupling: float) -> float:
        config = SimulationConfig(2, 3, 12.0, 3, n_planted=1, coupling=coupling)
        report = power(config, FAST, null, n_repeats=4, seed=5)
        assert (report["studies"], report["alpha"]) == (4, 0.05)
        assert report["studies_with_a_false_positive"] <= 2
        return report["planted_found"]

    assert found(0.0) <= 0.5 < found(0.5) == 1.0


def test_impossible_simulations_are_refused() -> None:
    with pytest.raises(SteerOptionError, match="more than all of the EEG"):
        SimulationConfig(n_planted=5, coupling=0.5)
    with pytest.raises(SteerOptionError, match="no more planted features than there are"):
        SimulationConfig(n_features=2, n_planted=3)
    with pytest.raises(SteerOptionError, match="at least one study"):
        power(PLANTED, FAST, NullConfig(), n_repeats=0)
