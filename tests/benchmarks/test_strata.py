from __future__ import annotations

from typing import Any

import pytest

from steer_asr_benchmarks.loops import has_loop
from steer_asr_benchmarks.mixed import OutsideCounts, outside_counts
from steer_asr_benchmarks.scoring import WordCounts, score_record
from steer_asr_benchmarks.strata import strata
from tests.benchmarks.builders import quiet_score, record, segment, speech_score


@pytest.mark.parametrize(
    ("text", "loops"),
    [
        ("thank you thank you thank you", True),
        ("so thank you thank you", False),
        ("no no no no", False),
        ("well no no no no no", True),
        ("a b c a b c a b c", True),
        ("a b c a b c a b", False),
        ("one two three four five six seven eight nine ten " * 3, True),
        ("the cat and the dog and the cow and the pig", False),
        ("", False),
    ],
)
def test_loops(text: str, loops: bool) -> None:
    assert has_loop(text.split()) is loops


def timed(start: float, end: float, text: str) -> dict[str, Any]:
    return segment(text) | {"start": start, "end": end}


def test_words_outside_of_speech_by_hand() -> None:
    segments = [
        timed(0.0, 4.0, "thanks for watching everyone"),  # middles 0.5, 1.5, 2.5, 3.5
        timed(10.0, 12.0, "hello there"),
        timed(12.4, 14.4, "good bye"),  # 12.9 and 13.9: the first is within half a second
    ]
    found = outside_counts(segments, [(3.5, 4.0), (10.0, 12.4)], 20.0, lambda text: len(text.split()))
    assert (found.words, found.seconds) == (4, pytest.approx(17.1))
    assert outside_counts([], [(1.0, 2.0)], 20.0, len) == OutsideCounts(0, 19.0)


def test_a_mixed_record_is_placed_and_others_are_not() -> None:
    mixed = record(timed(0, 1, " you"), timed(4, 5, " hello"), kind="mixed", spans=[[4.0, 5.0]], reference="hello")
    assert score_record("here", mixed).outside == OutsideCounts(1, 5.0)
    assert score_record("here", mixed | {"spans": []}).outside is None
    assert score_record("here", record(timed(0, 1, " you"))).outside is None
    old = {key: value for key, value in mixed.items() if key not in ("spans", "snr_db")}
    assert score_record("here", old).outside is None, "predictions of an older version"


def test_languages_without_spaces_count_characters() -> None:
    japanese = record(segment("\u732b\u3068\u5c71"), kind="speech", lang="ja", reference="\u732b\u3068\u72ac\u3002")
    found = score_record("here", japanese)
    assert found.wer_counts is None
    assert found.cer_counts == WordCounts(hits=2, substitutions=1)
    english = score_record("here", record(segment(" a"), kind="speech", lang="en", reference="a b"))
    assert english.cer_counts is None
    assert english.wer_counts == WordCounts(hits=1, deletions=1)


def test_strata_by_hand() -> None:
    scores = [
        quiet_score("a", 2, label="rain", category="nature", duration_s=0.2),
        quiet_score("b", label="fan", category="machine", duration_s=0.3),
        speech_score("c", WordCounts(hits=3, deletions=1), snr_db=10.0, duration_s=31.0),
        speech_score("d", WordCounts(hits=4), snr_db=-5.0, duration_s=2.5),
        speech_score("e", WordCounts(deletions=4), snr_db=-5.0, words=0, duration_s=2.5),
    ]
    found = strata(scores)
    assert list(found) == ["by_source", "by_label", "by_category", "by_snr", "by_duration"]
    assert found["by_label"]["rain"]["nonspeech"]["clips_with_text"] == 1
    assert list(found["by_label"]) == ["fan", "rain"], "speech here has no label"
    assert found["by_category"]["machine"]["nonspeech"]["hallucination_rate"]["r"] == 0.0
    assert list(found["by_snr"]) == ["-5 dB", "10 dB"]
    assert found["by_snr"]["-5 dB"]["speech"]["missed_speech_rate"] == 0.5
    assert found["by_snr"]["10 dB"]["speech"]["wer"] == 0.25
    assert list(found["by_duration"]) == ["0-0.3 s", "0.3-1 s", "2-5 s", "30+ s"]
    assert found["by_duration"]["2-5 s"]["speech"]["clips"] == 2
    assert found["by_duration"]["30+ s"].keys() == {"speech"}
    assert strata([]) == dict.fromkeys(found, {})


def test_many_different_snrs_go_into_bins() -> None:
    scores = [speech_score(str(i), WordCounts(hits=1), snr_db=i + 0.1) for i in range(20)]
    assert list(strata(scores)["by_snr"]) == ["0 dB", "5 dB", "10 dB", "15 dB", "20 dB"]
    assert list(strata(scores[:3])["by_snr"]) == ["0.1 dB", "1.1 dB", "2.1 dB"]
