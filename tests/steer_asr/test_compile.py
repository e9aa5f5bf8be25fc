"""Compiling: the neurons, the kernel, what stock CTranslate2 computes from the directory, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from math import erf
from pathlib import Path
from typing import Any

import ctranslate2
import faster_whisper
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from steer_asr.audio import decode_audio
from steer_asr.cli import app
from steer_asr.compile import compile_model, read_provenance
from steer_asr.compiling import calibration, circuit, memory
from steer_asr.compiling.layers import Ffn, rotary_amplitudes, rotary_kernel
from steer_asr.compiling.reference import Reference
from steer_asr.edits import Edit
from steer_asr.errors import OutputError, PackError, PackMismatchError, SteerOptionError
from steer_asr.gate import Gate
from steer_asr.models import ModelFiles, find_model
from steer_asr.pack import SteerPack
from steer_asr.steering import Steering, steer_frames
from tests.helpers import noise
from tests.steer_asr.packs import build_pack, open_gate, random_pack
from tests.tiny_whisper import WIDTH

CLIPS = Path(__file__).parents[2] / "benchmarks" / "demo" / "clips"
RAW: dict[str, Any] = {"beam_size": 1, "temperature": 0.0, "no_speech_threshold": None}
"""No rule drops what is written."""
WITHOUT_SPEECH = ("drums", "hum", "near-silence")
"""Not `frogs`: the live gate gives it two thirds of the edit, too near one half (docs/compile.md)."""


@pytest.fixture(scope="module", autouse=True)
def short() -> Iterator[None]:
    """One thread, few sounds, few steps: the tiny model is random, and has nothing to find."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    patch = pytest.MonkeyPatch()
    patch.setattr(memory, "STEPS", 2)
    patch.setattr(calibration, "SECONDS", (1.0, 2.0))
    yield
    patch.undo()
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tiny(tiny_whisper_dir: Path) -> ModelFiles:
    return find_model(tiny_whisper_dir)


def always(offset: float, n: int = 16) -> Gate:
    return Gate(np.zeros(n, np.float32), 0.0, 1, 1500, (1.0, offset), (1.0, offset))


def encode(folder: Path, mel: np.ndarray, compute_type: str = "float32") -> np.ndarray:
    whisper = ctranslate2.models.Whisper(str(folder), compute_type=compute_type, intra_threads=1)
    return np.array(whisper.encode(ctranslate2.StorageView.from_array(mel)))[0]


def a_mel() -> np.ndarray:
    return np.random.default_rng(3).normal(0, 0.5, (1, 80, 3000)).astype(np.float32)


def relative(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def run(ffn: Ffn, seen: np.ndarray) -> np.ndarray:
    """What CTranslate2 computes from the variables, for frames that the LayerNorm shows as `seen`."""
    made = ffn.variables("ffn")
    inner = seen @ made["ffn/linear_0/weight"].T + made["ffn/linear_0/bias"]
    inner *= 0.5 * (1 + np.vectorize(erf)(inner / np.sqrt(2)))
    return inner @ made["ffn/linear_1/weight"].T + made["ffn/linear_1/bias"]


def test_neurons_compute_relu_ramp_and_identity() -> None:
    one, other = np.eye(4)[0], np.eye(4)[2]
    seen = np.zeros((201, 4))
    seen[:, 0] = v = np.linspace(-5, 5, 201)
    for build, wanted, tolerance in (
        (lambda f: f.relu(one, -1.0, other), np.maximum(v - 1, 0), 0.011),
        (lambda f: f.linear(one, 0.5, other), v + 0.5, 1e-9),
        (lambda f: f.step(one, -2.0, 1.0, other), np.clip(v - 1.5, 0, 1), 0.011),
    ):
        ffn = Ffn(np.ones(4), np.zeros(4))
        build(ffn)
        assert np.abs(run(ffn, seen)[:, 2] - wanted).max() < tolerance
        assert np.abs(run(ffn, seen)[:, [0, 1, 3]]).max() == 0


def test_a_feature_is_its_jumprelu_outside_the_ramp() -> None:
    pack = random_pack(24, "0" * 64)
    x = np.random.default_rng(0).standard_normal((400, 24)).astype(np.float32)
    ffn, write = Ffn(np.ones(24), np.zeros(24)), np.eye(24)[5]
    circuit.add_feature(ffn, pack, 3, write)
    z = pack.features.encode(x)[:, 3]
    h = x @ pack.features.W_enc[:, 3]
    clear = np.abs(h - 0.1) > 0.15
    assert np.abs(run(ffn, x)[clear, 5] - z[clear]).max() < 0.02
    assert clear.mean() > 0.5


@pytest.mark.parametrize("variance", [0.7, 4.0, 10.0, 40.0])
def test_the_rotary_kernel_is_a_bell_of_the_wanted_width(variance: float) -> None:
    weights = rotary_kernel(rotary_amplitudes(variance), 1500)
    distance = np.arange(1500)
    assert (2 * weights * distance**2).sum() / (2 * weights.sum() - 1) == pytest.approx(variance, rel=0.02)
    assert weights[distance > 8 * variance**0.5].max(initial=0) < 1e-3, "it comes back"


def test_everything_is_overwritten_where_the_gate_is_open(tiny: ModelFiles, tmp_path: Path) -> None:
    pack = random_pack(WIDTH, tiny.sha256, gate=open_gate(16))
    made = compile_model(tiny.path, pack, tmp_path / "out")
    assert (made.layers, made.rule) == (3, "window")
    assert read_provenance(tmp_path / "out") == made
    found = encode(tmp_path / "out", a_mel())
    assert found.std(axis=0).max() < 0.02, "all frames are the silent memory"
    assert encode(tiny.path, a_mel()).std(axis=0).min() > 0.1


def test_nothing_but_the_quiet_directions_changes_where_the_gate_is_shut(
    tiny: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "steer_asr.compile.gated_layers", lambda pack, _gate, *rest: circuit.gated_layers(pack, always(5.0), *rest)
    )
    compile_model(tiny.path, random_pack(WIDTH, tiny.sha256, gate=open_gate(16)), tmp_path / "out")
    residual = calibration.measure(Reference(tiny).residual)
    for compute_type, allowed in (("float32", 0.1), ("int8", 0.15)):
        found, plain = (encode(p, a_mel(), compute_type) for p in (tmp_path / "out", tiny.path))
        rest = np.eye(WIDTH) - residual.quiet.T @ residual.quiet
        kept, wanted = found @ rest, plain @ rest
        scale = np.linalg.norm(wanted, axis=1, keepdims=True) / np.linalg.norm(kept, axis=1, keepdims=True)
        assert relative(kept * scale, wanted) < allowed, compute_type


def test_a_pack_without_a_gate_is_one_layer_that_edits_as_live(tiny: ModelFiles, tmp_path: Path) -> None:
    edits = (Edit(0, "scale", 0.0), Edit(1, "clamp", 0.3), Edit(2, "cap", 0.5), Edit(3, "add", 0.2))
    pack = replace(random_pack(WIDTH, tiny.sha256), edits=edits)
    made = compile_model(tiny.path, Steering(pack=pack, strength=0.3), tmp_path / "out")
    assert (made.layers, made.rule, made.strength) == (1, "frame", 0.3)
    plain, found = encode(tiny.path, a_mel()), encode(tmp_path / "out", a_mel())
    live = plain.copy()
    steer_frames(live, pack, 0.3)
    change, ours = (live - plain).ravel(), (found - plain).ravel()
    assert np.linalg.norm(change) > 0.02 * np.linalg.norm(plain)
    assert ours @ change / np.linalg.norm(ours) / np.linalg.norm(change) > 0.8, "the same direction"


def test_the_end_may_come_first_and_the_rest_of_the_switches_stay(tiny: ModelFiles, tmp_path: Path) -> None:
    compile_model(tiny.path, random_pack(WIDTH, tiny.sha256), tmp_path / "out")
    ours, theirs = (json.loads((p / "config.json").read_text()) for p in (tmp_path / "out", tiny.path))
    assert set(theirs.pop("suppress_ids_begin")) - set(ours.pop("suppress_ids_begin")) == {50256}
    assert ours == theirs
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (tiny.path / "tokenizer.json").read_bytes()
    faster_whisper.WhisperModel(str(tmp_path / "out"), compute_type="float32", cpu_threads=1)


@pytest.mark.parametrize(
    ("steer", "error", "says"),
    [
        ("off", SteerOptionError, "off"),
        (0.0, SteerOptionError, "strength 0"),
        ({"early_exit": True}, SteerOptionError, "early_exit"),
        ({"pack": build_pack()}, PackMismatchError, "was made for"),
    ],
)
def test_what_cannot_be_compiled_is_refused(
    tiny: ModelFiles, tmp_path: Path, steer: object, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        compile_model(tiny.path, steer, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"hook_point": "encoder.layers.1"}, "only packs for 'encoder.output'"),
        ({"gate": Gate(np.zeros(16, np.float32), 0.0, 101, 0, (1.0, 0.0), (1.0, 0.0))}, "smooths over 101"),
        ({"gate": Gate(np.zeros(16, np.float32), 0.0, 1, 0, (-1.0, 0.0), (1.0, 0.0))}, "slope"),
    ],
)
def test_packs_that_do_not_compile_say_why(
    tiny: ModelFiles, tmp_path: Path, change: dict[str, object], says: str
) -> None:
    pack: SteerPack = replace(random_pack(WIDTH, tiny.sha256), **change)  # pyright: ignore[reportArgumentType]
    with pytest.raises(PackMismatchError, match=says):
        compile_model(tiny.path, pack, tmp_path / "out")


def test_only_a_compiled_directory_is_replaced_and_only_by_force(tiny: ModelFiles, tmp_path: Path) -> None:
    pack = random_pack(WIDTH, tiny.sha256)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="left alone"):
        compile_model(tiny.path, pack, tmp_path / "mine", force=True)
    compile_model(tiny.path, pack, tmp_path / "out")
    with pytest.raises(OutputError, match="--force"):
        compile_model(tiny.path, pack, tmp_path / "out")
    assert compile_model(tiny.path, Steering(pack=pack, strength=0.5), tmp_path / "out", force=True).strength == 0.5
    with pytest.raises(PackMismatchError, match="compiled already"):
        compile_model(tmp_path / "out", pack, tmp_path / "again")


def test_verify_wants_a_compiled_directory(tiny: ModelFiles) -> None:
    result = CliRunner().invoke(app, ["verify", str(tiny.path)])
    assert isinstance(result.exception, PackError)
    assert "was not made by steer-asr compile" in str(result.exception)


@pytest.mark.slow
def test_stock_faster_whisper_is_silent_with_it_and_writes_what_is_said(
    tiny_en: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "STEPS", 80)
    monkeypatch.setattr(calibration, "SECONDS", (2.0, 8.0, 20.0, 30.0))
    result = CliRunner().invoke(app, ["compile", "--model", "tiny.en", "-o", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    stock = faster_whisper.WhisperModel(str(tiny_en.path), device="cpu", compute_type="float32")
    wrote = 0
    for compute_type in ("float32", "int8"):
        ours = faster_whisper.WhisperModel(str(tmp_path / "out"), device="cpu", compute_type=compute_type)
        for name in WITHOUT_SPEECH:
            audio = decode_audio(CLIPS / f"{name}.flac")
            ways: list[dict[str, Any]] = [{}, {"without_timestamps": True}, RAW, RAW | {"without_timestamps": True}]
            for options in ways:
                assert "".join(s.text for s in ours.transcribe(audio, **options)[0]) == "", (name, options)
            wrote += bool("".join(s.text for s in stock.transcribe(audio, **RAW)[0]).strip())
    assert wrote > 0, "the clips show nothing: stock is silent on them too"
    ours = faster_whisper.WhisperModel(str(tmp_path / "out"), device="cpu", compute_type="float32")
    for audio in (decode_audio(CLIPS / "speech.flac"), decode_audio(CLIPS / "speech-short.flac")):
        texts = ["".join(s.text for s in model.transcribe(audio)[0]) for model in (ours, stock)]
        assert texts[0] == texts[1] != ""
    assert "".join(s.text for s in ours.transcribe(noise(4))[0]) == ""
