"""How far a gate's probability that nobody speaks can be trusted, by clip.

gate_metrics(scores)["auroc"]       # the chance that it ranks a non-speech clip above a speech clip
gate_metrics(scores)["ece"]         # how far its probabilities are from what happens, on average
"""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum
from typing import Any

import numpy as np
from scipy.stats import mannwhitneyu

from steer_asr_benchmarks.scoring import ClipScore

BINS = 10


def gate_metrics(scores: Sequence[ClipScore]) -> dict[str, Any] | None:
    """Over the clips of speech and of non-speech that have a probability; None when none has: there is no gate.

    `auroc`: Mann-Whitney's U over the number of pairs, ties counting half; None with one kind of clips only. `ece`:
    expected calibration error (Naeini et al. 2015), the mean over clips of |predicted - observed| in `BINS` bins of
    equal width; with it goes the share of non-speech among the clips, since a rare kind makes a small error easy.
    """
    known = [s for s in scores if s.nobody_speaks is not None and s.kind in ("speech", "nonspeech")]
    if not known:
        return None
    said = np.array([s.nobody_speaks for s in known], np.float64)
    quiet = np.array([s.kind == "nonspeech" for s in known])
    bins = _bins(said, quiet)
    return {
        "clips": len(known),
        "nonspeech_clips": int(quiet.sum()),
        "auroc": _auroc(said[quiet], said[~quiet]),
        "ece": fsum(b["clips"] * abs(b["predicted"] - b["observed"]) for b in bins) / len(known),
        "bins": bins,
    }


def _auroc(positive: np.ndarray, negative: np.ndarray) -> float | None:
    if not len(positive) or not len(negative):
        return None
    return float(mannwhitneyu(positive, negative, method="asymptotic").statistic) / (len(positive) * len(negative))


def _bins(said: np.ndarray, quiet: np.ndarray) -> list[dict[str, Any]]:
    """The bins that are not empty: where each begins, mean probability, and how often nobody spoke."""
    places = np.minimum((said * BINS).astype(int), BINS - 1)
    return [
        {
            "from": place / BINS,
            "clips": int(chosen.sum()),
            "predicted": float(said[chosen].mean()),
            "observed": float(quiet[chosen].mean()),
        }
        for place in range(BINS)
        if (chosen := places == place).any()
    ]
