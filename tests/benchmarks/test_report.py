from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from steer_asr.errors import ManifestError, OutputError
from steer_asr_benchmarks.mixed import OutsideCounts
from steer_asr_benchmarks.predictions import PredictionLog
from steer_asr_benchmarks.report import build_report, report_on, write_report
from steer_asr_benchmarks.scoring import ClipScore, WordCounts
from steer_asr_benchmarks.table import markdown, summary
from tests.benchmarks.builders import quiet_score, record, segment, speech_score

RUN: dict[str, Any] = {
    "schema_version": 1,
    "git_sha": "abc",
    "versions": {"steer_asr": "0"},
    "model": {"name": "base", "sha256": "d" * 64, "compute_type": "float32", "device": "cpu"},
    "decoding": {"language": "en", "beam_size": 1, "temperature": 0.0, "modes": ["no_timestamps", "timestamps"]},
    "data": {"manifests": [], "limit": None, "clips": 3},
    "systems": {
        "stock": {"suppress_blank": True},
        "steered": {"suppress_blank": False, "strength": 0.5, "pack": {"name": "base", "sha256": "e" * 64}},
    },
}


def scores() -> list[ClipScore]:
    stock = [
        quiet_score("q1", 2),
        quiet_score("q2", 1, source="fan"),
        speech_score("s1", WordCounts(hits=9, deletions=1)),
    ]
    steered = [
        replace(quiet_score("q1"), system="steered", edited_share=0.9),
        replace(stock[1], system="steered", edited_share=0.5),
        speech_score("s1", WordCounts(hits=10), system="steered", edited_share=0.0, text="other"),
    ]
    both = stock + steered
    return both + [replace(score, mode="no_timestamps", words=0) for score in both]


def test_keys_are_the_documented_ones() -> None:
    report = report_on(scores(), RUN)
    assert list(report) == [
        *("schema_version", "git_sha", "versions", "model", "pack", "decoding", "data", "scoring", "progress"),
        *("systems", "differences", "by_mode"),
    ]
    steered = report["systems"]["steered"]
    assert report["schema_version"] == 2
    assert list(steered) == [
        *("nonspeech", "speech", "mixed", "cost_of_errors"),
        *("by_source", "by_label", "by_category", "by_snr", "by_duration"),
        *("top_strings", "worst", "cost", "steering", "gate", "options"),
    ]
    assert steered["nonspeech"].keys() >= {"clips", "hallucination_rate", "words_per_min", "ci"}
    assert steered["speech"].keys() >= {
        *("clips", "words", "wer", "substitutions", "deletions", "insertions"),
        *("missed_speech_rate", "newly_empty_rate", "ci", "by_language"),
    }
    assert steered["cost"].keys() >= {"rtf", "latency_p50_s", "latency_p95_s"}
    assert report["pack"] == {"name": "base", "sha256": "e" * 64, "strength": 0.5}


def test_systems_and_modes_stand_in_the_order_of_the_run_and_the_first_mode_on_top() -> None:
    report = report_on(scores(), RUN)
    assert list(report["by_mode"]) == ["no_timestamps", "timestamps"]
    assert list(report["systems"]) == ["stock", "steered"]
    assert report["systems"] == report["by_mode"]["no_timestamps"]["systems"]
    assert report["systems"]["stock"]["speech"]["missed"] == 1
    assert report["by_mode"]["timestamps"]["systems"]["stock"]["speech"]["missed"] == 0


def test_numbers_by_hand() -> None:
    found = report_on(scores(), RUN)["by_mode"]["timestamps"]
    stock, steered = found["systems"]["stock"], found["systems"]["steered"]
    assert stock["nonspeech"]["hallucination_rate"]["r"] == 1.0
    assert steered["nonspeech"]["hallucination_rate"]["r"] == 0.5
    assert (stock["speech"]["wer"], steered["speech"]["wer"]) == (0.1, 0.0)
    assert stock["by_source"]["fan"] == {"nonspeech": stock["by_source"]["fan"]["nonspeech"]}
    assert stock["by_source"]["fan"]["nonspeech"]["clips"] == 1
    assert stock["by_source"]["books"]["speech"]["wer"] == 0.1
    assert stock["speech"]["by_language"]["en"]["words"] == 10
    assert steered["steering"]["edited_share"] == {"nonspeech": 0.7, "speech": 0.0}
    assert stock["steering"] is None
    change = found["differences"]["steered"]
    assert (change["to"], change["changed_texts"]) == ("stock", 2)
    assert change["hallucination_rate_r"]["difference"] == -0.5
    assert change["wer"]["difference"] == -0.1


def test_the_order_of_predictions_does_not_matter_to_a_run() -> None:
    shuffled = scores()
    random.Random(0).shuffle(shuffled)
    assert json.dumps(report_on(shuffled, RUN)) == json.dumps(report_on(scores(), RUN))


def test_an_unfinished_run_says_so() -> None:
    assert report_on(scores(), RUN)["progress"] == {"predictions": 12, "expected": 12, "complete": True}
    unfinished = report_on(scores()[:7], RUN)
    assert unfinished["progress"] == {"predictions": 7, "expected": 12, "complete": False}
    assert list(unfinished["by_mode"]["no_timestamps"]["systems"]) == ["stock"]
    assert "**Incomplete: 7 of 12 predictions.**" in markdown(unfinished)


def test_mixed_clips_count_in_neither_side() -> None:
    mixed = speech_score("m", WordCounts(hits=1, insertions=1), kind="mixed")
    system = report_on([mixed], {})["systems"]["stock"]
    assert (system["nonspeech"]["clips"], system["speech"]["clips"]) == (0, 0)
    assert (system["mixed"]["wer"], system["mixed"]["insertions"]) == (1.0, 1)


def test_table_by_eye() -> None:
    lines = markdown(report_on(scores(), RUN)).splitlines()
    start = lines.index("## timestamps")
    assert lines[start + 2] == (
        "2 non-speech clips (0.2 min), 1 speech clips, 1 of them in WER (10 words, 1 groups, en)."
    )
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start + 4 : start + 8]]
    assert len({len(row) for row in cells}) == 1
    assert cells[2] == [
        "stock",
        "100.0",
        "34.2 to 100.0",
        "100.0",
        "100.0",
        "15.0",
        "10.00",
        *"---",
        "0.00",
        "-",
        "0.083",
    ]
    assert cells[3][:2] + cells[3][6:10] == ["steered", "50.0", "0.00", "-", "-10.00", "-"]
    assert "steered: pack base (eeeeeeeeeeeeeee), strength 0.5." in lines


def test_predictions_alone_give_the_same_numbers(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps(RUN))
    with PredictionLog(tmp_path / "predictions.jsonl") as log:
        for mode in ("no_timestamps", "timestamps"):
            for system in ("stock", "steered"):
                log.append(record(segment(" you"), system=system, mode=mode))
                log.append(record(segment(" a"), clip="b", kind="speech", reference="a", system=system, mode=mode))
    with_run = build_report(tmp_path)
    write_report(with_run, tmp_path)
    (tmp_path / "run.json").unlink()
    alone = build_report(tmp_path)
    assert alone["model"] is None
    assert alone["progress"]["complete"] is None
    for mode, found in json.loads((tmp_path / "report.json").read_text())["by_mode"].items():
        for name, system in found["systems"].items():
            assert json.loads(json.dumps(alone["by_mode"][mode]["systems"][name])) == system | {"options": None}
    assert markdown(alone)
    assert (tmp_path / "report.md").read_text() == markdown(with_run)


def test_broken_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no predictions"):
        build_report(tmp_path)
    with PredictionLog(tmp_path / "predictions.jsonl") as log:
        log.append(record(duration_s="long"))
    with pytest.raises(ManifestError, match=r"predictions\.jsonl:1"):
        build_report(tmp_path)


def test_broken_run_file(tmp_path: Path) -> None:
    with PredictionLog(tmp_path / "predictions.jsonl") as log:
        log.append(record())
    for content in ("{", "[]", '{"systems": {}}'):
        (tmp_path / "run.json").write_text(content)
        with pytest.raises(OutputError, match=r"run\.json"):
            build_report(tmp_path)


def test_what_systems_write_is_shown() -> None:
    quiet = [quiet_score(f"q{i}", 2, normalized="thank you", text="Thank | you.") for i in range(3)]
    quiet += [quiet_score("q8", 9, normalized="you " * 9, text="you\n" * 400), quiet_score("q9")]
    spoken = [
        speech_score("s1", WordCounts(hits=1, deletions=4), reference="a b c d e", text="a"),
        speech_score("s2", WordCounts(hits=1)),
    ]
    stock = quiet + spoken
    ours = [replace(score, system="steered") for score in quiet[3:]]
    ours += [replace(spoken[0], system="steered", wer_counts=WordCounts(hits=5), text="a b c d e")]
    ours += [replace(spoken[1], system="steered", wer_counts=WordCounts(deletions=1), text="")]
    report = report_on(stock + ours, {})
    found = report["systems"]["stock"]
    assert found["top_strings"][0] == {"text": "thank you", "clips": 3}
    assert [clip["clip"] for clip in found["worst"]["nonspeech"]] == ["q8", "q0", "q1", "q2"]
    assert len(found["worst"]["nonspeech"][0]["text"]) == 300
    assert [(clip["clip"], clip["excess_errors"]) for clip in found["worst"]["speech"]] == [("s1", 4)]
    worst = report["systems"]["steered"]["worst"]["speech"]
    assert [(clip["clip"], clip["excess_errors"]) for clip in worst] == [("s2", 1)], "more errors than the first system"
    text = markdown(report, pictures=["pareto"])
    assert "![pareto](pareto.png)" in text
    assert "Thank \\| you." in text
    assert "| thank you " in text


def test_a_system_that_changed_nothing_is_called_out() -> None:
    stock = [score for score in scores() if score.system == "stock"]
    report = report_on(stock + [replace(score, system="steered") for score in stock], RUN)
    assert report["differences"]["steered"]["unchanged"]
    assert "steered changed nothing" in markdown(report)
    assert "changed nothing" not in markdown(report_on(scores(), RUN))


def test_mixed_recordings_get_a_table_of_their_own() -> None:
    one = speech_score("m", WordCounts(hits=4), kind="mixed", outside=OutsideCounts(3, 90.0))
    text = markdown(report_on([one], {}))
    assert "1 mixed recordings, 1.5 min of non-speech in them." in text
    assert "missed %" not in text, "no table of clips that are not there"
    row = next(line for line in text.splitlines() if line.startswith("| stock") and "2.00" in line)
    assert [cell.strip() for cell in row.strip("|").split("|")][1] == "2.00"


def test_measured_costs_beat_those_of_the_run(tmp_path: Path) -> None:
    with PredictionLog(tmp_path / "predictions.jsonl") as log:
        log.append(record(segment(" you")))
    assert build_report(tmp_path)["systems"]["stock"]["cost"]["peak_rss_bytes"] is None
    cost = {"systems": {"stock": {"timestamps": {"rtf": 0.25, "peak_rss_bytes": 2**30}}, "gone": {"timestamps": {}}}}
    (tmp_path / "cost.json").write_text(json.dumps(cost))
    found = build_report(tmp_path)["systems"]["stock"]["cost"]
    assert (found["rtf"], found["peak_rss_bytes"], found["latency_p50_s"]) == (0.25, 2**30, 0.5)
    assert found["measured_alone"] is True


def test_the_report_ends_with_what_the_systems_cost() -> None:
    report = report_on(scores(), RUN)
    report["by_mode"]["timestamps"]["systems"]["steered"]["cost"] |= {
        "rtf": 0.125,
        "peak_rss_bytes": 300 << 20,
        "measured_alone": True,
    }
    text = markdown(report).partition("## Cost")[2]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if "|" in line]
    rows = {(name, mode): rest for name, mode, *rest in cells}
    assert rows["steered", "timestamps"] == ["0.125", *rows["steered", "timestamps"][1:4], "300", "yes"]
    assert rows["stock", "timestamps"][-2:] == ["-", "no"]


def test_the_report_says_what_was_left_out_of_a_dataset() -> None:
    data = RUN["data"] | {
        "manifests": [{"name": "FSD50K", "left_out": {"words may be heard: Shout": 2, "no file": 1}}, {"name": "m"}]
    }
    assert "Left out of FSD50K: 2 (words may be heard: Shout); 1 (no file)." in summary(
        report_on(scores(), RUN | {"data": data})
    )
