"""What decoding does in windows where nobody speaks: no second attempts, and with `early_exit` no attempt at all.

faster-whisper decodes again, at rising temperatures, what came out unlikely or repetitive. That rescues speech; where
nobody speaks it turns one short improbable answer into a sampled sentence. So a window in which every frame gets at
least half of the edit is decoded once. `Steering(early_exit=True)` does not decode it: the answer is empty, and the
window costs what its encoder pass costs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ctranslate2
import numpy as np
from faster_whisper.transcribe import TranscriptionOptions


@dataclass(frozen=True)
class NoText:
    """An empty answer, with the fields of `ctranslate2.models.WhisperGenerationResult` that faster-whisper reads."""

    no_speech_prob: float
    """The gate's probability that nobody speaks: no decoder ran that could give Whisper's."""
    sequences: tuple[list[str], ...] = ([],)
    sequences_ids: tuple[list[int], ...] = ([],)
    scores: tuple[float, ...] = (0.0,)
    logits: tuple[()] = ()


def decoded_once(options: TranscriptionOptions) -> TranscriptionOptions:
    """The same options with only the first of the temperatures."""
    return replace(options, temperatures=options.temperatures[:1])


class SkippingDecoder:
    """A CTranslate2 Whisper that answers nothing for silent windows, and decodes the other ones."""

    def __init__(self, model: Any, silent: Callable[[], Sequence[float | None]]) -> None:
        """`silent` gives, for each window of the last encoded batch, `NoText.no_speech_prob`, or None to decode it."""
        self.wrapped, self._silent = model, silent

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrapped, name)

    def generate(self, features: ctranslate2.StorageView, prompts: Sequence[Any], **options: Any) -> list[Any]:
        """As `ctranslate2.models.Whisper.generate`, for the windows that are worth it."""
        silent = self._silent()
        spoken = [i for i, probability in enumerate(silent) if probability is None]
        if len(spoken) == len(silent):
            return self.wrapped.generate(features, prompts, **options)
        results: list[Any] = [None if p is None else NoText(p) for p in silent]
        if spoken:
            rows = ctranslate2.StorageView.from_array(np.ascontiguousarray(np.asarray(features)[spoken]))
            for i, result in zip(
                spoken, self.wrapped.generate(rows, [prompts[i] for i in spoken], **options), strict=True
            ):
                results[i] = result
        return results
