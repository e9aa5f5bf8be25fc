from __future__ import annotations

import json

import numpy as np
import pytest
from faster_whisper.transcribe import Segment, Word

from steer_asr.errors import SteerOptionError
from steer_asr.formats import edited_spans, render
from steer_asr.transcription import (
    FeatureActivity,
    SegmentSteering,
    SteeredSegment,
    SteerReport,
    Transcription,
    WindowReport,
)


def segment(number: int, start: float, end: float, text: str, *, steer: SegmentSteering | None = None) -> Segment:
    values = {
        "id": number, "seek": 0, "start": start, "end": end, "text": text, "tokens": [1, 2], "avg_logprob": -0.25,
        "compression_ratio": 1.5, "no_speech_prob": 0.125, "words": [Word(start, end, text, 0.5)], "temperature": 0.0,
    }  # fmt: skip
    return SteeredSegment(**values, steer=steer) if steer else Segment(**values)


def transcription(*segments: Segment, steer: SteerReport | None = None) -> Transcription:
    text = "".join(s.text for s in segments).strip()
    return Transcription(text, segments, "en", 1.0, 7.25, bool(text), steer)


TWO = transcription(segment(1, 0.0, 1.5, " Tom & Jerry <b>"), segment(2, 3661.0419, 3662.0, " look --> there\n\nnow"))


def test_text_and_json() -> None:
    assert render(TWO, "text") == "Tom & Jerry <b> look --> there\n\nnow\n"
    assert json.loads(render(TWO, "json")) == {"text": TWO.text}


def test_srt() -> None:
    assert render(TWO, "srt") == (
        "1\n00:00:00,000 --> 00:00:01,500\nTom & Jerry <b>\n\n2\n01:01:01,042 --> 01:01:02,000\nlook -> there now\n"
    )


def test_vtt_escapes_what_players_read_as_markup() -> None:
    assert render(TWO, "vtt") == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nTom &amp; Jerry &lt;b&gt;\n\n"
        "01:01:01.042 --> 01:01:02.000\nlook -&gt; there now\n"
    )


def test_silence_is_empty_in_every_format() -> None:
    nothing = transcription()
    assert [render(nothing, f) for f in ("text", "srt", "vtt")] == ["\n", "", "WEBVTT\n"]
    assert json.loads(render(nothing, "verbose_json"))["speech_detected"] is False


def test_verbose_json_has_openai_names_and_no_steer_block_without_steering() -> None:
    body = json.loads(render(TWO, "verbose_json"))
    assert body.keys() == {"task", "language", "duration", "text", "segments", "words", "speech_detected"}
    assert body["segments"][0] == {
        "id": 0, "seek": 0, "start": 0.0, "end": 1.5, "text": " Tom & Jerry <b>", "tokens": [1, 2], "temperature": 0.0,
        "avg_logprob": -0.25, "compression_ratio": 1.5, "no_speech_prob": 0.125,
    }  # fmt: skip
    assert body["words"][0] == {"word": " Tom & Jerry <b>", "start": 0.0, "end": 1.5}


def test_verbose_json_says_what_steering_did() -> None:
    feature = FeatureActivity(7, 2.5, 0.1, 0.3)
    weights = np.array([0, 1, 1, 0, 0.4, 0.6], np.float32)
    window = WindowReport(10.0, 10.12, float("nan"), 0.5, weights, (feature,))
    report = SteerReport("base", 1.0, "ct2", [window])
    body = json.loads(
        render(
            transcription(segment(1, 0, 1, " a", steer=SegmentSteering(0.5, 0.25, (feature,))), steer=report),
            "verbose_json",
        )
    )
    assert body["segments"][0]["steer"] == {
        "nobody_speaks": 0.25,
        "edited_share": 0.5,
        "features": [{"feature": 7, "peak": 2.5, "start": 0.1, "end": 0.3}],
    }
    assert (body["steer"]["pack"], body["steer"]["strength"], body["steer"]["executor"]) == ("base", 1.0, "ct2")
    assert body["steer"]["windows"][0]["nobody_speaks"] is None, "JSON has no NaN"
    assert body["steer"]["windows"][0]["edited_spans"] == [[10.02, 10.06], [10.1, 10.12]]


def test_edited_spans_of_an_untouched_window() -> None:
    assert edited_spans(WindowReport(0.0, 1.0, 0.5, 0.0, np.zeros(50, np.float32), ())) == []


def test_unknown_formats_get_the_nearest() -> None:
    with pytest.raises(SteerOptionError, match="did you mean 'srt'"):
        render(TWO, "str")
