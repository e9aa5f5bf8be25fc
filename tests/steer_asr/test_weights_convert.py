"""CTranslate2 <-> transformers: the same numbers, the same text, on real and on tiny random weights."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ctranslate2
import faster_whisper
import numpy as np
import pytest

pytest.importorskip("torch", reason="needs steer-asr[torch]")

import torch
from faster_whisper.audio import pad_or_trim
from faster_whisper.feature_extractor import FeatureExtractor
from transformers import WhisperForConditionalGeneration

from steer_asr._files import sha256_of
from steer_asr.errors import OutputError, WeightsError
from steer_asr.weights.convert import ct2_from_hf, hf_from_ct2, read_json
from steer_asr.weights.ct2_format import ModelBin, read_model_bin, write_model_bin

REAL = ["tiny_en", pytest.param("base", marks=pytest.mark.slow)]
MODELS = [*REAL, "tiny_whisper_dir", "tiny_multilingual_dir"]
TOLERANCE = 1e-5
LIMIT = 60  # tokens, the prompt included; CTranslate2 halves the `max_length` it is given


@pytest.fixture
def folder(request: pytest.FixtureRequest) -> Path:
    """The CTranslate2 directory of the fixture that a test is parametrised with."""
    files = request.getfixturevalue(request.param)
    return files if isinstance(files, Path) else files.path


@pytest.fixture(scope="module")
def mel(speech: np.ndarray) -> np.ndarray:
    """[1, 80, 3000], as faster-whisper makes it."""
    return pad_or_trim(FeatureExtractor()(speech))[None]


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def ct2_of(folder: Path) -> ctranslate2.models.Whisper:
    return ctranslate2.models.Whisper(str(folder), device="cpu", compute_type="float32", intra_threads=1)


def ct2_encoding(whisper: ctranslate2.models.Whisper, mel: np.ndarray) -> np.ndarray:
    return np.array(whisper.encode(ctranslate2.StorageView.from_array(mel)))


def prompt(multilingual: bool) -> list[int]:
    """English, transcribe, without timestamps."""
    return [50258, 50259, 50359, 50363] if multilingual else [50257, 50362]


def ct2_tokens(whisper: ctranslate2.models.Whisper, mel: np.ndarray) -> list[int]:
    """Greedy tokens after the prompt. Timestamps are suppressed: a random model writes them anyway, and transformers
    would go on to another window then."""
    start = prompt(whisper.is_multilingual)
    suppressed = [-1, *range(start[-1] + 1, start[-1] + 1502)]
    features = ctranslate2.StorageView.from_array(mel)
    result = whisper.generate(features, [start], beam_size=1, max_length=2 * LIMIT, suppress_tokens=suppressed)
    return result[0].sequences_ids[0]


def hf_encoding(model: WhisperForConditionalGeneration, mel: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model.model.encoder(torch.from_numpy(mel)).last_hidden_state.numpy()


def hf_tokens(model: WhisperForConditionalGeneration, mel: np.ndarray) -> list[int]:
    """The same by transformers' own `generate`, which finds all else that it needs in the model."""
    known: Any = model.generation_config
    start = prompt(known.is_multilingual)
    suppressed = [*known.suppress_tokens, *range(start[-1] + 1, start[-1] + 1502)]
    options: dict[str, Any] = {"language": "en", "task": "transcribe"} if known.is_multilingual else {}
    options |= {"max_length": LIMIT, "suppress_tokens": suppressed, "do_sample": False, "num_beams": 1}
    generated: Any = model.generate(torch.from_numpy(mel), **options)
    tokens: list[int] = generated[0].tolist()
    tokens = tokens[len(start) :] if tokens[: len(start)] == start else tokens
    return tokens[: tokens.index(known.eos_token_id)] if known.eos_token_id in tokens else tokens


@pytest.mark.parametrize("folder", MODELS, indirect=True)
def test_torch_computes_what_ctranslate2_computes(folder: Path, mel: np.ndarray) -> None:
    whisper, model = ct2_of(folder), hf_from_ct2(folder)
    assert relative_error(hf_encoding(model, mel), ct2_encoding(whisper, mel)) < TOLERANCE
    tokens = ct2_tokens(whisper, mel)
    assert len(tokens) > 10
    assert hf_tokens(model, mel) == tokens


@pytest.mark.parametrize("folder", MODELS, indirect=True)
def test_there_and_back_is_the_same_file(folder: Path, tmp_path: Path) -> None:
    original = folder / "model.bin"
    dtype = read_model_bin(original)["encoder/conv1/weight"].dtype.name
    back = ct2_from_hf(hf_from_ct2(folder), tmp_path / "back", like=folder, dtype=dtype)
    assert sha256_of(back / "model.bin") == sha256_of(original)
    for name in ("config.json", "tokenizer.json", "vocabulary.txt"):
        assert (back / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.parametrize("folder", MODELS, indirect=True)
def test_stock_faster_whisper_loads_what_torch_had(folder: Path, mel: np.ndarray, tmp_path: Path) -> None:
    """Every tensor is changed a little first, so that nothing of the template can stand in for it."""
    model = hf_from_ct2(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 + 0.002 * torch.randn(parameter.shape))
    ct2_from_hf(model, tmp_path / "changed", like=folder)
    loaded = faster_whisper.WhisperModel(str(tmp_path / "changed"), compute_type="float32", cpu_threads=1)
    ours, stock = ct2_encoding(loaded.model, mel), ct2_encoding(ct2_of(folder), mel)
    assert relative_error(ours, hf_encoding(model, mel)) < TOLERANCE
    assert relative_error(ours, stock) > 100 * TOLERANCE
    assert ct2_tokens(loaded.model, mel) == hf_tokens(model, mel)


@pytest.mark.parametrize("folder", REAL, indirect=True)
def test_converted_weights_transcribe_the_same_text(folder: Path, speech: np.ndarray, tmp_path: Path) -> None:
    ct2_from_hf(hf_from_ct2(folder), tmp_path / "copy", like=folder)

    def text(path: Path) -> str:
        whisper = faster_whisper.WhisperModel(str(path), compute_type="float32", cpu_threads=1)
        return "".join(segment.text for segment in whisper.transcribe(speech, language="en", beam_size=1)[0])

    assert text(tmp_path / "copy") == text(folder)
    assert "Dashwood" in text(folder)


def test_transformers_is_told_which_tokens_are_which(tiny_whisper_dir: Path, tiny_multilingual_dir: Path) -> None:
    """The numbers are those of OpenAI's checkpoints on the hub."""
    for folder, shift in ((tiny_whisper_dir, 0), (tiny_multilingual_dir, 1)):
        known: Any = hf_from_ct2(folder).generation_config
        switches = read_json(folder / "config.json")
        assert known.suppress_tokens == switches["suppress_ids"]
        assert known.begin_suppress_tokens == switches["suppress_ids_begin"] == [220, 50256 + shift]
        assert known.alignment_heads == [[1, 0]]
        assert (known.eos_token_id, known.pad_token_id, known.bos_token_id) == (50256 + shift,) * 3
        assert (known.decoder_start_token_id, known.prev_sot_token_id) == (50257 + shift, 50360 + shift)
        assert (known.no_timestamps_token_id, known.max_length) == (50362 + shift, 448)
        assert known.is_multilingual is bool(shift)
    assert known.task_to_id == {"transcribe": 50359, "translate": 50358}
    assert len(known.lang_to_id) == 99
    assert [known.lang_to_id[f"<|{lang}|>"] for lang in ("en", "de", "su")] == [50259, 50261, 50357]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrow_types_are_read_by_both(dtype: str, tiny_whisper_dir: Path, mel: np.ndarray, tmp_path: Path) -> None:
    original = hf_from_ct2(tiny_whisper_dir)
    narrow = ct2_from_hf(original, tmp_path / dtype, like=tiny_whisper_dir, dtype=dtype)
    model = hf_from_ct2(narrow)
    assert relative_error(hf_encoding(model, mel), ct2_encoding(ct2_of(narrow), mel)) < TOLERANCE
    assert 0 < relative_error(hf_encoding(model, mel), hf_encoding(original, mel)) < 0.02


@pytest.mark.slow
@pytest.mark.data
def test_audio_collection_gives_the_same_text(shared_data: Path, tiny_en: Any) -> None:
    """Telephone prompts, words and sentences from other sources than the clip in the repository."""
    from steer_asr.audio import decode_audio
    from steer_asr.manifest import read_manifest

    clips = read_manifest(shared_data / "manifests" / "dev_speech.jsonl")[::60]
    whisper, model = ct2_of(tiny_en.path), hf_from_ct2(tiny_en.path)
    for clip in clips:
        mel = pad_or_trim(FeatureExtractor()(decode_audio(clip.audio_path)))[None]
        assert hf_tokens(model, mel) == ct2_tokens(whisper, mel), clip.audio_path


def changed(folder: Path, target: Path, change: Callable[[dict[str, np.ndarray]], Any], **header: Any) -> Path:
    """A copy of a CTranslate2 directory with some variables replaced."""
    shutil.copytree(folder, target)
    source = read_model_bin(folder / "model.bin")
    variables = dict(source.variables)
    change(variables)
    write_model_bin(target / "model.bin", dataclasses.replace(source, variables=variables, **header))
    return target


QUERY = "encoder/layer_0/self_attention/linear_0/weight"
FAULTS: dict[str, tuple[Callable[[dict[str, np.ndarray]], Any], str]] = {
    "int8": (lambda v: v.update({QUERY: v[QUERY].astype(np.int8)}), f"{QUERY} is stored as int8"),
    "missing": (lambda v: v.pop(QUERY), f"no variable '{QUERY}'"),
    "no layers": (lambda v: [v.pop(n) for n in list(v) if n.startswith("decoder/layer_")], "decoder/layer_0"),
    "no third": (lambda v: v.update({QUERY: v[QUERY][:-1]}), "does not hold 3 equal blocks"),
    "scalar": (lambda v: v.update({QUERY: np.array(1.0, np.float32)}), "does not hold 3 equal blocks"),
    "other width": (lambda v: v.update({QUERY: v[QUERY][:, :-1].copy()}), "size mismatch for .*self_attn"),
    "flat": (lambda v: v.update({"decoder/embeddings/weight": np.ones(9, np.float32)}), "2 dimensions"),
    "heads": (lambda v: v.update({"encoder/num_heads": np.array(7, np.int16)}), "encoder/num_heads is 7"),
    "no heads": (lambda v: v.update({"decoder/num_heads": np.array(0, np.int16)}), "decoder/num_heads is 0"),
    "many heads": (lambda v: v.update({"decoder/num_heads": np.ones(2, np.int16)}), r"decoder/num_heads is \[1, 1\]"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_weights_that_are_not_whole_are_refused(fault: str, tiny_whisper_dir: Path, tmp_path: Path) -> None:
    change, message = FAULTS[fault]
    folder = changed(tiny_whisper_dir, tmp_path / "broken", change)
    with pytest.raises(WeightsError, match=message):
        hf_from_ct2(folder)


def test_another_kind_of_model_is_refused(tiny_whisper_dir: Path, tmp_path: Path) -> None:
    folder = changed(tiny_whisper_dir, tmp_path / "other", lambda v: v, spec_name="TransformerSpec")
    with pytest.raises(WeightsError, match="'TransformerSpec' is not a Whisper model"):
        hf_from_ct2(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, r"config\.json: cannot be read as JSON"),
        ("config.json", "[]", r"config\.json: expected a JSON object"),
        ("config.json", '{"suppress_ids": 1', r"config\.json: cannot be read as JSON"),
        ("tokenizer.json", "{}", r"tokenizer\.json is not that of a Whisper model"),
        ("tokenizer.json", '{"added_tokens": [1]}', r"tokenizer\.json is not that of a Whisper model"),
        ("tokenizer.json", '{"added_tokens": [{"content": "a", "id": 1}]}', "notimestamps"),
    ],
)
def test_broken_side_files_are_refused(
    name: str, content: str | None, message: str, tiny_whisper_dir: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_whisper_dir, tmp_path / "broken")
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content, encoding="utf-8")
    with pytest.raises(WeightsError, match=message):
        hf_from_ct2(folder)


def test_a_template_of_another_architecture_is_refused(
    tiny_whisper_dir: Path, tiny_multilingual_dir: Path, tmp_path: Path
) -> None:
    model = hf_from_ct2(tiny_whisper_dir)

    def drop_last_layer(variables: dict[str, np.ndarray]) -> None:
        for name in [name for name in variables if "encoder/layer_1/" in name]:
            del variables[name]

    templates = {
        r"embeddings/weight: the model has shape \(51864, 32\), the template \(51865, 32\)": tiny_multilingual_dir,
        r"encoder: the model has \(layers, heads\) \(2, 2\), the template \(1, 2\)": changed(
            tiny_whisper_dir, tmp_path / "shallow", drop_last_layer
        ),
        r"decoder: the model has \(layers, heads\) \(2, 2\), the template \(2, 4\)": changed(
            tiny_whisper_dir, tmp_path / "heads", lambda v: v.update({"decoder/num_heads": np.array(4, np.int16)})
        ),
        "has encoder/layer_0/ffn/linear_0_noact/weight": changed(
            tiny_whisper_dir,
            tmp_path / "gated",
            lambda v: v.update({"encoder/layer_0/ffn/linear_0_noact/weight": np.ones((128, 32), np.float32)}),
        ),
    }
    for message, like in templates.items():
        with pytest.raises(WeightsError, match=message):
            ct2_from_hf(model, tmp_path / "out", like=like)
    assert not (tmp_path / "out").exists()


def test_what_a_ctranslate2_whisper_cannot_hold_is_refused(tiny_whisper_dir: Path, tmp_path: Path) -> None:
    untied = hf_from_ct2(tiny_whisper_dir)
    untied.proj_out.weight = torch.nn.Parameter(untied.proj_out.weight.detach() * 2)
    with pytest.raises(WeightsError, match="not tied"):
        ct2_from_hf(untied, tmp_path / "out", like=tiny_whisper_dir)
    large = hf_from_ct2(tiny_whisper_dir)
    with torch.no_grad():
        large.model.encoder.conv1.weight.mul_(1e6)
    with pytest.raises(WeightsError, match="cannot be stored as float16"):
        ct2_from_hf(large, tmp_path / "out", like=tiny_whisper_dir, dtype="float16")
    with pytest.raises(WeightsError, match="'int8' is not one of float32, float16, bfloat16"):
        ct2_from_hf(large, tmp_path / "out", like=tiny_whisper_dir, dtype="int8")
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_nothing_behind(
    tiny_whisper_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, model: ModelBin) -> None:
        path.write_bytes(bytes(len(model.variables)))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("steer_asr.weights.convert.write_model_bin", full)
    with pytest.raises(OutputError, match="No space left on device; nothing was changed"):
        ct2_from_hf(hf_from_ct2(tiny_whisper_dir), tmp_path / "out", like=tiny_whisper_dir)
    assert list(tmp_path.iterdir()) == []
