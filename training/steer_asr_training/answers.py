"""What stock Whisper writes: the answers that steering must leave alone on speech.

    answers = stock_answers(store, indices, "path/to/ct2-dir")      # {window: {"plain": tokens, "timestamps": tokens}}

No transcripts are needed for learning an edit: on speech the target is the model's own greedy output, in every mode.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import ctranslate2
import numpy as np
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import get_suppressed_tokens
from tokenizers import Tokenizer as HfTokenizer

from steer_asr._progress import Progress
from steer_asr.hooks import OUTPUT_HOOK_POINT
from steer_asr_training.store import ActivationStore

BATCH = 8
MAX_TOKENS = 120
MAX_COMPRESSION_RATIO = 2.4
"""faster-whisper's own limit; an answer above it is a loop and teaches nothing worth keeping."""
MODES = {"plain": False, "timestamps": True}


class GreedyDecoder:
    """Greedy decoding of encoder outputs by CTranslate2, as faster-whisper would do it at beam 1, temperature 0."""

    def __init__(self, folder: Path, *, suppress_blank: bool, compute_type: str = "float32", threads: int = 0) -> None:
        self.model = ctranslate2.models.Whisper(str(folder), compute_type=compute_type, intra_threads=threads)
        self.suppress_blank = suppress_blank
        self._tokenizer = HfTokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokens = self.tokenizer("en")
        self._suppressed = list(get_suppressed_tokens(self.tokens, (-1,)) or ())

    def tokenizer(self, lang: str) -> Tokenizer:
        multilingual = self.model.is_multilingual
        return Tokenizer(self._tokenizer, multilingual, task="transcribe", language=lang if multilingual else "en")

    def __call__(self, x: np.ndarray, langs: Sequence[str], *, timestamps: bool) -> list[list[int]]:
        """Tokens for each row of `x`, float32 [batch, frame, d_model]; rows of one batch may differ in language."""
        prompts = []
        for lang in langs:
            tokens = self.tokenizer(lang)
            prompts.append(tokens.sot_sequence + ([] if timestamps else [tokens.no_timestamps]))
        results = self.model.generate(
            ctranslate2.StorageView.from_array(np.ascontiguousarray(x, dtype=np.float32)),
            prompts,
            beam_size=1,
            max_length=MAX_TOKENS + len(prompts[0]),
            suppress_blank=self.suppress_blank,
            suppress_tokens=self._suppressed,
        )
        return [result.sequences_ids[0] for result in results]

    def text(self, tokens: Sequence[int]) -> str:
        return self.tokens.decode(list(tokens)).strip()


def stock_answers(store: ActivationStore, indices: Sequence[int], folder: Path) -> dict[int, dict[str, list[int]]]:
    """Greedy tokens of the unsteered model per window and mode; windows that are empty or loop are left out."""
    decoder = GreedyDecoder(folder, suppress_blank=True)
    answers: dict[int, dict[str, list[int]]] = {}
    with Progress(total=len(indices), unit="window", label="stock answers") as progress:
        for start in range(0, len(indices), BATCH):
            chunk = list(indices[start : start + BATCH])
            x = np.stack([store.window(i, OUTPUT_HOOK_POINT) for i in chunk])
            langs = [store.windows[i]["lang"] or "en" for i in chunk]
            found = {name: decoder(x, langs, timestamps=timestamps) for name, timestamps in MODES.items()}
            for row, i in enumerate(chunk):
                if all(_usable(decoder, found[name][row]) for name in MODES):
                    answers[i] = {name: found[name][row] for name in MODES}
            progress.advance(len(chunk))
    return answers


def _usable(decoder: GreedyDecoder, tokens: Sequence[int]) -> bool:
    text = decoder.text(tokens).encode("utf-8")
    return bool(text) and len(tokens) < MAX_TOKENS and len(text) / len(zlib.compress(text)) <= MAX_COMPRESSION_RATIO
