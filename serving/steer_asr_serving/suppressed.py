"""Which windows steering edited away, for metrics and audit."""

from __future__ import annotations

from steer_asr.transcription import Transcription, WindowReport

EDITED = 0.5
"""Share of a window's frames, weighted by strength, from which it counts as edited."""


def suppressed(window: WindowReport) -> bool:
    """Whether steering edited half or more of the window."""
    return window.edited_share >= EDITED


def silent(window: WindowReport, transcription: Transcription, *, after_vad: bool = False) -> bool:
    """Whether steering edited half or more of the window and no word was written in it.

    `after_vad`: the window's times count without the pauses that were cut out, and cannot be compared with the
    segments'; then only a transcription without any word is silent.
    """
    if not suppressed(window):
        return False
    if after_vad:
        return not transcription.speech_detected
    return not any(
        segment.start < window.end_s and segment.end > window.start_s and any(map(str.isalnum, segment.text))
        for segment in transcription.segments
    )
