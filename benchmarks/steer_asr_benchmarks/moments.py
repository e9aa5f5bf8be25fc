"""Frames of which it is known whether somebody speaks: what a gate's probability for single moments is measured on.

    spans = speech_times(clip)                         # [[0.4, 2.1], ...] in seconds; [] for non-speech; None: unknown
    scores = frame_scores(record)                      # what the gate said of each such frame, and what is so

Known are clips of non-speech, recordings whose manifest has `speech`, and clips with an `alignment_filepath` that is a
Praat TextGrid with a tier of words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from steer_asr.errors import ManifestError
from steer_asr.gate import FRAME_S, speech_at
from steer_asr.manifest import Clip
from steer_asr_benchmarks.mixed import MARGIN_S

MIN_PAUSE_S = 0.3
"""Shorter silences between words are part of speaking."""
ALIGNED_MARGIN_S = 0.1
"""Frames this near to where speech begins or ends do not count: aligners are no more exact than that. In mixed
recordings, whose spans are whole utterances, `mixed.MARGIN_S`."""
WORDS = ("words", "word")


@dataclass(frozen=True, eq=False)
class FrameScores:
    """The frames of one clip that are known."""

    said: np.ndarray
    """float32 [frame]: probability that nobody speaks."""
    quiet: np.ndarray
    """bool [frame]: nobody does."""


def speech_times(clip: Clip) -> list[list[float]] | None:
    """[start_s, end_s] of every stretch of speech; None where nobody says when.

    Raises `ManifestError` when the clip's alignment is missing or broken.
    """
    if clip.kind == "nonspeech":
        return []
    if clip.spans:
        return [[span.start_s, span.end_s] for span in clip.spans]
    if clip.alignment_path is None or clip.alignment_path.suffix.lower() != ".textgrid":
        return None
    return merged(_words(clip.alignment_path))


def merged(words: Sequence[tuple[float, float]], min_pause_s: float = MIN_PAUSE_S) -> list[list[float]]:
    """Words (start, end) in order as stretches of speech; silences shorter than `min_pause_s` do not part two."""
    found: list[list[float]] = []
    for start, end in words:
        if found and start - found[-1][1] < min_pause_s:
            found[-1][1] = max(found[-1][1], end)
        else:
            found.append([start, end])
    return found


def frame_scores(record: Mapping[str, Any]) -> FrameScores | None:
    """The known frames of a line of predictions.jsonl; None where there are none.

    Where windows overlap, a moment counts in the first of them, as far as that was transcribed.
    """
    windows = [w for w in record["windows"] or () if w.get("frames") is not None]
    spans = [(float(start), float(end)) for start, end in record.get("spans") or ()]
    if not windows or (record["kind"] != "nonspeech" and not spans):
        return None
    margin_s = MARGIN_S if record["kind"] == "mixed" else ALIGNED_MARGIN_S
    ends = [float(window["start_s"]) for window in windows[1:]] + [float("inf")]
    said, truth = [], []
    for window, end in zip(windows, ends, strict=True):
        start = float(window["start_s"])
        frames = np.array(window["frames"], np.float32)
        if start < end < start + FRAME_S * len(frames):
            frames = frames[: round((end - start) / FRAME_S)]
        said.append(frames)
        truth.append(speech_at(spans, len(frames), start_s=start, margin_s=margin_s))
    known = np.concatenate(truth)
    return FrameScores(np.concatenate(said)[known >= 0], known[known >= 0] == 0)


def _words(path: Path) -> list[tuple[float, float]]:
    from praatio import textgrid
    from praatio.utilities.errors import PraatioException

    try:
        grid = textgrid.openTextgrid(str(path), includeEmptyIntervals=False)
        names = [name for name in grid.tierNames if name.rpartition("-")[2].strip().lower() in WORDS]
        entries = [entry for name in names[:1] for entry in grid.getTier(name).entries]
        words = sorted((float(entry[0]), float(entry[1])) for entry in entries)
    except (PraatioException, OSError, ValueError, AttributeError, TypeError, IndexError, UnicodeError) as error:
        raise ManifestError(f"{path}: cannot be read as a TextGrid ({error or type(error).__name__})") from error
    if not words:
        raise ManifestError(f"{path}: no word in it; a tier named {WORDS[0]!r} is expected")
    return words
