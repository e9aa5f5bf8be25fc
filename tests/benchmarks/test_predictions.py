from __future__ import annotations

import json
import resource
from dataclasses import replace
from pathlib import Path

import pytest

from steer_asr.errors import ManifestError, OutputError
from steer_asr.manifest import Clip, Span
from steer_asr_benchmarks.clips import BenchClip, Shard
from steer_asr_benchmarks.predictions import (
    PredictionLog,
    done_keys,
    make_record,
    predictions_name,
    read_predictions,
)
from steer_asr_benchmarks.systems.base import Decoding, PredictedSegment, Prediction, Window
from tests.benchmarks.builders import record


def write(path: Path, *clips: str) -> None:
    with PredictionLog(path) as log:
        for clip in clips:
            log.append(record(clip=clip))


def test_a_record_holds_all_that_scoring_needs_and_is_json() -> None:
    clip = Clip(Path("a.wav"), 2.0, "hello", "speech", source="books", group="g", lang="en")
    prediction = Prediction(
        "en",
        True,
        (PredictedSegment(0.0, 1.0, " Hello", 0.1, -0.2, 1.1), PredictedSegment(1.0, 2.0, " you.", 0.1, -0.2, 1.1)),
        (Window(0.1, -0.2, 1.1, (50363, 1, 50257), 0.3, 0.7),),
        nobody_speaks=0.3,
        edited_share=0.7,
    )
    made = make_record(BenchClip("m:a.wav", clip), "steered", Decoding("timestamps", "en"), prediction, 0.123456)
    assert made.keys() == record().keys()
    read = json.loads(json.dumps(made, allow_nan=False))
    assert (read["text"], read["reference"], read["seconds"]) == ("Hello you.", "hello", 0.1235)
    assert read["segments"][1]["text"] == " you."
    assert read["windows"] == [
        {
            "no_speech_prob": 0.1,
            "avg_logprob": -0.2,
            "compression_ratio": 1.1,
            "tokens": [50363, 1, 50257],
            "nobody_speaks": 0.3,
            "edited_share": 0.7,
            "start_s": None,
            "frames": None,
        }
    ]


def test_what_is_appended_is_read_back_over_all_shards(tmp_path: Path) -> None:
    write(tmp_path / predictions_name(Shard(2, 2)), "b")
    write(tmp_path / predictions_name(Shard()), "a", "c\u2028")
    write(tmp_path / predictions_name(Shard()), "d")
    read = list(read_predictions(tmp_path))
    assert {found["clip"] for _, found in read} == {"a", "b", "c\u2028", "d"}
    assert (str(tmp_path / "predictions.jsonl") + ":3", record(clip="d")) in read
    assert done_keys(tmp_path) == {(clip, "stock", "timestamps") for clip in ("a", "b", "c\u2028", "d")}


def test_an_unfinished_last_line_is_ignored_and_then_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    write(path, "a")
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:50])
    assert [found["clip"] for _, found in read_predictions(tmp_path)] == ["a"]
    write(path, "b")
    assert path.read_bytes() == whole + whole.replace(b'"clip": "a"', b'"clip": "b"')


@pytest.mark.parametrize("line", [b"{broken\n", b"[]\n", b'{"clip": "a"}\n', b"\xff\n", b"\n"])
def test_a_broken_line_in_the_middle_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "predictions.jsonl"
    write(path, "a")
    path.write_bytes(path.read_bytes() + line)
    write(path, "b")
    with pytest.raises(ManifestError, match=r"predictions\.jsonl:2: not a prediction"):
        list(read_predictions(tmp_path))


def test_a_prediction_that_is_there_twice(tmp_path: Path) -> None:
    write(tmp_path / "predictions.jsonl", "a", "a")
    with pytest.raises(ManifestError, match=r":2: .* is there twice"):
        done_keys(tmp_path)


def test_no_predictions(tmp_path: Path) -> None:
    assert done_keys(tmp_path) == set()
    with pytest.raises(ManifestError, match="no predictions"):
        list(read_predictions(tmp_path))


def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    write(path, "a")
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with PredictionLog(path) as log:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, limits[1]))
        try:
            with pytest.raises(OutputError, match="the same command resumes"):
                log.append(record(clip="b"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert path.read_bytes() == before
        log.append(record(clip="c"))
    assert [found["clip"] for _, found in read_predictions(tmp_path)] == ["a", "c"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        PredictionLog(tmp_path / "file" / "predictions.jsonl")


def test_frames_are_kept_where_somebody_knows_when_there_is_speech() -> None:
    clip = Clip(Path("a.wav"), 2.0, "", "nonspeech")
    told = Prediction("en", True, (), (Window(0.1, None, 1.0, (), 0.3, 0.7, 0.0, (0.25, 0.5)),), 0.3, 0.7)
    made = [
        make_record(BenchClip("m:a.wav", one), "steered", Decoding("timestamps", "en"), told, 0.1)
        for one in (clip, replace(clip, kind="speech"), replace(clip, kind="speech", spans=(Span(0.5, 1.0, "x"),)))
    ]
    assert [record["windows"][0]["frames"] for record in made] == [(0.25, 0.5), None, (0.25, 0.5)]
    assert [record["spans"] for record in made] == [[], [], [[0.5, 1.0]]]
