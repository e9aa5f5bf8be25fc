"""Stands between faster-whisper and CTranslate2 for one request: stops it, and keeps what faster-whisper drops.

    tap = ModelTap(model.model, gone)
    model.model = tap                              # of a shallow copy that serves one request
    segments, _ = model.transcribe(audio, word_timestamps=True)
    tap.logprobs(next(segments).tokens, tokenizer)

Stopping: faster-whisper can only be left between segments, and silence has none, however long it is. Log-probabilities:
faster-whisper keeps a mean over each segment. For word times, though, CTranslate2 runs the decoder once more over the
finished text and returns each token's probability (`Whisper.align`); that is kept here before faster-whisper averages
it. It is the probability of the text without time tokens, at temperature 1.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

FLOOR = 1e-30
"""Stands for a probability that was rounded to zero: JSON has no minus infinity."""


@dataclass(frozen=True)
class TokenLogprob:
    """One token, as OpenAI's clients expect it."""

    token: str
    """Its text; a token that holds only part of a character shows U+FFFD."""
    bytes: list[int]
    """Its exact UTF-8 bytes."""
    logprob: float


class Abandoned(Exception):
    """Nobody waits for the result any more."""


class ModelTap:
    """A `ctranslate2.models.Whisper` that ends once `gone` is set, and remembers what its alignments said."""

    def __init__(self, wrapped: Any, gone: threading.Event) -> None:
        self._wrapped, self._gone = wrapped, gone
        self._tokens: list[int] = []
        self._probabilities: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapped, name)

    def encode(self, *args: Any, **kwargs: Any) -> Any:
        """As CTranslate2's, once for each window. Raises `Abandoned`."""
        self._check_wanted()
        return self._wrapped.encode(*args, **kwargs)

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """As CTranslate2's, once for each window and temperature. Raises `Abandoned`."""
        self._check_wanted()
        return self._wrapped.generate(*args, **kwargs)

    def _check_wanted(self) -> None:
        if self._gone.is_set():
            raise Abandoned

    def align(self, encoder_output: Any, start_sequence: Any, text_tokens: Any, *args: Any, **kwargs: Any) -> Any:
        """As CTranslate2's."""
        results = self._wrapped.align(encoder_output, start_sequence, text_tokens, *args, **kwargs)
        for tokens, result in zip(text_tokens, results, strict=True):
            self._tokens += tokens
            self._probabilities += result.text_token_probs[: len(tokens)]
        return results

    def logprobs(self, segment_tokens: Sequence[int], tokenizer: Tokenizer) -> tuple[TokenLogprob, ...]:
        """Those of the next segment's text. faster-whisper may have dropped segments of no length before it."""
        end_of_text = tokenizer.token_to_id("<|endoftext|>")
        assert end_of_text is not None, "every Whisper has this token"
        wanted = [token for token in segment_tokens if token < end_of_text]
        for start in range(len(self._tokens) - len(wanted) + 1):
            end = start + len(wanted)
            if self._tokens[start:end] == wanted:
                probabilities = self._probabilities[start:end]
                del self._tokens[:end], self._probabilities[:end]
                return tuple(map(functools.partial(_logprob, tokenizer=tokenizer), wanted, probabilities))
        raise AssertionError("faster-whisper returned a segment that it has not aligned")


def _logprob(token: int, probability: float, *, tokenizer: Tokenizer) -> TokenLogprob:
    characters = _byte_of_character()
    raw = bytes(characters[character] for character in tokenizer.id_to_token(token) or "")
    return TokenLogprob(raw.decode("utf-8", errors="replace"), list(raw), round(math.log(max(probability, FLOOR)), 6))


@functools.cache
def _byte_of_character() -> dict[str, int]:
    """GPT-2's vocabulary writes each byte as a printable character: itself if it is one, else one from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}
