from __future__ import annotations

import pytest

from steer_asr_benchmarks.text import describe_normalizer, is_lexical, normalize, words_of


@pytest.mark.parametrize(
    ("text", "language", "normal"),
    [
        ("  Mr. Smith's, um, COLOUR! ", "en", "mister smith is color"),
        ("Ça va, Élodie ?", "fr", "ça va élodie"),
        ("[Music] (laughs)", "en", ""),
        ("um, hmm", "en", ""),
        ("um", "de", "um"),
        ("♪ ♪", "en", ""),
        ("", "", ""),
    ],
)
def test_normalize(text: str, language: str, normal: str) -> None:
    assert normalize(text, language) == normal


def test_punctuation_that_the_normaliser_lets_through_is_no_word() -> None:
    assert normalize("... £", "en") != ""
    assert words_of(normalize("... £", "en")) == []
    assert words_of(normalize("It cost $10.", "en")) == ["it", "cost", "$10"]


def test_lexical_words_have_letters() -> None:
    assert [is_lexical(word) for word in ("you", "10", "3d", "спасибо")] == [True, False, True, True]


def test_the_normaliser_is_stated() -> None:
    stated = describe_normalizer()
    assert stated["en"] == "EnglishTextNormalizer"
    assert stated["version"][0].isdigit()
