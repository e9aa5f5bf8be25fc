"""Test sets on disk: whole, the same each time, resumed; and the options they are made with."""

from __future__ import annotations

import errno
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from steer_asr.audio import decode_audio
from steer_asr.errors import OutputError, SteerASRError, SteerOptionError
from steer_asr.manifest import Clip, read_manifest
from steer_asr_benchmarks import cli
from steer_asr_benchmarks.mix import write
from steer_asr_benchmarks.mix.recipes import (
    Codec,
    CodecCopies,
    Lengths,
    Long,
    OverMusic,
    Snr,
    make_recipe,
)
from steer_asr_benchmarks.mix.render import render
from steer_asr_benchmarks.mix.write import MixOptions, write_mix
from tests.benchmarks.mix_inputs import rows_of, write_manifests


@pytest.fixture
def manifests(tmp_path: Path) -> tuple[Path, Path]:
    return write_manifests(tmp_path)


# --- files


def test_manifest_lines(manifests: tuple[Path, Path], tmp_path: Path) -> None:
    made = write_mix(MixOptions(manifests, OverMusic(snr_db=(0,))), tmp_path / "music")
    assert made == tmp_path / "music" / "music.jsonl"
    assert read_manifest(made)[1] == Clip(
        audio_path=made.parent / "audio/over_music-00001.flac",
        duration_s=1.0,
        text="word 1",
        kind="speech",
        label="verbatim",
        source="mix/over_music/books",
        group="speaker-1",
        lang="en",
        split="test",
        category="music",
        licence="CC0; CC BY",
        shippable=False,
        snr_db=0.0,
    )
    assert rows_of(made)[1]["made_of"] == ["speech.jsonl:speech-1.wav", "nonspeech.jsonl:nonspeech-4.wav"]
    assert rows_of(made)[3]["label"] == "likely-verbatim", "its words have no say in WER here either"


def content(folder: Path) -> dict[str, Any]:
    """Everything in a test set: bytes of text files, samples of audio."""
    return {
        path.relative_to(folder).as_posix(): decode_audio(path).tobytes()
        if path.suffix == ".flac"
        else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("recipe", [Snr(snr_db=(5,)), Long(min_s=10, max_s=11), Lengths(steps=2), CodecCopies()])
def test_the_same_seed_gives_the_same_files(manifests: tuple[Path, Path], tmp_path: Path, recipe: Any) -> None:
    made = [write_mix(MixOptions(manifests, recipe, limit=2), tmp_path / part / "set").parent for part in "ab"]
    assert content(made[0]) == content(made[1])


def test_a_stopped_run_goes_on_and_ends_the_same(
    manifests: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = MixOptions(manifests, Snr(snr_db=(5,)))
    whole = write_mix(options, tmp_path / "a" / "set").parent
    made: list[str] = []

    def stops(item: Any, decode: Any) -> Any:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(item.name)
        return render(item, decode)

    monkeypatch.setattr(write, "render", stops)
    with pytest.raises(KeyboardInterrupt):
        write_mix(options, tmp_path / "b" / "set")
    assert not (tmp_path / "b" / "set" / "set.jsonl").exists()
    made.clear()
    write_mix(options, tmp_path / "b" / "set")
    assert made == ["snr-00002", "snr-00003"]
    assert content(tmp_path / "b" / "set") == content(whole)


def test_only_what_is_missing_or_broken_is_made_again(
    manifests: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = MixOptions(manifests, Snr(snr_db=(5,)))
    folder = write_mix(options, tmp_path / "set").parent
    before = content(folder)
    (folder / "audio" / "snr-00001.flac").unlink()
    (folder / "audio" / "snr-00003.flac").write_bytes(b"not audio")
    made: list[str] = []
    monkeypatch.setattr(write, "render", lambda item, decode: made.append(item.name) or render(item, decode))
    write_mix(options, folder)
    assert made == ["snr-00001", "snr-00003"]
    assert content(folder) == before


def test_a_folder_made_otherwise_is_refused(manifests: tuple[Path, Path], tmp_path: Path) -> None:
    options = MixOptions(manifests, Snr(snr_db=(5,)), limit=1)
    folder = write_mix(options, tmp_path / "set").parent
    before = content(folder)
    others = [
        replace(options, seed=1),
        replace(options, limit=2),
        replace(options, recipe=Snr(snr_db=(6,))),
        replace(options, recipe=OverMusic(snr_db=(5,))),
    ]
    for other in others:
        with pytest.raises(SteerOptionError, match="holds a test set with other settings: (seed|limit|recipe) was"):
            write_mix(other, folder)
    manifests[0].write_text(manifests[0].read_text() + "\n")
    with pytest.raises(SteerOptionError, match="manifests was"):
        write_mix(options, folder)
    assert content(folder) == before
    (folder / "mix.json").write_text("{")
    with pytest.raises(OutputError, match="cannot be read"):
        write_mix(options, folder)
    (folder / "mix.json").unlink()
    with pytest.raises(OutputError, match=r"holds files but no mix\.json"):
        write_mix(options, folder)


def test_a_full_disk_leaves_nothing_half_written(
    manifests: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, written = Path.write_bytes, 0

    def full(path: Path, data: Any) -> int:
        nonlocal written
        written += 1
        if written == 3:
            real(path, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match=r"snr-00002\.flac: No space left on device"):
        write_mix(MixOptions(manifests, Snr(snr_db=(5,))), tmp_path / "set")
    found = sorted(path.relative_to(tmp_path / "set").as_posix() for path in (tmp_path / "set").rglob("*"))
    assert found == ["audio", "audio/snr-00000.flac", "audio/snr-00001.flac", "mix.json"]


def test_what_cannot_be_written_to(manifests: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"cannot write .*mix\.json"):
        write_mix(MixOptions(manifests, Snr()), tmp_path / "file" / "set")
    assert (tmp_path / "file").read_text() == "in the way"


# --- options


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("snrr", {}, "unknown recipe 'snrr'; did you mean 'snr'"),
        ("telephone", {"snr_db": (1,)}, "recipe telephone has no snr_db; it has no options"),
        ("snr", {"steps": 3}, "recipe snr has no steps; it has snr_db"),
        ("snr", {"snr_db": ()}, "SNRs none"),
        ("snr", {"snr_db": (5, 5)}, "each once"),
        ("snr", {"snr_db": (float("nan"),)}, "from -60 to 100 dB"),
        ("long", {"min_s": 5}, "at least 10"),
        ("long", {"min_s": 50, "max_s": 20}, "lengths from 50 to 20 s"),
        ("long", {"max_s": float("inf")}, "at most 14400"),
        ("long", {"utterances": 0}, "utterances 0 is not at least 1"),
        ("lengths", {"steps": 0}, "steps 0"),
        ("lengths", {"min_s": 0}, "at least 0.01"),
        ("lengths", {"max_s": 1000}, "at most 600"),
        ("codec", {"codecs": ()}, "codecs none"),
    ],
)
def test_bad_options(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SteerOptionError) as error:
        make_recipe(name, **options)
    assert message in str(error.value)


@pytest.mark.parametrize("text", ["flac", "opus:fast", "opus:5000", "amr:13", "opus:", "opus:nan", ""])
def test_bad_codecs(text: str) -> None:
    with pytest.raises(SteerASRError, match="unknown codec|is not a number|has no"):
        Codec.parse(text)


def test_options() -> None:
    assert make_recipe("over-music", snr_db=None) == OverMusic()
    assert (Codec.parse("amr:4.75"), Codec.parse("gsm")) == (Codec("amr", 4.75), Codec("gsm", 13))


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["steer-asr-bench", "mix", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


def test_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], manifests: tuple[Path, Path], tmp_path: Path
) -> None:
    inputs = ("--manifest", manifests[0], "--manifest", manifests[1], "--recipe", "snr", "-o", tmp_path / "set")
    assert call(monkeypatch, *inputs, "--snr", "-5,2.5", "--seed", 4, "--limit", 1) == 0
    made = Path(capsys.readouterr().out.strip())
    assert [row["snr_db"] for row in rows_of(made)] == [-5.0, 2.5]
    assert json.loads((made.parent / "mix.json").read_text())["seed"] == 4
    assert call(monkeypatch, *inputs, "--snr", "loud") == 2
    assert capsys.readouterr().err == "error: SNR 'loud' is not a number\n"
    assert call(monkeypatch, *inputs, "--steps", "3") == 2
    assert call(monkeypatch, *inputs, "--seed", 5) == 2
    assert "other settings" in capsys.readouterr().err


def test_an_interrupt_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(write, "write_mix", interrupted)
    assert call(monkeypatch, "--recipe", "lengths", "-o", tmp_path) == 130
    assert capsys.readouterr().err == "interrupted; the same command resumes\n"
