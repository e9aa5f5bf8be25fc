from __future__ import annotations

from dataclasses import replace

import pytest

from steer_asr_benchmarks.metrics import (
    cost_metrics,
    cost_of_errors,
    difference_metrics,
    mixed_metrics,
    nonspeech_metrics,
    speech_metrics,
    steering_metrics,
    word_metrics,
)
from steer_asr_benchmarks.mixed import OutsideCounts
from steer_asr_benchmarks.scoring import ClipScore, TextCame, WordCounts
from steer_asr_benchmarks.stats import wilson
from tests.benchmarks.builders import quiet_score, speech_score


def test_nonspeech_by_hand() -> None:
    digits = TextCame(r=True, w=False, p=True, d=False, f=False)
    scores = [quiet_score("a", 3), quiet_score("b", 1, came=digits), quiet_score("c"), quiet_score("d", group="c")]
    found = nonspeech_metrics(scores)
    assert (found["clips"], found["groups"], found["clips_with_text"], found["words"]) == (4, 3, 2, 4)
    assert found["hallucination_rate"] == {"r": 0.5, "w": 0.25, "p": 0.5, "d": 0.25, "f": 0.25}
    assert found["words_per_min"] == 10.0, "4 words in 4 clips of 6 s"
    assert found["ci"]["r"] == wilson(2, 4)
    assert found["ci"]["f"] == wilson(1, 4)


def test_nonspeech_null_cases() -> None:
    silent = nonspeech_metrics([quiet_score("a"), quiet_score("b")])
    assert silent["hallucination_rate"] == dict.fromkeys("rwpdf", 0.0)
    assert silent["words_per_min"] == 0.0
    nothing = nonspeech_metrics([])
    assert nothing["hallucination_rate"] == dict.fromkeys("rwpdf")
    assert nothing["words_per_min"] is None
    assert nothing["ci"]["r"] is None


def test_wer_is_pooled_not_averaged() -> None:
    # 1 of 1 word wrong and 0 of 9: pooled 10 %, the mean over clips would be 50 %
    found = word_metrics([speech_score("a", WordCounts(substitutions=1)), speech_score("b", WordCounts(hits=9))])
    assert found["wer"] == 0.1
    assert (found["words"], found["substitutions"], found["deletions"], found["insertions"]) == (10, 1, 0, 0)
    assert found["wer_clips"] == 2
    assert found["ci"]["wer"] is not None


def test_wer_can_exceed_one_and_is_none_without_words() -> None:
    assert word_metrics([speech_score("a", WordCounts(hits=1, insertions=3))])["wer"] == 3.0
    assert word_metrics([speech_score("a", None)])["wer"] is None
    assert word_metrics([]) == {
        "wer_clips": 0,
        "wer_groups": 0,
        "wer_languages": [],
        "words": 0,
        "wer": None,
        "substitutions": 0,
        "deletions": 0,
        "insertions": 0,
        "cer_clips": 0,
        "characters": 0,
        "cer": None,
        "ci": {"wer": None},
    }


def test_speech_by_hand() -> None:
    stock = {
        "a": speech_score("a", WordCounts(hits=4)),
        "b": speech_score("b", WordCounts(hits=4)),
        "c": speech_score("c", WordCounts(deletions=4)),
        "d": speech_score("d", None),
    }
    ours = [
        speech_score("a", WordCounts(hits=3, deletions=1)),
        speech_score("b", WordCounts(deletions=4)),  # newly empty
        speech_score("c", WordCounts(deletions=4)),  # was empty before
        speech_score("d", None, in_headline=False),
    ]
    found = speech_metrics(ours, stock)
    assert (found["clips"], found["missed"], found["newly_empty"]) == (4, 2, 1)
    assert (found["missed_speech_rate"], found["newly_empty_rate"]) == (0.5, 0.25)
    assert (found["wer_clips"], found["wer"]) == (3, 0.75)
    assert found["ci"]["newly_empty_rate"] == wilson(1, 4)
    assert found["ci"]["missed_speech_rate"] == wilson(2, 4)


def test_speech_in_another_language_counts_as_missed_but_not_in_the_headline_wer() -> None:
    french = speech_score("a", WordCounts(deletions=2), in_headline=False, lang="fr")
    found = speech_metrics([french], None)
    assert (found["missed"], found["wer_clips"], found["wer"]) == (1, 0, None)
    assert "newly_empty" not in found, "the reference itself"


def test_cost_by_hand() -> None:
    scores = [quiet_score(str(i), seconds=float(s)) for i, s in enumerate((1, 2, 3, 4, 5))]
    assert cost_metrics(scores) == {
        "audio_s": 30.0,
        "work_s": 15.0,
        "rtf": 0.5,
        "rtfx": 2.0,
        "latency_p50_s": 3.0,
        "latency_p95_s": pytest.approx(4.8),
        "peak_rss_bytes": None,
        "measured_alone": False,
    }
    assert cost_metrics([])["rtf"] is None
    assert cost_metrics([])["latency_p50_s"] is None


def test_steering_means_by_kind() -> None:
    scores = [
        quiet_score("a", edited_share=1.0, nobody_speaks=0.9),
        quiet_score("b", edited_share=0.5, nobody_speaks=None),
        speech_score("c", None, edited_share=0.0, nobody_speaks=0.1),
    ]
    assert steering_metrics(scores) == {
        "edited_share": {"nonspeech": 0.75, "speech": 0.0},
        "nobody_speaks": {"nonspeech": 0.9, "speech": 0.1},
    }
    assert steering_metrics([quiet_score("a")]) is None


def test_differences_by_hand() -> None:
    stock = [
        quiet_score("q1", 2),
        quiet_score("q2", 1),
        quiet_score("only stock", 1),
        speech_score("s1", WordCounts(hits=10)),
        speech_score("s2", WordCounts(hits=8, substitutions=2)),
        speech_score("french", WordCounts(hits=5), in_headline=False),
    ]
    ours = [
        quiet_score("q1"),
        stock[1],
        speech_score("s1", WordCounts(hits=7, deletions=3)),
        speech_score("s2", WordCounts(hits=9, substitutions=1), text="other words"),
        replace(stock[5], wer_counts=WordCounts(deletions=5)),
    ]
    found = difference_metrics({s.clip: s for s in ours}, {s.clip: s for s in stock})
    assert (found["clips"], found["changed_texts"]) == (5, 3)
    assert not found["unchanged"]
    assert found["hallucination_rate_r"] == {
        **{"clips": 2, "difference": -0.5, "ci": (-1.0, 0.0)},
        **{"only_ours": 0, "only_theirs": 1, "mcnemar_p": 1.0},
    }
    assert found["missed_speech_rate"]["difference"] == 0.0
    assert found["wer"]["clips"] == 2
    assert found["wer"]["difference"] == pytest.approx((3 - 1) / 20)
    assert found["wer"]["ci"] == pytest.approx((-0.1, 0.3)), "both groups the same: -1/10 twice or 3/10 twice"


def test_a_system_that_changes_nothing_differs_by_nothing() -> None:
    scores = {s.clip: s for s in [quiet_score("a", 1), quiet_score("b"), speech_score("c", WordCounts(hits=2))]}
    found = difference_metrics(scores, scores)
    assert found["changed_texts"] == 0
    assert found["unchanged"]
    assert found["hallucination_rate_r"] == {
        **{"clips": 2, "difference": 0.0, "ci": (0.0, 0.0)},
        **{"only_ours": 0, "only_theirs": 0, "mcnemar_p": 1.0},
    }
    assert found["wer"] == {"clips": 1, "difference": 0.0, "ci": None}
    assert difference_metrics({}, {})["wer"]["difference"] is None
    assert difference_metrics({}, {})["hallucination_rate_r"]["mcnemar_p"] is None


def test_mcnemar_counts_the_clips_that_changed_sides() -> None:
    stock = [quiet_score(str(i), words=int(i < 9)) for i in range(20)]
    ours = [quiet_score(str(i), words=int(i == 19)) for i in range(20)]
    found = difference_metrics({s.clip: s for s in ours}, {s.clip: s for s in stock})["hallucination_rate_r"]
    assert (found["only_ours"], found["only_theirs"]) == (1, 9)
    assert found["mcnemar_p"] == pytest.approx(22 / 1024), "0 or 1 of 10 heads, or tails"


def test_loop_rates() -> None:
    scores = [quiet_score("a", 9, loops=True), quiet_score("b", 1), quiet_score("c")]
    assert nonspeech_metrics(scores)["loop_rate"] == pytest.approx(1 / 3)
    assert nonspeech_metrics([])["loop_rate"] is None
    spoken = [speech_score("a", WordCounts(hits=1), loops=True), speech_score("b", WordCounts(hits=1))]
    assert speech_metrics(spoken, None)["loop_rate"] == 0.5
    assert speech_metrics([], None)["loop_rate"] is None


def test_characters_are_counted_apart_from_words() -> None:
    japanese = speech_score("a", None, cer_counts=WordCounts(hits=8, substitutions=1, deletions=1), lang="ja")
    found = word_metrics([japanese, speech_score("b", WordCounts(hits=4))])
    assert (found["cer"], found["characters"], found["cer_clips"]) == (0.2, 10, 1)
    assert (found["wer"], found["words"], found["wer_clips"]) == (0.0, 4, 1)


def test_mixed_by_hand() -> None:
    def recording(clip: str, words: int, counts: WordCounts) -> ClipScore:
        return speech_score(clip, counts, kind="mixed", outside=OutsideCounts(words, 90.0))

    stock = [recording("a", 12, WordCounts(hits=8, insertions=12)), recording("b", 3, WordCounts(hits=2))]
    ours = [recording("a", 0, WordCounts(hits=7, deletions=1)), recording("b", 3, WordCounts(hits=2))]
    found = mixed_metrics(stock)
    assert (found["words_outside"], found["nonspeech_minutes"], found["words_outside_per_min"]) == (15, 3.0, 5.0)
    assert found["ci"]["words_outside_per_min"] == (2.0, 8.0), "two groups: 3 words twice in 3 minutes, or 12 twice"
    assert (found["wer"], found["deletion_rate"]) == (1.2, 0.0)
    assert mixed_metrics(ours)["deletion_rate"] == 0.1
    change = difference_metrics({s.clip: s for s in ours}, {s.clip: s for s in stock})["words_outside_per_min"]
    assert (change["clips"], change["difference"]) == (2, -4.0)
    unplaced = mixed_metrics([speech_score("a", WordCounts(hits=1), kind="mixed")])
    assert (unplaced["words_outside_per_min"], unplaced["ci"]["words_outside_per_min"]) == (None, None)
    assert mixed_metrics([])["words_outside_per_min"] is None


def test_cost_of_errors_by_hand() -> None:
    quiet = [quiet_score("a", 2), quiet_score("b")]  # 2 words in 12 s: 10 a minute
    spoken = [speech_score("c", WordCounts(hits=4, deletions=1)), speech_score("d", WordCounts(hits=5))]  # 5 a minute
    found = cost_of_errors(quiet + spoken)
    assert (found["fabricated_words_per_min"], found["deleted_words_per_min"]) == (10.0, 5.0)
    assert found["c_kappa"] == {"1": 15.0, "2": 20.0, "5": 35.0, "10": 60.0}
    assert set(cost_of_errors(quiet)["c_kappa"].values()) == {None}
