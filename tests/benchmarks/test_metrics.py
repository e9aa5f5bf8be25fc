from __future__ import annotations

from dataclasses import replace

import pytest

from steer_asr_benchmarks.metrics import (
    cost_metrics,
    difference_metrics,
    nonspeech_metrics,
    speech_metrics,
    steering_metrics,
    word_metrics,
)
from steer_asr_benchmarks.scoring import TextCame, WordCounts
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
        "latency_p50_s": 3.0,
        "latency_p95_s": pytest.approx(4.8),
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
    assert found["hallucination_rate_r"] == {"clips": 2, "difference": -0.5, "ci": (-1.0, 0.0)}
    assert found["wer"]["clips"] == 2
    assert found["wer"]["difference"] == pytest.approx((3 - 1) / 20)
    assert found["wer"]["ci"] == pytest.approx((-0.1, 0.3)), "both groups the same: -1/10 twice or 3/10 twice"


def test_a_system_that_changes_nothing_differs_by_nothing() -> None:
    scores = {s.clip: s for s in [quiet_score("a", 1), quiet_score("b"), speech_score("c", WordCounts(hits=2))]}
    found = difference_metrics(scores, scores)
    assert found["changed_texts"] == 0
    assert found["hallucination_rate_r"] == {"clips": 2, "difference": 0.0, "ci": (0.0, 0.0)}
    assert found["wer"] == {"clips": 1, "difference": 0.0, "ci": None}
    assert difference_metrics({}, {})["wer"]["difference"] is None
