"""How far a gate's probability that nobody speaks can be trusted, by clip and by frame.

gate_metrics(scores)["auroc"]       # the chance that it ranks a non-speech clip above a speech clip
gate_metrics(scores)["ece"]         # how far its probabilities are from what happens, on average
"""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum
from typing import Any

import numpy as np
from scipy.stats import mannwhitneyu

from steer_asr_benchmarks.moments import FrameScores
from steer_asr_benchmarks.scoring import ClipScore

BINS = 10


def gate_metrics(scores: Sequence[ClipScore]) -> dict[str, Any] | None:
    """Over the clips of speech and of non-speech that have a probability; None when none has: there is no gate.

    `auroc`: Mann-Whitney's U over the number of pairs, ties counting half; None with one kind of clips only. `ece`:
    expected calibration error (Naeini et al. 2015), the mean over clips of |predicted - observed| in `BINS` bins of
    equal width; with it goes the share of non-speech among the clips, since a rare kind makes a small error easy.
    `frames`: the same of single frames, see `frame_metrics`.
    """
    known = [s for s in scores if s.nobody_speaks is not None and s.kind in ("speech", "nonspeech")]
    if not known:
        return None
    said = np.array([s.nobody_speaks for s in known], np.float64)
    quiet = np.array([s.kind == "nonspeech" for s in known])
    bins = _bins(said, quiet, "clips")
    return {
        "clips": len(known),
        "nonspeech_clips": int(quiet.sum()),
        "auroc": _auroc(said[quiet], said[~quiet]),
        "ece": _ece(bins, "clips"),
        "bins": bins,
        "frames": frame_metrics(scores),
    }


def frame_metrics(scores: Sequence[ClipScore]) -> dict[str, Any] | None:
    """Over the 20-ms frames of clips of which it is known when somebody speaks (`moments`); None without any.

    `inside` is over clips that hold both: telling a pause from the words around it is harder than telling rain from
    talk, and is what mixed recordings need.
    """
    known = [score.frames for score in scores if score.frames is not None and len(score.frames.said)]
    if not known:
        return None
    both = [frames for frames in known if 0 < frames.quiet.sum() < len(frames.quiet)]
    found = _of_frames(known)
    inside = _of_frames(both) if both else None
    return found | {"inside": inside}


def _of_frames(known: Sequence[FrameScores]) -> dict[str, Any]:
    said = np.concatenate([frames.said for frames in known]).astype(np.float64)
    quiet = np.concatenate([frames.quiet for frames in known])
    bins = _bins(said, quiet, "frames")
    return {
        "clips": len(known),
        "frames": len(said),
        "nonspeech_frames": int(quiet.sum()),
        "auroc": _auroc(said[quiet], said[~quiet]),
        "ece": _ece(bins, "frames"),
        "bins": bins,
    }


def _ece(bins: Sequence[dict[str, Any]], unit: str) -> float:
    total = sum(b[unit] for b in bins)
    return fsum(b[unit] * abs(b["predicted"] - b["observed"]) for b in bins) / total


def _auroc(positive: np.ndarray, negative: np.ndarray) -> float | None:
    if not len(positive) or not len(negative):
        return None
    return float(mannwhitneyu(positive, negative, method="asymptotic").statistic) / (len(positive) * len(negative))


def _bins(said: np.ndarray, quiet: np.ndarray, unit: str) -> list[dict[str, Any]]:
    """The bins that are not empty: where each begins, mean probability, and how often nobody spoke."""
    places = np.minimum((said * BINS).astype(int), BINS - 1)
    return [
        {
            "from": place / BINS,
            unit: int(chosen.sum()),
            "predicted": float(said[chosen].mean()),
            "observed": float(quiet[chosen].mean()),
        }
        for place in range(BINS)
        if (chosen := places == place).any()
    ]
