"""The packs that ship, on real weights and the demo's clips: silence on non-speech, stock's words on speech."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import steer_asr
from steer_asr.audio import decode_audio
from steer_asr.errors import ModelError
from steer_asr.manifest import Clip, read_manifest
from steer_asr.models import find_model
from steer_asr.pack import MAX_PACK_BYTES, SHIPPED, list_packs, load_pack
from tests.helpers import PEAK_MEMORY

CLIPS = read_manifest(Path(__file__).parents[2] / "benchmarks" / "demo" / "clips.jsonl")
RAW: dict[str, Any] = {
    "language": "en", "beam_size": 1, "temperature": 0.0, "condition_on_previous_text": False,
    "no_speech_threshold": None, "log_prob_threshold": None, "compression_ratio_threshold": None,
}  # fmt: skip
"""Whatever the decoder writes counts: no rule drops text, nothing is decoded twice."""


@pytest.fixture(scope="module", params=["tiny.en", "base"])
def model(request: pytest.FixtureRequest) -> steer_asr.SteeredWhisperModel:
    try:
        return steer_asr.load_model(request.param, compute_type="float32", cpu_threads=1, local_files_only=True)
    except ModelError as error:
        pytest.skip(f"needs the {request.param} wheel: {error}")


def test_every_shipped_pack_is_whole_small_and_says_where_it_comes_from() -> None:
    shipped = [info for info in list_packs() if info.origin == "wheel"]
    assert [info.name for info in shipped] == ["base", "tiny.en"]
    for info in shipped:
        pack = load_pack(info.path)
        assert info.bytes < MAX_PACK_BYTES
        assert pack.gate is not None
        if pack.calibration:
            assert [point["strength"] for point in pack.calibration] == [0.25, 0.5, 0.75, 1.0]
        else:
            assert "No curve was measured" in (SHIPPED / info.name / "README.md").read_text(encoding="utf-8")
        assert {row["source"] for row in pack.provenance["training_data"]} >= {"esc10", "librispeech_align"}
        assert "## Learned from" in (SHIPPED / info.name / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"without_timestamps": True}], ids=str)
@pytest.mark.parametrize("clip", [c for c in CLIPS if c.kind == "nonspeech"], ids=lambda c: c.label)
def test_nothing_is_written_as_people_call_it(
    model: steer_asr.SteeredWhisperModel, clip: Clip, options: dict[str, Any]
) -> None:
    """faster-whisper's defaults: beams, fallback, thresholds, the language detected."""
    audio = decode_audio(clip.audio_path)
    assert steer_asr.transcribe(audio, model=model, steer=True, **options).text == ""
    pipeline = steer_asr.SteeredBatchedInferencePipeline(model)
    cut = [{"start": 0.0, "end": min(30.0, len(audio) / 16000)}]
    assert list(pipeline.transcribe(audio, steer=True, clip_timestamps=cut, **options)[0]) == []


@pytest.mark.slow
@pytest.mark.parametrize("without_timestamps", [False, True], ids=["timestamps", "no timestamps"])
@pytest.mark.parametrize("clip", [c for c in CLIPS if c.kind == "nonspeech"], ids=lambda c: c.label)
def test_nothing_is_written_when_nobody_speaks(
    model: steer_asr.SteeredWhisperModel, clip: Clip, without_timestamps: bool
) -> None:
    result = steer_asr.transcribe(
        decode_audio(clip.audio_path), model=model, steer=True, without_timestamps=without_timestamps, **RAW
    )
    assert result.text == ""
    assert result.speech_detected is False
    assert result.steer is not None
    assert result.steer.nobody_speaks > 0.9
    assert result.steer.edited_share > 0.5, "the gate leans towards speech, so even frogs get less than the whole edit"


@pytest.mark.slow
@pytest.mark.parametrize("clip", [c for c in CLIPS if c.kind == "speech"], ids=lambda c: c.label)
def test_speech_keeps_its_words(model: steer_asr.SteeredWhisperModel, clip: Clip) -> None:
    audio = decode_audio(clip.audio_path)
    stock = steer_asr.transcribe(audio, model=model, steer=None, **RAW)
    steered = steer_asr.transcribe(audio, model=model, steer=True, **RAW)
    assert stock.text
    assert steered.text == stock.text
    assert steered.steer is not None
    assert steered.steer.nobody_speaks < 0.1


@pytest.mark.slow
def test_digital_silence_and_half_a_minute_of_noise(model: steer_asr.SteeredWhisperModel) -> None:
    rng = np.random.default_rng(0)
    for audio in (np.zeros(16000 * 5, np.float32), (rng.standard_normal(16000 * 45) * 0.02).astype(np.float32)):
        assert steer_asr.transcribe(audio, model=model, steer=True, **RAW).text == ""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "limit_mb"), [("base", 1200), ("tiny.en", 700)])
def test_memory_of_a_whole_process_stays_small(name: str, limit_mb: int) -> None:
    try:
        find_model(name, local_files_only=True)
    except ModelError as error:
        pytest.skip(f"needs the {name} wheel: {error}")
    clip = next(c for c in CLIPS if c.duration_s > 30)
    code = (
        "import sys, steer_asr\n"
        "model = steer_asr.load_model(sys.argv[1], compute_type='float32')\n"
        "print(steer_asr.transcribe(sys.argv[2], model=model, steer=True, language='en').text)\n"
        + PEAK_MEMORY
        + "print(peak_kb() // 1024)"
    )
    command = [sys.executable, "-c", code, name, str(clip.audio_path)]
    text, peak_mb = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().splitlines()
    assert "amiable himself" in text
    assert int(peak_mb) < limit_mb
