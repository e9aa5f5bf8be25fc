"""The demo's clips: real audio that is always there, for other tests too."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

from steer_asr.audio import SAMPLE_RATE_HZ, decode_audio
from steer_asr.manifest import read_manifest

DEMO = Path(__file__).parents[2] / "benchmarks" / "demo"


def test_every_clip_is_there_and_as_long_as_the_manifest_says() -> None:
    for clip in read_manifest(DEMO / "clips.jsonl"):
        assert len(decode_audio(clip.audio_path)) / SAMPLE_RATE_HZ == pytest.approx(clip.duration_s, abs=1e-3)


def test_there_is_every_kind_of_clip() -> None:
    clips = read_manifest(DEMO / "clips.jsonl")
    assert [clip.kind for clip in clips] == ["speech"] * 2 + ["mixed"] + ["nonspeech"] * 4
    assert all(bool(clip.text) == (clip.kind != "nonspeech") for clip in clips)


def test_every_clip_is_listed_attributed_and_small() -> None:
    files = sorted((DEMO / "clips").glob("*.flac"))
    attribution = (DEMO / "clips" / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert files == sorted(clip.audio_path for clip in read_manifest(DEMO / "clips.jsonl"))
    assert [file.name for file in files if f"`{file.name}`" not in attribution] == []
    assert sum(file.stat().st_size for file in files) < 1_500_000


@pytest.mark.parametrize("name", ["hum", "near-silence", "long-pause"])
def test_computed_clips_come_from_their_script(name: str) -> None:
    computed = runpy.run_path(str(DEMO / "make_clips.py"))[name.replace("-", "_")]()
    committed = decode_audio(DEMO / "clips" / f"{name}.flac")
    np.testing.assert_allclose(committed, computed, atol=1.5 / 32768)  # one step of 16 bits, for other FFTs
