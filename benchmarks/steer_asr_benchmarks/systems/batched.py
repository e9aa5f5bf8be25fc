"""`...+batched`: faster-whisper's batched pipeline, stock and steered.

Without VAD it wants to be told where to cut, so it gets whole windows of 30 s, one after the other.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from faster_whisper import BatchedInferencePipeline
from faster_whisper.transcribe import get_compression_ratio

from steer_asr.audio import SAMPLE_RATE_HZ
from steer_asr.ct2 import SteeredBatchedInferencePipeline
from steer_asr_benchmarks.systems.base import Window

WINDOW_S = 30.0


class _Recording:
    """Writes down the scores of every window, and cuts where nobody else does."""

    windows: list[Window]

    def transcribe(self, audio: Any, *args: Any, **options: Any) -> Any:
        options.setdefault("vad_filter", False)
        if not options["vad_filter"]:
            options["clip_timestamps"] = cuts(len(audio) / SAMPLE_RATE_HZ)
        return super().transcribe(audio, *args, **options)  # pyright: ignore[reportAttributeAccessIssue]

    def generate_segment_batched(self, features: np.ndarray, tokenizer: Any, options: Any) -> Any:
        encoded, found = super().generate_segment_batched(features, tokenizer, options)  # pyright: ignore[reportAttributeAccessIssue]
        for one in found:
            mean = float(one["avg_logprob"]) if math.isfinite(one["avg_logprob"]) else None
            ratio = get_compression_ratio(tokenizer.decode(one["tokens"]).strip())
            self.windows.append(Window(one["no_speech_prob"], mean, ratio, tuple(one["tokens"])))
        return encoded, found


class RecordingPipeline(_Recording, BatchedInferencePipeline):  # pyright: ignore[reportIncompatibleMethodOverride]
    """A `BatchedInferencePipeline` that keeps the scores of every window."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.windows: list[Window] = []


class RecordingSteeredPipeline(_Recording, SteeredBatchedInferencePipeline):
    """The same, steered; the copy that each call makes shares the list."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.windows: list[Window] = []


def cuts(duration_s: float) -> list[dict[str, float]]:
    """Windows of 30 s, the last one shorter, as `clip_timestamps` takes them."""
    starts = np.arange(0.0, max(duration_s, 1e-3), WINDOW_S).tolist()
    return [{"start": start, "end": min(start + WINDOW_S, duration_s)} for start in starts]
