"""Intervals. Seeds are fixed: the same counts give the same interval.

wilson(2, 100)                                         # (0.0055, 0.0700)
mcnemar(1, 9)                                          # 0.0215
cluster_interval(errors, words, groups)                # of sum(errors) / sum(words), resampling whole groups
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import NormalDist

import numpy as np
from scipy.stats import binomtest

CONFIDENCE = 0.95
RESAMPLES = 5000
SEED = 0
_BLOCK = 2_000_000

Interval = tuple[float, float]


def wilson(successes: int, trials: int) -> Interval | None:
    """Wilson's score interval of a rate (Wilson 1927, without continuity correction). None without trials."""
    if trials == 0:
        return None
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    rate = successes / trials
    centre = rate + z * z / (2 * trials)
    spread = z * sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def mcnemar(ours: int, theirs: int) -> float:
    """Two-sided exact p of McNemar's test: `ours` and `theirs` clips on which only one of two systems has text.

    Under the null each discordant pair falls either way with probability one half (McNemar 1947, exact form). 1 without
    discordant pairs.
    """
    if ours + theirs == 0:
        return 1.0
    return float(binomtest(ours, ours + theirs).pvalue)


def cluster_interval(
    numerators: Sequence[float], denominators: Sequence[float], groups: Sequence[str]
) -> Interval | None:
    """Percentile bootstrap interval of sum(numerators) / sum(denominators), with whole groups drawn again.

    Clips of one speaker or recording are not independent, so groups are what is drawn. For a paired difference of two
    systems give the per-clip differences as numerators. None when there are fewer than two groups to draw from.
    """
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < 2:
        return None
    above = np.bincount(index, weights=np.asarray(numerators, np.float64))
    below = np.bincount(index, weights=np.asarray(denominators, np.float64))
    rng = np.random.default_rng(SEED)
    block = max(1, _BLOCK // len(names))
    ratios = []
    for start in range(0, RESAMPLES, block):
        size = min(block, RESAMPLES - start)
        drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=size)
        ratios.append((drawn @ above) / (drawn @ below))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.concatenate(ratios), [tail, 1 - tail])
    return float(low), float(high)
