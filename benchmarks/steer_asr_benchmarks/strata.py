"""A system's numbers by source, label, category, SNR and length of the clips: one table each, all made alike.

    strata(scores)["by_snr"]["5 dB"]["speech"]["wer"]

A stratum holds only the kinds of clips that it has. Strata stand in their natural order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from steer_asr.errors import SteerOptionError, unknown_name
from steer_asr_benchmarks.metrics import mixed_metrics, nonspeech_metrics, speech_summary
from steer_asr_benchmarks.scoring import ClipScore

DIVISIONS = ("source", "label", "category", "lang", "snr", "duration")
"""What clips can be divided by."""
DURATIONS_S = (0.0, 0.3, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Lower ends of the buckets by length; the last one has no upper end."""
MAX_EXACT_SNRS = 12
"""More different SNRs than this are put together by their nearest multiple of 5 dB."""
SNR_STEP_DB = 5


def strata(scores: Sequence[ClipScore]) -> dict[str, Any]:
    """All tables of one system in one mode; clips that lack what a table goes by are not in it."""
    tables = ("source", "label", "category", "snr", "duration")
    return {f"by_{by}": {name: stratum(chosen) for name, chosen in divided(scores, by).items()} for by in tables}


def divided(scores: Sequence[ClipScore], by: str) -> dict[str, list[ClipScore]]:
    """`scores` by one of `DIVISIONS`, in the natural order; clips that lack what it goes by are in none.

    Raises `SteerOptionError` for another name.
    """
    match by:
        case "source" | "label" | "category" | "lang":
            return _divide(scores, lambda score: getattr(score, by))
        case "snr":
            snrs = {score.snr_db for score in scores if score.snr_db is not None}
            step = 0 if len(snrs) <= MAX_EXACT_SNRS else SNR_STEP_DB
            return _divide(scores, lambda score: _snr(score.snr_db, step), "{:g} dB".format)
        case "duration":
            return _divide(scores, lambda score: _bucket(score.duration_s), _bucket_name)
        case _:
            raise SteerOptionError(unknown_name("division", by, DIVISIONS))


def stratum(scores: Sequence[ClipScore]) -> dict[str, Any]:
    """Numbers of the kinds of clips that there are among `scores`."""
    counted: Mapping[str, Callable[[Sequence[ClipScore]], dict[str, Any]]] = {
        "nonspeech": nonspeech_metrics,
        "speech": speech_summary,
        "mixed": mixed_metrics,
    }
    found = {kind: [score for score in scores if score.kind == kind] for kind in counted}
    return {kind: counted[kind](some) for kind, some in found.items() if some}


def _divide(
    scores: Sequence[ClipScore], key: Callable[[ClipScore], Any], name: Callable[[Any], str] = str
) -> dict[str, list[ClipScore]]:
    keys = [key(score) for score in scores]
    return {
        name(wanted): [score for score, found in zip(scores, keys, strict=True) if found == wanted]
        for wanted in sorted({found for found in keys if found not in ("", None)})
    }


def _snr(snr_db: float | None, step: int) -> float | None:
    return snr_db if snr_db is None or not step else float(step * round(snr_db / step))


def _bucket(duration_s: float) -> float:
    return max(start for start in DURATIONS_S if start <= max(0.0, duration_s))


def _bucket_name(start_s: float) -> str:
    ends = dict(pairwise(DURATIONS_S))
    return f"{start_s:g}-{ends[start_s]:g} s" if start_s in ends else f"{start_s:g}+ s"
