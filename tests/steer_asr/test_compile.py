"""Compiling: the neurons, the kernel, what stock CTranslate2 computes from the directory, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import erf
from pathlib import Path
from typing import Any

import ctranslate2
import faster_whisper
import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from steer_asr.audio import decode_audio
from steer_asr.cli import app
from steer_asr.compile import compile_model, read_provenance
from steer_asr.compiling import answer, calibration, circuit, distil
from steer_asr.compiling.distil import Examples, fit_readout
from steer_asr.compiling.layers import Ffn, Pooling, head_dim
from steer_asr.compiling.readout import Readout, load_readout, save_readout
from steer_asr.edits import Edit
from steer_asr.errors import OutputError, PackError, PackMismatchError, SteerOptionError
from steer_asr.gate import Gate
from steer_asr.models import ModelFiles, find_model
from steer_asr.pack import SteerPack, load_pack, save_pack
from steer_asr.steering import Steering, steer_frames
from steer_asr.verify import Check, verify
from tests.helpers import noise
from tests.steer_asr.packs import build_pack, open_gate, random_pack
from tests.tiny_whisper import HEADS, WIDTH

CLIPS = Path(__file__).parents[2] / "benchmarks" / "demo" / "clips"
RAW: dict[str, Any] = {"beam_size": 1, "temperature": 0.0, "no_speech_threshold": None}
"""No rule drops what is written."""
WITHOUT_SPEECH = ("drums", "frogs", "hum", "near-silence")
SPEECH, SILENCE = 5.0, -5.0


@pytest.fixture(scope="module", autouse=True)
def short() -> Iterator[None]:
    """One thread, few sounds: the tiny model is random, and has nothing to find."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    patch = pytest.MonkeyPatch()
    patch.setattr("steer_asr.compile.SOUNDS", 2)
    patch.setattr(answer, "STEPS", 60)
    patch.setattr(calibration, "SECONDS", (1.0, 2.0))
    yield
    patch.undo()
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tiny(tiny_whisper_dir: Path) -> ModelFiles:
    return find_model(tiny_whisper_dir)


def gated(tiny: ModelFiles, folder: Path, log_odds: float = SILENCE) -> SteerPack:
    """A pack whose gate is open, on disk, with a readout that says `log_odds` of everything."""
    save_pack(random_pack(WIDTH, tiny.sha256, gate=open_gate(16)), folder, card="")
    pack, rng = load_pack(folder), np.random.default_rng(1)
    keys, values = (0.1 * rng.standard_normal((HEADS, WIDTH)).astype(np.float32) for _ in range(2))
    save_readout(folder, Readout(keys, 0.01 * values, log_odds, pack.sha256, 99, 0.25, 0.5))
    return load_pack(folder)


def encode(folder: Path, mel: np.ndarray, compute_type: str = "float32") -> np.ndarray:
    whisper = ctranslate2.models.Whisper(str(folder), compute_type=compute_type, intra_threads=1)
    return np.array(whisper.encode(ctranslate2.StorageView.from_array(mel)))[0]


def first_logits(folder: Path, compute_type: str = "float32", *, earlier: Sequence[int] = ()) -> np.ndarray:
    whisper = ctranslate2.models.Whisper(str(folder), compute_type=compute_type, intra_threads=1)
    prompt = [*earlier, 50257, 50362]
    result = whisper.generate(
        ctranslate2.StorageView.from_array(a_mel()), [prompt], beam_size=1, max_length=len(prompt) + 2,
        suppress_blank=False, suppress_tokens=[], return_logits_vocab=True,
    )  # fmt: skip
    return np.array(result[0].logits[0][0])


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


@pytest.mark.parametrize(("heads", "dim"), [(2, 2), (6, 2), (8, 1), (12, 1), (20, 1), (3, 4)])
def test_rows_are_whole_multiples_of_four(heads: int, dim: int) -> None:
    assert head_dim(heads) == dim
    pooling = Pooling(np.ones((heads, 8)), np.ones((heads, 8)), np.ones(8)).variables("a")
    assert pooling["a/linear_2/weight"].shape[1] % 4 == 0
    assert Ffn(np.ones(8), np.zeros(8)).variables("f")["f/linear_1/weight"].shape[1] % 4 == 0


def test_in_windows_without_speech_the_text_ends_whatever_came_before(tiny: ModelFiles, tmp_path: Path) -> None:
    made = compile_model(tiny.path, gated(tiny, tmp_path / "pack"), tmp_path / "out")
    assert (made.layers, made.rule, made.silenced, made.missed) == (2, "window", 0.25, 0.5)
    assert read_provenance(tmp_path / "out") == made
    assert made.silence is not None
    assert made.silence > 50 / 51864, "32 dimensions cannot tell 51864 tokens further apart"
    for compute_type in ("float32", "int8"):
        for earlier in ((), (50360, 314, 290)):
            assert first_logits(tmp_path / "out", compute_type, earlier=earlier).argmax() == 50256, compute_type
    assert first_logits(tiny.path).argmax() != 50256
    np.testing.assert_array_equal(encode(tmp_path / "out", a_mel()), encode(tiny.path, a_mel()))


def test_in_windows_with_speech_nothing_changes(tiny: ModelFiles, tmp_path: Path) -> None:
    compile_model(tiny.path, gated(tiny, tmp_path / "pack", SPEECH), tmp_path / "out")
    for compute_type, allowed in (("float32", 1e-5), ("int8", 1e-3)):
        assert relative(first_logits(tmp_path / "out", compute_type), first_logits(tiny.path, compute_type)) < allowed
    for compute_type in ("float32", "int8"):
        found, plain = (encode(p, a_mel(), compute_type) for p in (tmp_path / "out", tiny.path))
        np.testing.assert_array_equal(found, plain)


def test_what_the_decoder_reads_is_what_the_readout_says(tiny: ModelFiles, tmp_path: Path) -> None:
    """The answer comes where the readout falls below its threshold, and not before."""
    pack = gated(tiny, tmp_path / "pack", 0.0)
    readout = load_readout(pack)
    assert readout is not None
    natural = readout.log_odds(encode(tiny.path, a_mel()))
    for wanted, silent in ((0.3, False), (-0.5, True)):
        save_readout(tmp_path / "pack", replace(readout, bias=wanted - natural))
        compile_model(tiny.path, pack, tmp_path / "out", force=True)
        assert bool(first_logits(tmp_path / "out").argmax() == 50256) is silent, wanted


def test_a_readout_says_what_the_gate_says() -> None:
    """Speech is one direction, and so is a loud noise that the gate does not mind."""
    rng = np.random.default_rng(0)
    pack = random_pack(WIDTH, "0" * 64, gate=Gate(np.eye(16)[0] * 3, -4.0, 11, 1500, (1.0, 0.0), (1.0, 0.0)))
    examples, direction = Examples(pack), pack.features.W_dec[0]
    windows = []
    for i in range(120):
        x = 0.2 * rng.standard_normal((300, WIDTH)).astype(np.float32)
        start = rng.integers(0, 250)
        x[start : start + 40] += (4.0 if i % 2 else 0.3) * direction
        windows.append(x)
        examples.add(x)
    readout = fit_readout(examples, 2, epochs=20)
    assert (readout.heads, readout.windows, readout.pack_sha256) == (2, 120, pack.sha256)
    assert (readout.silenced, readout.missed) <= (0.1, 0.1)
    said = np.array([readout.log_odds(x) > 0 for x in windows])
    assert (said == (np.array(examples.best) > 0)).mean() > 0.95
    again = fit_readout(examples, 2, epochs=20)
    np.testing.assert_array_equal(again.keys, readout.keys)


def test_a_gate_that_knows_one_answer_cannot_teach() -> None:
    examples = Examples(random_pack(WIDTH, "0" * 64, gate=open_gate(16)))
    for _ in range(distil.FEWEST):
        examples.add(np.zeros((20, WIDTH), np.float32))
    with pytest.raises(PackMismatchError, match=r"leaves 0 windows alone and silences 40.*both sorts"):
        fit_readout(examples, 2)


def test_a_readout_belongs_to_one_state_of_one_pack(tiny: ModelFiles, tmp_path: Path) -> None:
    pack = gated(tiny, tmp_path / "pack")
    with pytest.raises(PackError, match="another state of pack"):
        load_readout(replace(pack, edits=pack.edits[:3]))
    (tmp_path / "pack" / "readout.safetensors").write_bytes(b"not a tensor")
    with pytest.raises(PackError, match="broken"):
        load_readout(pack)
    (tmp_path / "pack" / "readout.safetensors").unlink()
    assert load_readout(pack) is None
    with pytest.raises(PackMismatchError, match="--listen"):
        compile_model(tiny.path, pack, tmp_path / "out")


def test_a_readout_can_be_fitted_while_compiling(
    tiny: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distil, "FEWEST", 2)
    tone = (0.3 * np.sin(np.arange(16_000) / 5)).astype(np.float32)
    for name, samples in (("tone", tone), ("silence", 0 * tone)):
        soundfile.write(tmp_path / f"{name}.wav", samples, 16_000)
    clips = [{"audio_filepath": f"{n}.wav", "duration": 1.0, "kind": "nonspeech"} for n in ("tone", "silence") * 3]
    manifest = tmp_path / "clips.jsonl"
    manifest.write_text("".join(json.dumps(clip) + "\n" for clip in clips))
    save_pack(random_pack(WIDTH, tiny.sha256, gate=open_gate(16)), tmp_path / "pack", card="")
    with pytest.raises(PackMismatchError, match="both sorts"):  # the gate is always open
        compile_model(tiny.path, load_pack(tmp_path / "pack"), tmp_path / "out", listen=[manifest])
    assert not (tmp_path / "out").exists()


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


def test_verify_writes_its_table_and_takes_it_up_again(
    tiny: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steer_asr.verify.SOUNDS", 2)
    compile_model(tiny.path, gated(tiny, tmp_path / "pack"), tmp_path / "out")
    options: dict[str, Any] = {"model": tiny.path, "pack": tmp_path / "pack", "out": tmp_path / "table"}
    checks = list(verify(tmp_path / "out", compute_types=["float32"], **options))
    assert [check.what for check in checks] == ["same windows silent, 2 windows"], "the gate leaves none alone"
    assert checks[0].ok is True
    assert "| float32 | same windows silent, 2 windows | 100.0%" in (tmp_path / "table.md").read_text()
    monkeypatch.setattr("steer_asr.verify._check_encoder", lambda *_: iter([Check("int8", "new", "1", False)]))
    both = list(verify(tmp_path / "out", compute_types=["float32", "int8"], **options))
    assert both == [*checks, Check("int8", "new", "1", False)], "float32 is not measured again"
    assert [row["what"] for row in json.loads((tmp_path / "table.json").read_text())["checks"]] == [
        check.what for check in both
    ]
    (tmp_path / "table.json").write_text("[]")
    with pytest.raises(OutputError, match="no table of verify"):
        list(verify(tmp_path / "out", compute_types=["float32"], **options))


@pytest.mark.slow
def test_stock_faster_whisper_is_silent_with_it_and_writes_what_is_said(
    tiny_en: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer, "STEPS", 200)
    monkeypatch.setattr("steer_asr.compile.SOUNDS", 6)
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
