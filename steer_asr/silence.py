"""What decoding does where nobody speaks: in windows in which every frame gets at least half of the edit.

- One attempt. faster-whisper decodes again, at rising temperatures, what came out unlikely or repetitive. That rescues
  speech; where nobody speaks it turns one short improbable answer into a sampled sentence.
- No beams. A beam search ranks hypotheses by their log-probability per token, which an empty one does not have:
  CTranslate2 prefers any phrase to it, however sure the decoder is that there is nothing to say.
- With `Steering(early_exit=True)` no attempt at all: the answer is empty, and the window costs what its encoder pass
  costs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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


class SilenceDecoder:
    """A CTranslate2 Whisper that decodes silent windows without beams, or (`skip`) answers nothing for them."""

    def __init__(self, model: Any, silent: Callable[[], Sequence[float | None]], *, skip: bool) -> None:
        """`silent` gives, for each window of the last encoded batch, `NoText.no_speech_prob`, or None for speech."""
        self.wrapped, self._silent, self._skip = model, silent, skip

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrapped, name)

    def generate(self, features: ctranslate2.StorageView, prompts: Sequence[Any], **options: Any) -> list[Any]:
        """As `ctranslate2.models.Whisper.generate`; speech and silence are decoded apart where they differ."""
        silent = self._silent()
        quiet = [i for i, probability in enumerate(silent) if probability is not None]
        if not quiet or (not self._skip and options.get("beam_size", 5) == 1):
            return self.wrapped.generate(features, prompts, **options)
        results: list[Any] = [None if p is None else NoText(p) for p in silent]
        self._fill(results, [i for i, p in enumerate(silent) if p is None], features, prompts, options)
        if not self._skip:
            self._fill(results, quiet, features, prompts, options | {"beam_size": 1})
        return results

    def _fill(
        self, results: list[Any], rows: Sequence[int], features: Any, prompts: Sequence[Any], options: Mapping[str, Any]
    ) -> None:
        """Decodes some rows of the batch into their places."""
        if not rows:
            return
        chosen = features
        if len(rows) < len(results):
            chosen = ctranslate2.StorageView.from_array(np.ascontiguousarray(np.asarray(features)[list(rows)]))
        found = self.wrapped.generate(chosen, [prompts[i] for i in rows], **options)
        for i, result in zip(rows, found, strict=True):
            results[i] = result
