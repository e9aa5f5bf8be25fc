"""The command line with a stand-in for the model; one test at the end runs the real thing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from faster_whisper.transcribe import Segment
from typer.testing import CliRunner

import steer_asr.ct2
from steer_asr import cli
from steer_asr.errors import AudioError, SteerASRError, SteerOptionError

CLIPS = Path(__file__).parents[2] / "benchmarks" / "demo" / "clips"


class StandIn:
    """Writes how long what it heard was, and remembers how it was asked."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def steered(self, steer: Any) -> None:
        self.pack = steer

    def transcribe(self, audio: np.ndarray, **options: Any) -> tuple[Iterator[Segment], Any]:
        self.calls.append(options)
        seconds = len(audio) / 16000
        segment = Segment(1, 0, 0.0, seconds, f" {seconds:.1f} seconds", [1], -0.1, 1.0, 0.1, None, 0.0)
        return iter([segment]), SimpleNamespace(language="en", language_probability=1.0, duration=seconds)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in = StandIn()
    monkeypatch.setattr(steer_asr.ct2, "load_model", lambda *_, **__: stand_in)
    return stand_in


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("hum", "drums"):
        (tmp_path / f"{name}.flac").write_bytes((CLIPS / f"{name}.flac").read_bytes())
    return tmp_path


def run(*arguments: object, **kwargs: Any) -> Any:
    return CliRunner().invoke(cli.app, list(map(str, arguments)), catch_exceptions=True, **kwargs)


def test_one_file_goes_to_standard_output(model: StandIn, folder: Path) -> None:
    result = run("transcribe", folder / "hum.flac", "--language", "en", "--beam-size", 1, "--no-timestamps")
    assert result.exit_code == 0
    assert result.stdout == "10.0 seconds\n"
    assert model.pack == "default"
    assert model.calls == [
        {"language": "en", "task": "transcribe", "beam_size": 1, "without_timestamps": True, "word_timestamps": False,
         "steer": "default"}
    ]  # fmt: skip


def test_patterns_folders_and_resuming(model: StandIn, folder: Path) -> None:
    out = folder / "out"
    arguments = ("transcribe", folder / "*.flac", "-o", out, "-f", "srt")
    assert run(*arguments).exit_code == 0
    assert sorted(path.name for path in out.iterdir()) == ["drums.srt", "hum.srt"]
    (out / "hum.srt").unlink()
    again = run(*arguments)
    assert "1 of 2 are there already" in again.stderr
    assert len(model.calls) == 3
    run(*arguments, "--overwrite")
    assert len(model.calls) == 5


def test_standard_input(model: StandIn, folder: Path) -> None:
    result = run("transcribe", "-", "-f", "json", input=(folder / "hum.flac").read_bytes())
    assert json.loads(result.stdout) == {"text": "10.0 seconds"}
    assert len(model.calls) == 1


def test_a_bad_file_does_not_stop_the_rest(model: StandIn, folder: Path) -> None:
    (folder / "bad.flac").write_bytes(b"not audio")
    result = run("transcribe", folder / "bad.flac", folder / "gone.flac", folder / "hum.flac", "-o", folder / "out")
    assert result.exit_code == 1
    assert "bad.flac: not audio" in result.stderr
    assert "gone.flac: there is no such file" in result.stderr
    assert "2 of 3 failed" in result.stderr
    assert [path.name for path in (folder / "out").iterdir()] == ["hum.txt"]
    assert len(model.calls) == 1


def test_webrtc_cuts_before_whisper_hears(model: StandIn, folder: Path) -> None:
    run("transcribe", CLIPS / "speech.flac", "--vad", "webrtc")
    edges = model.calls[0]["clip_timestamps"]
    assert len(edges) % 2 == 0
    assert edges == sorted(edges)
    run("transcribe", CLIPS / "speech.flac", "--vad", "silero")
    assert model.calls[1]["vad_filter"] is True
    assert folder.exists()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["--format", "doc"], SteerOptionError, "text, json, srt, vtt, verbose_json"),
        (["--steer", "1.5"], SteerOptionError, "outside 0 to 1"),
        (["--vad", "energy"], SteerOptionError, "off, silero, webrtc"),
    ],
)
def test_bad_options_are_found_before_the_model_is_loaded(
    arguments: list[str], error: type[SteerASRError], message: str, folder: Path
) -> None:
    result = run("transcribe", folder / "hum.flac", *arguments)
    assert isinstance(result.exception, error)
    assert message in str(result.exception)


def test_patterns_without_a_match_and_clashing_names(folder: Path) -> None:
    assert isinstance(run("transcribe", folder / "*.xyz").exception, AudioError)
    (folder / "sub").mkdir()
    (folder / "sub" / "hum.flac").write_bytes(b"")
    clash = run("transcribe", folder / "hum.flac", folder / "sub" / "hum.flac", "-o", folder / "out")
    assert isinstance(clash.exception, SteerOptionError)
    assert "would both be written" in str(clash.exception)


def test_lists() -> None:
    packs = json.loads(run("packs", "--json").stdout)
    assert {"base"} <= {pack["name"] for pack in packs}
    assert "base_model" in run("packs").stdout
    assert run("models").exit_code == 0


def test_errors_are_one_line_and_exit_code_2(folder: Path) -> None:
    command = [sys.executable, "-m", "steer_asr.cli", "transcribe", str(folder / "hum.flac"), "--steer", "7"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("error: strength 7.0 is outside 0 to 1")
    assert len(result.stderr.strip().splitlines()) == 1
