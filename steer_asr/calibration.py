"""How strong an edit may be: read off the strength curve that a pack carries.

    strength_within(pack.calibration, 0.05, pack.name)      # the largest strength that changes at most 5 % of words

The curve's `changed_words` is the word edit distance between what stock and steered Whisper write on held-out speech,
per word of stock's text. The edit distance is a metric, so (triangle inequality, summed over recordings)

    errors(steered) <= errors(stock) + distance(stock, steered)

whatever the reference says: `changed_words` bounds the rise of the word error rate from above, and needs no
transcripts. It counts changes for the better as harm too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, TypeGuard

from steer_asr.errors import SteerOptionError

HARM = "changed_words"


def strength_within(calibration: Sequence[Mapping[str, Any]], max_wer_increase: float, pack: str) -> float:
    """The largest strength in (0, 1] whose change of words is at most `max_wer_increase`, a share of stock's words.

    Between measured points the curve is a line through the highest change so far (a larger strength never counts as
    less harm than a smaller one); beyond them nothing is assumed, so the answer lies between the smallest and the
    largest measured strength. Raises `SteerOptionError` when the pack has no curve, and when even its smallest
    measured strength changes more: a call that steers nothing is an error.
    """
    points = _points(calibration)
    if not points:
        raise SteerOptionError(
            f"pack {pack!r} has no strength curve to read max_wer_increase off; give a strength instead (1 is what the "
            "pack was learned for), or measure its curve: steer-asr-train calibrate"
        )
    strengths = [strength for strength, _ in points]
    harms = list(accumulate((change for _, change in points), max))
    n_within = sum(harm <= max_wer_increase for harm in harms)
    chosen = strengths[n_within - 1] if n_within else 0.0
    if 0 < n_within < len(points):
        share = (max_wer_increase - harms[n_within - 1]) / (harms[n_within] - harms[n_within - 1])
        chosen += (strengths[n_within] - chosen) * share
    if chosen <= 0:
        smallest, harm = next((point for point in zip(strengths, harms, strict=True) if point[0] > 0), (0.0, harms[0]))
        raise SteerOptionError(
            f"max_wer_increase {max_wer_increase:g} leaves no strength of pack {pack!r}: {smallest:g}, the smallest "
            f"measured, changes {harm:.4g} of all words; allow that much, or use steer='off'"
        )
    return chosen


def _points(calibration: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """(strength, share of words changed), by strength; strengths above 1 and points that lack a number are left out."""
    found: dict[float, float] = {}
    for point in calibration:
        strength, change = point.get("strength"), point.get(HARM)
        if _is_number(strength) and _is_number(change) and 0 <= strength <= 1 and change >= 0:
            found[float(strength)] = max(float(change), found.get(float(strength), 0.0))
    return sorted(found.items())


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
