"""One pack, three executors: torch edits as numpy does, and ct2, hybrid and hf give the same output and text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faster_whisper.audio import pad_or_trim
from faster_whisper.feature_extractor import FeatureExtractor

from steer_asr import hf
from steer_asr._torch_edit import edit_for, resolve_in_encoder
from steer_asr.audio import decode_audio
from steer_asr.ct2 import SteeredWhisperModel, load_model
from steer_asr.edits import Edit
from steer_asr.errors import HookPointError, PackMismatchError, SteerOptionError
from steer_asr.gate import Gate
from steer_asr.models import ModelFiles
from steer_asr.pack import SteerPack, load_pack
from steer_asr.steering import Steering, steer_frames
from steer_asr.transcription import Transcription
from tests.helpers import noise, tone
from tests.steer_asr.packs import build_pack, open_gate, random_pack
from tests.tiny_whisper import WIDTH

CLIPS = Path(__file__).parents[2] / "benchmarks" / "demo" / "clips"
CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny operations on many threads mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def half_open_gate(n: int, reach: int = 5) -> Gate:
    """Random evidence, smoothed, so that some frames get nothing, some a part and some all."""
    coefficients = np.random.default_rng(1).normal(0, 1, n).astype(np.float32)
    return Gate(coefficients, 0.1, 5, reach, (8.0, -12.0), (1.0, -2.0))


def relative_error(found: Any, wanted: Any) -> float:
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


@pytest.mark.parametrize(
    "gate",
    [None, half_open_gate(16), replace(half_open_gate(16, reach=1500), moment_calibration=(0.5, 0.3))],
    ids=["none", "near", "far"],
)
def test_torch_and_numpy_make_the_same_edit(gate: Gate | None) -> None:
    pack = random_pack(24, "0" * 64, gate=gate)
    x = np.random.default_rng(0).standard_normal((3, 200, 24)).astype(np.float32)
    strengths = (0.0, 0.4, 1.0)
    heard = (200, 150, 90)
    edited, reports = edit_for(pack, CPU)(torch.from_numpy(x), strengths, heard)
    for row, strength in enumerate(strengths):
        wanted = x[row].copy()
        said = steer_frames(wanted, pack, strength, heard[row])
        np.testing.assert_allclose(edited[row], wanted, atol=2e-5)
        np.testing.assert_allclose(reports[row].weights, said.weights, atol=1e-5)
        np.testing.assert_allclose(reports[row].nobody_speaks, said.nobody_speaks, atol=1e-5)
        np.testing.assert_allclose(reports[row].contribution, said.contribution, atol=1e-4)
        np.testing.assert_allclose(reports[row].activations, said.activations, atol=1e-5)
        found, expected = reports[row].nobody_speaks_now, said.nobody_speaks_now
        assert (found is None, expected is None) == (gate is None, gate is None)
        if found is not None and expected is not None:
            np.testing.assert_allclose(found, expected, atol=1e-5)
    assert not torch.equal(edited[1], torch.from_numpy(x[1]))


def test_every_kind_of_edit_is_the_same() -> None:
    edits = (Edit(7, "clamp", 1.5), Edit(8, "cap", 0.8), Edit(9, "scale", 0.5), Edit(9, "add", -0.25))
    pack = build_pack(edits=edits)
    x = np.random.default_rng(0).standard_normal((1, 50, 4)).astype(np.float32)
    edited, _ = edit_for(pack, CPU)(torch.from_numpy(x), [1.0])
    steer_frames(x[0], pack, 1.0)
    np.testing.assert_allclose(edited, x, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_frames_that_get_no_edit_keep_every_bit(dtype: torch.dtype) -> None:
    pack = random_pack(24, "0" * 64, gate=half_open_gate(16))
    x = torch.randn(2, 300, 24).to(dtype)
    before = x.clone()
    edited, reports = edit_for(pack, CPU)(x, [0.0, 1.0])
    assert edited.dtype == dtype
    assert torch.equal(x, before), "the input is not changed"
    assert torch.equal(edited[0], x[0])
    left, changed = torch.from_numpy(reports[1].weights == 0), torch.from_numpy(reports[1].weights > 0.5)
    assert left.any()
    assert changed.any()
    assert torch.equal(edited[1][left], x[1][left])
    assert not torch.equal(edited[1][changed], x[1][changed])
    in_full = edit_for(pack, CPU)(x.float(), [0.0, 1.0])[0]
    assert torch.equal(edited, in_full.to(dtype)), "computed in float32, rounded once"


def test_autocast_does_not_round_the_edit() -> None:
    pack, x = random_pack(24, "0" * 64), torch.randn(1, 100, 24)
    plain, _ = edit_for(pack, CPU)(x, [1.0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed, _ = edit_for(pack, CPU)(x, [1.0])
    assert torch.equal(plain, mixed)


def test_an_edit_made_in_inference_mode_serves_outside_of_it() -> None:
    pack, x = random_pack(24, "0" * 64), torch.randn(1, 10, 24, requires_grad=True)
    with torch.inference_mode():
        edit_for(pack, CPU)(x, [1.0])
    edit_for(pack, CPU)(x, [1.0])[0].sum().backward()
    assert x.grad is not None


def test_what_cannot_be_edited_is_refused() -> None:
    pack = random_pack(24, "0" * 64)
    for shape in ((100, 24), (1, 100, 25)):
        with pytest.raises(PackMismatchError, match=r"\[batch, frame, 24\]"):
            edit_for(pack, CPU)(torch.zeros(shape), [1.0])
    outside = random_pack(24, "0" * 64, hook_point="decoder.layers.0")
    with pytest.raises(HookPointError, match="outside the encoder"):
        resolve_in_encoder(torch.nn.Linear(2, 2), outside)


@pytest.fixture(scope="module")
def tiny(tiny_whisper_dir: Path) -> dict[str, Any]:
    """The tiny random Whisper in all three executors."""
    return executors(tiny_whisper_dir)


def executors(model: Any) -> dict[str, Any]:
    options: dict[str, Any] = {"compute_type": "float32", "cpu_threads": 1, "local_files_only": True, "device": "cpu"}
    return {name: load_model(model, executor=name, **options) for name in ("ct2", "hybrid")} | {"hf": hf.load(model)}


def outputs(models: dict[str, Any], mel: np.ndarray, pack: SteerPack, strength: float) -> dict[str, np.ndarray]:
    """The steered encoder output of each executor, [batch, frame, d_model]."""
    found = {
        name: np.array(models[name].steered(Steering(pack, strength)).encode(mel))
        for name in ("ct2", "hybrid")
        if name in models
    }
    whisper, _ = models["hf"]
    with torch.no_grad(), hf.steer(whisper, pack, strength):
        found["hf"] = whisper.model.encoder(torch.from_numpy(mel)).last_hidden_state.numpy()
    return found


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_executors_agree_on_the_encoder_output(tiny: dict[str, Any], strength: float) -> None:
    ct2: SteeredWhisperModel = tiny["ct2"]
    pack = random_pack(WIDTH, ct2.files.sha256, gate=half_open_gate(16))
    mel = np.stack([windowed(noise(4.0)), windowed(tone(20.0))])
    found = outputs(tiny, mel, pack, strength)
    assert relative_error(found["hybrid"], found["ct2"]) < 1e-4
    assert relative_error(found["hf"], found["ct2"]) < 1e-4
    plain = np.array(ct2.encode(mel))
    assert (relative_error(found["ct2"], plain) > 0.05) == (strength > 0)


@pytest.mark.parametrize("layer", [0, 1])
def test_inner_layers_are_edited_alike_where_they_can_be_reached(tiny: dict[str, Any], layer: int) -> None:
    sha256 = tiny["ct2"].files.sha256
    pack = random_pack(WIDTH, sha256, gate=open_gate(16), hook_point=f"encoder.layers.{layer}")
    mel = windowed(noise(4.0))[None]
    found = outputs({name: tiny[name] for name in ("hybrid", "hf")}, mel, pack, 1.0)
    assert relative_error(found["hybrid"], found["hf"]) < 1e-6
    assert relative_error(found["hf"], np.array(tiny["hybrid"].encode(mel))) > 0.01
    with pytest.raises(PackMismatchError, match=rf"encoder\.layers\.{layer}.*executor='hybrid'"):
        tiny["ct2"].steered(pack)


def test_only_known_executors_load(tiny_whisper_dir: Path) -> None:
    with pytest.raises(SteerOptionError, match=r"unknown executor 'hybird'; did you mean 'hybrid'"):
        load_model(tiny_whisper_dir, executor="hybird")
    with pytest.raises(SteerOptionError, match=r"steer_asr\.hf\.steer"):
        load_model(tiny_whisper_dir, executor="hf")


@pytest.mark.slow
def test_the_shipped_pack_gives_the_same_text_in_every_executor(tiny_en: ModelFiles) -> None:
    models, pack = executors("tiny.en"), load_pack("default", model_sha256=tiny_en.sha256)
    options: dict[str, Any] = {"beam_size": 1, "language": "en", "temperature": 0.0, "without_timestamps": True}
    for clip in ("speech.flac", "hum.flac"):
        audio = decode_audio(CLIPS / clip)
        found = outputs(models, windowed(audio)[None], pack, 1.0)
        assert relative_error(found["hybrid"], found["ct2"]) < 1e-4
        assert relative_error(found["hf"], found["ct2"]) < 1e-4
        texts = {
            name: Transcription.consume(*models[name].transcribe(audio, steer=pack, **options)).text
            for name in ("ct2", "hybrid")
        }
        made = hf.transcribe(audio, *models["hf"], steer=pack)
        assert made.steer is not None
        assert made.steer.windows[0].nobody_speaks == pytest.approx(float(clip != "speech.flac"), abs=0.2)
        assert texts | {"hf": made.text} == dict.fromkeys(("ct2", "hybrid", "hf"), texts["ct2"])


def windowed(audio: np.ndarray) -> np.ndarray:
    """faster-whisper's mel window, [80, 3000]."""
    return pad_or_trim(FeatureExtractor()(audio)[:, :-1]).astype(np.float32)
