from __future__ import annotations

from typing import Any

import pytest

from steer_asr.errors import ManifestError
from steer_asr_benchmarks.scoring import ClipScore, TextCame, WordCounts, score_record
from tests.benchmarks.builders import record, segment, window


def score(*segments: dict[str, Any], **overrides: Any) -> ClipScore:
    return score_record("here:1", record(*segments, **overrides))


def came(**true: bool) -> TextCame:
    return TextCame(**dict.fromkeys("rwpdf", False) | true)


def test_null_case_no_text_no_window() -> None:
    nothing = score(windows=[])
    assert nothing.came == came()
    assert (nothing.words, nothing.wer_counts) == (0, None)


@pytest.mark.parametrize(
    ("segments", "expected"),
    [
        # sure of its text, and no sign of silence: everything counts
        ([segment(" Thank you.", 0.1, -0.3)], came(r=True, w=True, p=True, d=True, f=True)),
        # probably silence, text improbable: Whisper would drop it, F too
        ([segment(" you", 0.9, -1.5)], came(r=True, w=True)),
        # probably silence, but the text is probable: Whisper keeps it, F does not
        ([segment(" you", 0.9, -0.5)], came(r=True, w=True, d=True)),
        # between P's threshold and the others'
        ([segment(" you", 0.55, -2.0)], came(r=True, w=True, d=True, f=True)),
        # at the rule's own threshold: faster-whisper drops what is above it
        ([segment(" you", 0.6, -2.0)], came(r=True, w=True, f=True)),
        # digits are text but no word in letters
        ([segment(" 10", 0.1)], came(r=True, p=True, d=True, f=True)),
        # nothing that is left after normalisation is text
        ([segment(" ..."), segment(" ♪"), segment(" [Music]")], came(p=True)),
        # the rules look at each segment; one that stays is enough
        ([segment(" a", 0.9, -2.0), segment(" b", 0.2, -2.0)], came(r=True, w=True, p=True, d=True, f=True)),
        ([segment(" ...", 0.2), segment(" b", 0.9, -2.0)], came(r=True, w=True, p=True)),
    ],
)
def test_definitions_of_text(segments: list[dict[str, Any]], expected: TextCame) -> None:
    assert score(*segments).came == expected


def test_p_looks_at_windows_without_text() -> None:
    assert score(windows=[window(0.9), window(0.49)]).came == came(p=True)
    assert score(windows=[window(0.5)]).came == came()


def test_words_are_counted_after_normalisation() -> None:
    assert score(segment(" Thank you."), segment(" Um... 20,000!")).words == 3


def speech(reference: str, text: str, **overrides: Any) -> ClipScore:
    return score(segment(text), kind="speech", reference=reference, lang="en", **overrides)


def test_word_errors_by_hand() -> None:
    # the quick brown fox jumps      high
    # the       brown box jumps very high: "quick" deleted, fox -> box, "very" inserted
    found = speech("The quick brown fox jumps high.", "the brown box jumps very high").wer_counts
    assert found == WordCounts(hits=4, substitutions=1, deletions=1, insertions=1)
    assert found is not None
    assert (found.words, found.errors) == (6, 3)


def test_word_errors_null_cases() -> None:
    assert speech("Mr. Dog", "mister dog!").wer_counts == WordCounts(hits=2)
    assert speech("cat dog mouse", "").wer_counts == WordCounts(deletions=3)
    assert sum([WordCounts(1, 2, 3, 4), WordCounts(1, 1, 1, 1)], WordCounts()) == WordCounts(2, 3, 4, 5)


def test_what_has_no_say_in_wer() -> None:
    assert speech("um", "um").wer_counts is None, "nothing is left of the reference"
    assert speech("", "you").wer_counts is None
    assert speech("cat", "dog", label="likely-verbatim").wer_counts is None
    assert score(segment("you"), reference="cat").wer_counts is None, "non-speech"


@pytest.mark.parametrize(
    ("lang", "language", "forced", "counts"),
    [
        ("en", "en", True, True),
        ("fr", "en", True, False),  # French decoded as English by order
        ("fr", "fr", True, True),
        ("fr", "en", False, True),  # detection was wrong: that is the system's error
        ("", "en", True, True),
        ("", "en", False, True),
    ],
)
def test_the_headline_has_the_languages_that_were_asked_for(
    lang: str, language: str, forced: bool, counts: bool
) -> None:
    found = score(segment("a"), kind="speech", reference="a", lang=lang, language=language, language_forced=forced)
    assert found.in_headline is counts
    assert found.wer_counts == WordCounts(hits=1)


def test_the_clips_language_chooses_the_normaliser() -> None:
    # "um" is a filler in English and a word elsewhere
    assert score(segment("um"), lang="pt").words == 1
    assert score(segment("um"), lang="en").words == 0
    assert score(segment("um")).words == 0, "none given: the forced one"
    assert score(segment("um"), language_forced=False).words == 1, "detected ones differ between systems"


def test_a_broken_record_is_named() -> None:
    broken = record(segment("a"))
    del broken["windows"]
    with pytest.raises(ManifestError, match=r"here:1: not a prediction \(KeyError: 'windows'\)"):
        score_record("here:1", broken)
    with pytest.raises(ManifestError, match="here:1"):
        score_record("here:1", record(text=None))
