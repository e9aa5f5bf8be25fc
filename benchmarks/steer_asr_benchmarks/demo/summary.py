"""What the comparison comes to, in two sentences.

for sentence in summarize(comparisons): print(sentence)
"""

from __future__ import annotations

from collections.abc import Sequence

import jiwer

from steer_asr_benchmarks.demo.compare import Comparison
from steer_asr_benchmarks.text import normalize, words_of


def summarize(comparisons: Sequence[Comparison]) -> list[str]:
    """Clips without speech that got words, and word errors where somebody speaks; counted as the benchmark counts."""
    quiet = [c for c in comparisons if c.clip.kind == "nonspeech"]
    spoken = [c for c in comparisons if c.clip.text]
    sentences = []
    if quiet:
        stock, steered = (sum(map(_has_words, texts)) for texts in _texts(quiet))
        sentences.append(
            f"Nobody speaks in {len(quiet)} of the clips: stock Whisper writes words on {stock} of them, "
            f"steered Whisper on {steered or 'none'}."
        )
    if spoken:
        references = [normalize(c.clip.text, "en") for c in spoken]
        stock, steered = (_errors(references, texts) for texts in _texts(spoken))
        n_words = sum(len(reference.split()) for reference in references)
        sentences.append(
            f"Somebody speaks {n_words} words in the others: stock Whisper makes {stock} word errors "
            f"(wrong, missing or added), steered Whisper {steered or 'none'}."
        )
    return sentences


def _texts(comparisons: Sequence[Comparison]) -> tuple[list[str], list[str]]:
    return [c.stock_text for c in comparisons], [c.steered_text for c in comparisons]


def _has_words(text: str) -> bool:
    return bool(words_of(normalize(text, "en")))


def _errors(references: list[str], texts: list[str]) -> int:
    counts = jiwer.process_words(references, [normalize(text, "en") for text in texts])
    return counts.substitutions + counts.deletions + counts.insertions
