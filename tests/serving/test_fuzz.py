"""The short form of `make fuzz`, and that it would see a failure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.serving import fuzz
from tests.serving.damage import DAMAGE, case
from tests.serving.scripted_whisper import TEXT

N = 54
"""Six of each kind."""


@pytest.fixture
def url(app) -> Iterator[str]:
    with fuzz.serving(app(**fuzz.SETTINGS)) as address:
        yield address


def test_damaged_files_are_answered_and_the_server_goes_on(url) -> None:
    report = fuzz.fuzz(url, "scripted", TEXT, seed=1, first=0, n=N)
    assert report.failures == []
    assert (report.n, report.sound_files) == (N, 2)
    assert report.answers["sound", "200"] == N // len(DAMAGE)
    assert {label.split()[0] for _, label in report.answers} >= {"200", "413", "415", "422"}
    assert 0 < report.decoder_bytes < fuzz.MAX_DECODER_BYTES


def test_a_server_that_answers_wrongly_is_found_out(url) -> None:
    report = fuzz.fuzz(url, "scripted", "Something else.", seed=1, first=0, n=1)
    assert "a sound file" in report.failures[0]
    assert fuzz.fuzz(url, "no-such-model", TEXT, seed=1, first=8, n=1).failures[0].startswith("file 8 (sound, ")


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (200, {"text": ""}, None),
        (422, {"error": {"message": "", "type": "", "param": None, "code": "unusable_audio"}}, None),
        (200, {}, "200 without a text"),
        (500, {"error": {"message": "it broke", "type": "", "param": None, "code": "internal_error"}}, "it broke"),
        (404, {"error": {"message": "", "type": "", "param": None, "code": None}}, "404"),
        (422, {"detail": "no"}, "without OpenAI's envelope"),
        (400, "Bad Request", "without OpenAI's envelope"),
    ],
)
def test_verdicts(status: int, body: Any, says: str | None) -> None:
    wrong = fuzz.verdict(status, json.dumps(body).encode())[1]
    assert wrong is None if says is None else says in (wrong or "")


def test_growth_of_memory_is_a_failure() -> None:
    report = fuzz.Report(0, first_bytes=1 << 30, peak_bytes=(1 << 30) + fuzz.MAX_GROWTH_BYTES)
    report.check_memory()
    assert report.failures == []
    report.peak_bytes += 1 << 20
    report.decoder_bytes = fuzz.MAX_DECODER_BYTES + 1
    report.check_memory()
    assert [failure.split(" had ")[0].split(" grew ")[0] for failure in report.failures] == ["the server", "a decoder"]


def test_files_depend_on_seed_and_number_only() -> None:
    made = [case(3, number) for number in range(18)]
    assert made == [case(3, number) for number in reversed(range(18))][::-1]
    assert made != [case(4, number) for number in range(18)]
    assert [each.damage for each in made[:9]] == [damage.__name__ for damage in DAMAGE]


def test_the_table_counts_every_file() -> None:
    report = fuzz.Report(5, first_bytes=1 << 20, peak_bytes=2 << 20, decoder_bytes=3 << 20, sound_files=1)
    report.answers |= {("bomb", "413 audio_too_long"): 2, ("sound", "200"): 1}
    report.failures.append("file 3 (bomb, 'a.wav'): 500")
    text = fuzz.table(report)
    assert "3 files of seed 5:" in text
    assert "| bomb |  | 2 | 2 |" in text
    assert "| all | 1 | 2 | 3 |" in text
    assert text.endswith("## Failures\n\n- file 3 (bomb, 'a.wav'): 500\n")
