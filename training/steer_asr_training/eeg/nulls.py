"""Is the score more than chance? The same scores with the EEG turned against the stimulus, and Holm-Bonferroni.

    tested = score_features(TrfConfig(), NullConfig(seed=0), listeners, source)
    tested.r, tested.p, holm(tested.p) < 0.05            # arrays [feature]

A draw of the null turns the EEG of every trial in a circle by a random time and does everything else again, the choice
of lambda included. All rhythms of both sides stay, only what ties them goes. Everybody who heard a stimulus is turned
by the same time: two brains share what the stimulus does to them for other reasons than this feature, and turning each
on its own would lose that and call chance significant.

Most features are far from significant, and 20 draws show it: a feature stops when `exceedances` draws have reached its
score (Besag and Clifford, Biometrika 1991, whose p-value is exact at whatever draw that is); the others go on to the
last draw, and get (exceedances + 1) / (draws + 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from scipy import stats

from steer_asr._progress import Progress
from steer_asr.errors import SteerOptionError
from steer_asr_training.eeg.trf import Fits, Listener, TrfConfig, check_trials, one_blas_thread

FIRST_BLOCK = 100
"""Draws that every feature gets: they describe its null."""
LARGEST_BLOCK = 800
FEATURES_AT_A_TIME = 64
MIN_DRAWS = 1000


class Source(Protocol):
    """Features of the stimuli as signals at 128 Hz."""

    @property
    def n_features(self) -> int: ...

    def signals(self, columns: slice) -> Sequence[np.ndarray]:
        """float [sample, column] of every stimulus, in order."""
        ...


class Signals:
    """A source in memory: float [sample, feature] per stimulus."""

    def __init__(self, stimuli: Sequence[np.ndarray]) -> None:
        self.stimuli = list(stimuli)

    @property
    def n_features(self) -> int:
        return self.stimuli[0].shape[1]

    def signals(self, columns: slice) -> list[np.ndarray]:
        return [stimulus[:, columns] for stimulus in self.stimuli]


@dataclass(frozen=True)
class NullConfig:
    """How chance is measured."""

    n_draws: int | None = None
    """None takes twice as many as Holm-Bonferroni needs to call one feature significant, and at least 1000."""
    alpha: float = 0.05
    """Family-wise error rate."""
    exceedances: int = 10
    """Draws that reach the score before a feature is given up."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1 or self.exceedances < 1 or (self.n_draws is not None and self.n_draws < FIRST_BLOCK):
            raise SteerOptionError(
                f"alpha {self.alpha:g} must lie between 0 and 1, exceedances {self.exceedances} be at least 1, and "
                f"draws {self.n_draws} at least {FIRST_BLOCK}"
            )

    def draws_for(self, n_features: int) -> int:
        """Raises `SteerOptionError` where so few draws could never make any of `n_features` significant."""
        needed = int(np.ceil(n_features / self.alpha))
        if self.n_draws is None:
            return max(MIN_DRAWS, 2 * needed)
        if self.n_draws < needed:
            raise SteerOptionError(
                f"{self.n_draws} draws give p-values down to {1 / (self.n_draws + 1):.2g}; with {n_features} features "
                f"Holm-Bonferroni needs {self.alpha / n_features:.2g}: take at least {needed} draws or fewer features"
            )
        return self.n_draws


@dataclass(frozen=True, eq=False)
class Tested:
    """Scores and p-values. Everything is averaged over held-out trials; `r` over listeners and channels, too."""

    r: np.ndarray
    """float [feature]"""
    by_listener: np.ndarray
    """float [listener, feature]"""
    null_by_listener: np.ndarray
    """float [listener, feature]: means over the first draws."""
    null_sd: np.ndarray
    """float [feature]: of `r` under the null."""
    null_p95: np.ndarray
    """float [feature]: 95 % of the null lie below."""
    p: np.ndarray
    """float [feature], one-sided, of the turned EEG."""
    n_draws: np.ndarray
    """int [feature]: how many were drawn."""

    @property
    def null_mean(self) -> np.ndarray:
        return self.null_by_listener.mean(axis=0)

    @property
    def p_t(self) -> np.ndarray | None:
        """One-sided t-test over listeners, score against its null's mean, as in AudioSAE; None for one listener."""
        if len(self.by_listener) < 2:
            return None
        apart = self.by_listener - self.null_by_listener
        spread = apart.std(axis=0, ddof=1)
        t = apart.mean(axis=0) / np.where(spread > 0, spread, np.inf) * np.sqrt(len(apart))
        return np.asarray(stats.t.sf(t, len(apart) - 1))


def score_features(
    trf: TrfConfig, null: NullConfig, listeners: Sequence[Listener], source: Source, *, label: str = "TRF"
) -> Tested:
    """Scores every feature of `source` against all listeners.

    A trial's EEG is as long as its stimulus's signals, for every listener. Raises `EegError` for listeners with too
    few or too short trials, and `SteerOptionError` for too few draws.
    """
    for listener in listeners:
        check_trials(trf, listener)
    n_draws = null.draws_for(source.n_features)
    shifts = _draw_shifts(null, listeners, n_draws)
    rows: list[dict[str, Any]] = []
    with one_blas_thread(), Progress(total=source.n_features, unit="feature", label=label) as progress:
        for start in range(0, source.n_features, FEATURES_AT_A_TIME):
            stimuli = source.signals(slice(start, min(start + FEATURES_AT_A_TIME, source.n_features)))
            for column in range(stimuli[0].shape[1]):
                rows.append(_test_one(trf, null, listeners, [x[:, column] for x in stimuli], shifts))
                progress.advance()
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return Tested(**{name: column.T if column.ndim > 1 else column for name, column in columns.items()})


def _draw_shifts(null: NullConfig, listeners: Sequence[Listener], n_draws: int) -> np.ndarray:
    """int [draw, stimulus], uniform over the whole circle: with 0 among them the p-value is exact."""
    sizes: dict[int, int] = {}
    for listener in listeners:
        for stimulus, n in zip(listener.stimuli, listener.n_samples, strict=True):
            sizes[stimulus] = min(n, sizes.get(stimulus, n))
    rng = np.random.default_rng(null.seed)
    shifts = np.zeros((n_draws, max(sizes) + 1), np.int64)
    for stimulus in sorted(sizes):
        shifts[:, stimulus] = rng.integers(0, sizes[stimulus], n_draws)
    return shifts


def _test_one(
    trf: TrfConfig, null: NullConfig, listeners: Sequence[Listener], stimuli: Sequence[np.ndarray], shifts: np.ndarray
) -> dict[str, Any]:
    fits = [Fits(trf, listener, [stimuli[s] for s in listener.stimuli]) for listener in listeners]
    r = np.array([fit.scores().mean() for fit in fits])
    reached, drawn, size = 0, 0, FIRST_BLOCK
    first: np.ndarray | None = None
    p = None
    while drawn < len(shifts) and p is None:
        block = shifts[drawn : drawn + size]
        scores = np.stack(
            [fit.scores(block[:, listener.stimuli]).mean(axis=1) for fit, listener in zip(fits, listeners, strict=True)]
        )
        first = scores if first is None else first
        count = reached + np.cumsum(scores.mean(axis=0) >= r.mean() - 1e-12)
        if count[-1] >= null.exceedances:
            p = null.exceedances / (drawn + int(np.argmax(count >= null.exceedances)) + 1)
        reached, drawn, size = int(count[-1]), drawn + len(block), min(2 * size, LARGEST_BLOCK)
    assert first is not None
    return {
        "r": r.mean(),
        "by_listener": r,
        "null_by_listener": first.mean(axis=1),
        "null_sd": first.mean(axis=0).std(ddof=1),
        "null_p95": np.quantile(first.mean(axis=0), 0.95),
        "p": (reached + 1) / (drawn + 1) if p is None else p,
        "n_draws": drawn,
    }


def holm(p: np.ndarray) -> np.ndarray:
    """p-values, [test], adjusted for their number (Holm 1979): below alpha, family-wise, under any dependence."""
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted
