from __future__ import annotations

import sys

import pytest

from steer_asr import _progress
from steer_asr._progress import Progress


def test_plain_lines_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(_progress.time, "monotonic", lambda: now)
    with Progress(total=10, unit="clip", label="bench") as progress:
        for _ in range(10):
            now += 15.0
            progress.advance(note="rain")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == [
        "bench: 2/10 clips, about 2 min left  rain",
        "bench: 4/10 clips, about 2 min left  rain",
        "bench: 6/10 clips, about 1 min left  rain",
        "bench: 8/10 clips, about 0 min left  rain",
        "bench: 10/10 clips, 2.5 min  rain",
        "bench: 10/10 clips, 2.5 min",
    ]


def interrupted_after_one() -> None:
    with Progress(total=3, unit="clip", label="bench") as progress:
        progress.advance()
        raise KeyboardInterrupt


def test_an_interrupt_shows_how_far_it_came(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupted_after_one()
    assert capsys.readouterr().err == "bench: 1/3 clips, about 0 min left (interrupted)\n"


def test_nothing_to_do_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(total=0, unit="clip", label="bench"):
        pass
    assert capsys.readouterr().err == ""


def test_a_bar_in_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress(total=2, unit="clip", label="bench") as progress:
        progress.advance(2, note="rain")
    assert "2/2" in capsys.readouterr().err
