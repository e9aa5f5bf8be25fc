"""Normalised text: what counts as the same words, and what counts as a word.

    normalize("Mr. Smith's 3 dogs...", "en")      # "mister smith is 3 dogs ..."

OpenAI's normalisers, from the package whisper-normalizer: the English one for English, the basic one otherwise.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer

PACKAGE = "whisper-normalizer"
NO_SPACES = frozenset({"zh", "yue", "ja", "th", "lo", "my", "km"})
"""Languages written without spaces: those of the Whisper paper (appendix C), Cantonese and Khmer."""


def normalize(text: str, language: str) -> str:
    """`text` in lower case, without punctuation, one space between words."""
    return " ".join(_normalizer("en" if language == "en" else "")(text).split())


def words_of(normalized: str) -> list[str]:
    """The words that stand for something said: those with a letter or a digit. The normaliser leaves a lone "." be."""
    return [word for word in normalized.split() if any(character.isalnum() for character in word)]


def has_spaces(language: str) -> bool:
    """Whether words of a language are written apart; where they are not, errors are counted in characters."""
    return language not in NO_SPACES


def is_lexical(word: str) -> bool:
    """Whether a word is written in letters."""
    return any(character.isalpha() for character in word)


def describe_normalizer() -> dict[str, str]:
    """For the report."""
    return {"package": PACKAGE, "version": version(PACKAGE), "en": "EnglishTextNormalizer", "*": "BasicTextNormalizer"}


@functools.cache
def _normalizer(language: str) -> Callable[[str], str]:
    normalizer: Any = EnglishTextNormalizer() if language == "en" else BasicTextNormalizer()
    return normalizer
