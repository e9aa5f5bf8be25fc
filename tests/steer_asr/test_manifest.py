from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from steer_asr.errors import ManifestError
from steer_asr.manifest import Clip, Span, read_manifest


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_full_line(tmp_path: Path) -> None:
    row = {
        "audio_filepath": "../audio/a.flac",
        "duration": 2.5,
        "text": "hello",
        "kind": "speech",
        "label": "verbatim",
        "source": "somewhere",
        "group": "speaker-1",
        "lang": "en",
        "split": "test",
        "category": "utterance",
        "licence": "CC0",
        "shippable": True,
        "alignment_filepath": "a.TextGrid",
        "an unknown key": [1],
    }
    [clip] = read_manifest(write(tmp_path / "m.jsonl", json.dumps(row)))
    assert clip == Clip(
        tmp_path / "../audio/a.flac",
        2.5,
        "hello",
        "speech",
        "verbatim",
        "somewhere",
        "speaker-1",
        "en",
        "test",
        "utterance",
        "CC0",
        True,
        tmp_path / "a.TextGrid",
    )


def test_optional_keys_have_defaults(tmp_path: Path) -> None:
    lines = [
        '{"audio_filepath": "a.wav", "duration": 1}',
        "",
        '{"audio_filepath": "/b.wav", "duration": 1, "text": "x"}',
    ]
    rain, word = read_manifest(write(tmp_path / "m.jsonl", *lines))
    assert rain == Clip(tmp_path / "a.wav", 1.0, "", "nonspeech", group="a.wav")
    assert (word.kind, word.audio_path, word.shippable) == ("speech", Path("/b.wav"), False)


def test_a_byte_order_mark_and_a_line_separator_inside_a_transcript_are_harmless(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + '{"audio_filepath": "a", "duration": 1, "text": "x\u2028y"}\r\n'.encode())
    assert read_manifest(path)[0].text == "x\u2028y"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"audio_filepath": "a", ', "not valid JSON"),
        ("[1]", "not a JSON object"),
        ("[" * 100_000, "recursion"),
        ('{"duration": 1}', "audio_filepath is missing"),
        ('{"audio_filepath": "", "duration": 1}', "audio_filepath is empty"),
        ('{"audio_filepath": "a"}', "duration is missing"),
        ('{"audio_filepath": "a", "duration": "1"}', "duration '1' is not a number"),
        ('{"audio_filepath": "a", "duration": true}', "duration True is not a number"),
        ('{"audio_filepath": "a", "duration": -1}', "duration -1 is not a number"),
        ('{"audio_filepath": "a", "duration": NaN}', "duration nan is not a number"),
        ('{"audio_filepath": "a", "duration": 1e999}', "duration inf is not a number"),
        ('{"audio_filepath": "a", "duration": 1, "kind": "music"}', "kind 'music' is none of speech, nonspeech, mixed"),
        ('{"audio_filepath": "a", "duration": 1, "text": null}', "text must be text"),
        ('{"audio_filepath": "a", "duration": 1, "alignment_filepath": 3}', "alignment_filepath must be text"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, reason: str) -> None:
    path = write(tmp_path / "m.jsonl", '{"audio_filepath": "a", "duration": 1}', line)
    with pytest.raises(ManifestError) as error:
        read_manifest(path)
    assert str(error.value).startswith(f"{path}:2: ")
    assert reason in str(error.value)


def test_a_mix_says_how_loud_the_noise_is_and_when_somebody_speaks(tmp_path: Path) -> None:
    row = {"audio_filepath": "a", "duration": 9, "kind": "mixed", "snr_db": -5, "text": "hello there"}
    [clip] = read_manifest(
        write(tmp_path / "m.jsonl", json.dumps(row | {"speech": [[0, 1.5, "hello"], [8, 9.009, ""]]}))
    )
    assert clip.snr_db == -5.0
    assert clip.spans == (Span(0.0, 1.5, "hello"), Span(8.0, 9.009, ""))
    [without] = read_manifest(write(tmp_path / "m.jsonl", json.dumps(row | {"snr_db": None})))
    assert (without.snr_db, without.spans) == (None, ())


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ('"snr_db": "5"', "snr_db '5' is not a number"),
        ('"snr_db": true', "snr_db True is not a number"),
        ('"snr_db": Infinity', "snr_db inf is not a number"),
        (f'"snr_db": {"9" * 400}', "is not a number"),
        ('"speech": "hello"', "speech must be a list"),
        ('"speech": null', "speech must be a list"),
        ('"speech": [[1, 2]]', "is not [start_s, end_s, text]"),
        ('"speech": ["abc"]', "is not [start_s, end_s, text]"),
        ('"speech": [[1, "2", "x"]]', "is not [start_s, end_s, text]"),
        ('"speech": [[1, 2, 3]]', "is not [start_s, end_s, text]"),
        ('"speech": [[2, 1, "x"]]', "from 2 to 1 s is out of order"),
        ('"speech": [[-1, 1, "x"]]', "from -1 to 1 s is out of order"),
        ('"speech": [[8, 9.1, "x"]]', "outside the clip's 9.0 s"),
        ('"speech": [[1, 3, "x"], [2, 4, "y"]]', "from 2 to 4 s is out of order"),
    ],
)
def test_what_a_mix_says_is_checked(tmp_path: Path, extra: str, reason: str) -> None:
    path = write(tmp_path / "m.jsonl", f'{{"audio_filepath": "a", "duration": 9, {extra}}}')
    with pytest.raises(ManifestError) as error:
        read_manifest(path)
    assert str(error.value).startswith(f"{path}:1: ")
    assert reason in str(error.value)


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfe"])
def test_no_clip_at_all(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(content)
    with pytest.raises(ManifestError, match=r"m\.jsonl"):
        read_manifest(path)


@pytest.mark.parametrize("path", ["missing.jsonl", "."])
def test_what_cannot_be_read(tmp_path: Path, path: Any) -> None:
    with pytest.raises(ManifestError, match="cannot be read as a manifest"):
        read_manifest(tmp_path / path)
