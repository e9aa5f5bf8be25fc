"""Systems on a random Whisper of two narrow layers: what is recorded, and that steering takes part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faster_whisper import WhisperModel

from steer_asr.audio import decode_audio
from steer_asr.errors import ModelError, PackError, PackMismatchError, SteerOptionError
from steer_asr.gate import Gate
from steer_asr.manifest import read_manifest
from steer_asr.pack import save_pack
from steer_asr_benchmarks.systems import ModelOptions, Models, make_systems
from steer_asr_benchmarks.systems.base import Decoding
from tests.benchmarks.builders import windows_of
from tests.steer_asr.packs import open_gate, random_pack
from tests.tiny_whisper import WIDTH, write_tiny_whisper

DEMO = Path(__file__).parents[2] / "benchmarks" / "demo" / "clips.jsonl"
AUDIO = np.random.default_rng(0).standard_normal(16_000 * 31).astype(np.float32) * 0.1


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    try:
        folder = write_tiny_whisper(tmp_path_factory.mktemp("model") / "tiny-random")
    except ModelError as error:
        pytest.skip(f"needs the tiny.en wheel: {error}")
    return Models(ModelOptions(str(folder), "cpu", "float32", 1))


@pytest.fixture(scope="module")
def pack(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    gated = random_pack(WIDTH, models.files.sha256, gate=open_gate(16))
    return save_pack(gated, tmp_path_factory.mktemp("packs") / "gated", card="")


@pytest.mark.parametrize("names", [[], ["stock", "stock"]])
def test_lists_that_make_no_sense(models: Models, names: list[str]) -> None:
    with pytest.raises(SteerOptionError):
        make_systems(names, models)


@pytest.mark.parametrize("mode", ["timestamps", "no_timestamps"])
def test_stock_is_faster_whisper(models: Models, mode: Any) -> None:
    [stock] = make_systems(["stock"], models)
    prediction = stock.transcribe(AUDIO, Decoding(mode, "en"))
    plain = WhisperModel(str(models.files.path), device="cpu", compute_type="float32", cpu_threads=1)
    segments, _ = plain.transcribe(
        AUDIO,
        language="en",
        beam_size=1,
        temperature=0.0,
        condition_on_previous_text=False,
        no_speech_threshold=None,
        log_prob_threshold=None,
        compression_ratio_threshold=None,
        without_timestamps=mode == "no_timestamps",
    )
    expected = [(s.start, s.end, s.text, s.no_speech_prob, s.avg_logprob) for s in segments]
    assert [(s.start, s.end, s.text, s.no_speech_prob, s.avg_logprob) for s in prediction.segments] == expected
    assert expected
    assert (prediction.language, prediction.language_forced, prediction.edited_share) == ("en", True, None)


def test_every_window_is_recorded_once_per_call(models: Models) -> None:
    [stock] = make_systems(["stock"], models)
    for _ in range(2):
        windows = windows_of(stock.transcribe(AUDIO, Decoding("no_timestamps", "en")))
        assert len(windows) == 2, "31 s"
        assert all(0 <= w.no_speech_prob <= 1 and (w.avg_logprob or 0) < 0 and w.tokens for w in windows)
        assert windows[0].edited_share is None


def test_steered_changes_the_text_and_says_what_it_did(models: Models, pack: Path) -> None:
    names = ["stock+empty", f"steered:{pack}@0", f"steered:{pack}"]
    plain, zero, full = (
        system.transcribe(AUDIO, Decoding("no_timestamps", "en")) for system in make_systems(names, models)
    )
    assert zero.text == plain.text
    assert [w.tokens for w in windows_of(zero)] == [w.tokens for w in windows_of(plain)]
    assert zero.edited_share == 0.0
    assert full.text != plain.text
    assert full.edited_share == pytest.approx(1.0, abs=1e-3)
    assert len(windows_of(full)) == 2
    assert full.nobody_speaks == min(w.nobody_speaks for w in windows_of(full) if w.nobody_speaks is not None)
    assert all(w.edited_share == pytest.approx(1.0, abs=1e-3) for w in windows_of(full))


def test_the_report_has_the_strength_that_a_bound_on_wer_chose(models: Models, tmp_path: Path) -> None:
    points = ({"strength": 0.25, "changed_words": 0.0}, {"strength": 0.75, "changed_words": 0.5})
    gated = random_pack(WIDTH, models.files.sha256, gate=open_gate(16), calibration=points)
    folder = save_pack(gated, tmp_path / "curve", card="", picture=b"<svg/>")
    [bounded] = make_systems([f"steered:{folder}@max_wer=0.25"], models)
    assert bounded.options["strength"] == 0.5
    assert bounded.transcribe(AUDIO, Decoding("no_timestamps", "en")).edited_share == pytest.approx(0.5, abs=1e-3)
    without_picture = save_pack(gated, tmp_path / "again" / "curve", card="another")
    [same] = make_systems([f"steered:{without_picture}"], models)
    assert same.options["pack"] == bounded.options["pack"], "neither card nor picture are part of what is hashed"


def test_the_gate_tells_of_every_frame_where_its_time_is_known(models: Models, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    gate = Gate(rng.normal(0, 1, 16).astype(np.float32), 0.1, 5, 1500, (8.0, -12.0), (1.0, -2.0), (0.5, 0.3))
    pack = save_pack(random_pack(WIDTH, models.files.sha256, gate=gate), tmp_path / "p", card="")
    for name in (f"steered:{pack}", f"gate:0.5@{pack}", f"steered:{pack}+batched"):
        [system] = make_systems([name], models)
        windows = windows_of(system.transcribe(AUDIO, Decoding("no_timestamps", "en")))
        assert [window.start_s for window in windows] == [0.0, 30.0]
        assert [len(window.frames or ()) for window in windows] == [1500, 50], "31 s; padding has no say"
        frames = np.array(windows[0].frames)
        assert 0 < frames.min() < frames.max() < 1, "moments differ, although the edit is one for the whole window"
    [behind_vad] = make_systems([f"steered:{pack}+vad"], models)
    speech = decode_audio(next(clip.audio_path for clip in read_manifest(DEMO) if clip.kind == "speech"))
    windows = windows_of(behind_vad.transcribe(speech, Decoding("timestamps", "en")))
    assert windows
    assert all(window.frames is None for window in windows), "times are not those of the clip"


def test_a_pack_without_a_gate_has_no_probability(models: Models, tmp_path: Path) -> None:
    ungated = save_pack(random_pack(WIDTH, models.files.sha256), tmp_path / "ungated", card="")
    [system] = make_systems(["steered"], models, steer=str(ungated))
    prediction = system.transcribe(AUDIO, Decoding("no_timestamps", "en"))
    assert (prediction.nobody_speaks, windows_of(prediction)[0].nobody_speaks) == (None, None)
    assert prediction.edited_share == 1.0


def test_vad_may_leave_nothing_to_decode(models: Models) -> None:
    [system] = make_systems(["stock+vad"], models)
    prediction = system.transcribe(np.zeros(16_000, np.float32), Decoding("timestamps", "en"))
    assert (prediction.text, windows_of(prediction)) == ("", ())


def test_english_only_models_are_always_told_english(models: Models) -> None:
    [stock] = make_systems(["stock"], models)
    prediction = stock.transcribe(AUDIO[:16_000], Decoding("timestamps", None))
    assert (prediction.language, prediction.language_forced) == ("en", True)


def test_options_are_stated(models: Models, pack: Path) -> None:
    stock, quiet, steered = make_systems(["stock", "stock+vad", "steered+vad"], models, steer=f"{pack}@0.5")
    assert stock.options == {"kind": "stock", "suppress_blank": True, "vad_filter": False}
    assert quiet.options == {"kind": "stock", "suppress_blank": True, "vad_filter": True}
    assert steered.options["suppress_blank"] is False
    assert steered.options["vad_filter"] is True
    assert steered.options["strength"] == 0.5
    assert steered.options["pack"]["name"] == "gated"
    assert len(steered.options["pack"]["sha256"]) == 64


def test_what_cannot_be_steered_is_said_at_once(models: Models, tmp_path: Path) -> None:
    with pytest.raises(SteerOptionError, match="use the system 'stock'"):
        make_systems(["steered"], models, steer="off")
    with pytest.raises(PackError, match="unknown pack"):
        make_systems(["steered:no-such-pack"], models)
    foreign = save_pack(random_pack(WIDTH, "f" * 64), tmp_path / "foreign", card="")
    with pytest.raises(PackMismatchError):
        make_systems([f"steered:{foreign}"], models)


def test_a_device_that_is_not_there(models: Models) -> None:
    with pytest.raises(ModelError, match="cannot be loaded"):
        make_systems(["stock"], Models(ModelOptions(str(models.files.path), device="tpu")))
