"""Whisper weights between CTranslate2 and Hugging Face transformers, exactly, without a hub.

    model = hf_from_ct2("path/to/ct2-dir")          # a transformers WhisperForConditionalGeneration, float32
    ct2_from_hf(model, "out-dir", like="path/to/ct2-dir")

Nothing is re-quantised or transposed: a tensor keeps its values, so one download serves both back-ends. Needs the
`[torch]` extra.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from steer_asr._files import atomic_path
from steer_asr.errors import WeightsError
from steer_asr.weights.ct2_format import ModelBin, read_model_bin, write_model_bin
from steer_asr.weights.names import Entry, entries

if TYPE_CHECKING:
    from transformers import WhisperConfig, WhisperForConditionalGeneration

SIDE_FILES = ("config.json", "tokenizer.json", "vocabulary.txt", "vocabulary.json", "preprocessor_config.json")
FULL_VOCABULARY = 51865  # multilingual checkpoints have this many tokens or more; English-only ones have fewer


def count_layers(model: ModelBin, side: str) -> int:
    """Number of blocks in `side` ("encoder" or "decoder"): consecutive `layer_{i}` scopes, as CTranslate2 counts."""
    count = 0
    while f"{side}/layer_{count}/ffn/linear_0/weight" in model.variables:
        count += 1
    return count


def whisper_config(model: ModelBin, generation: dict[str, Any]) -> WhisperConfig:
    """The transformers config that a CTranslate2 Whisper's shapes imply; `generation` is its `config.json`."""
    from transformers import WhisperConfig

    vocab_size, d_model = model["decoder/embeddings/weight"].shape
    multilingual = vocab_size >= FULL_VOCABULARY
    eot = 50257 if multilingual else 50256
    return WhisperConfig(
        vocab_size=vocab_size,
        d_model=d_model,
        num_mel_bins=model["encoder/conv1/weight"].shape[1],
        encoder_layers=count_layers(model, "encoder"),
        decoder_layers=count_layers(model, "decoder"),
        encoder_attention_heads=int(model["encoder/num_heads"]),
        decoder_attention_heads=int(model["decoder/num_heads"]),
        encoder_ffn_dim=model["encoder/layer_0/ffn/linear_0/weight"].shape[0],
        decoder_ffn_dim=model["decoder/layer_0/ffn/linear_0/weight"].shape[0],
        max_source_positions=model["encoder/position_encodings/encodings"].shape[0],
        max_target_positions=model["decoder/position_encodings/encodings"].shape[0],
        decoder_start_token_id=eot + 1,
        bos_token_id=eot,
        eos_token_id=eot,
        pad_token_id=eot,
        suppress_tokens=generation.get("suppress_ids"),
        begin_suppress_tokens=generation.get("suppress_ids_begin"),
    )


def hf_from_ct2(folder: str | os.PathLike[str]) -> WhisperForConditionalGeneration:
    """Reads a CTranslate2 Whisper directory into transformers, in float32 and in eval mode.

    Encoder outputs agree with CTranslate2's float32 ones to about 3e-6 relative. Raises `WeightsError` for a
    corrupt file, a saved-quantised (int8) model, whose original weights are gone, or a model that is not Whisper.
    """
    import torch
    from transformers import WhisperForConditionalGeneration

    folder = Path(folder)
    source = read_model_bin(folder / "model.bin")
    if source.spec_name != "WhisperSpec":
        raise WeightsError(f"{folder}: spec {source.spec_name!r} is not a Whisper model")
    config = whisper_config(source, read_json(folder / "config.json"))
    state: dict[str, Any] = {}
    for entry in entries(config.encoder_layers, config.decoder_layers):
        for name, block in _split(entry, source, folder):
            state[name] = torch.from_numpy(block.astype(np.float32))
    with torch.device("meta"):
        model = WhisperForConditionalGeneration(config)
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    if missing := [name for name, value in model.state_dict().items() if value.is_meta]:
        raise WeightsError(f"{folder}: no weights for {missing[0]} and {len(missing) - 1} more")
    return model.eval()


def _split(entry: Entry, source: ModelBin, folder: Path) -> list[tuple[str, np.ndarray]]:
    array = source[entry.ct2]
    if array.dtype == np.int8 or f"{entry.ct2}_scale" in source.variables:
        raise WeightsError(f"{folder}: {entry.ct2} is stored as int8; convert from a float16 or float32 model")
    if array.shape[0] % len(entry.hf):
        raise WeightsError(f"{folder}: {entry.ct2} has {array.shape[0]} rows, not a multiple of {len(entry.hf)}")
    blocks = np.split(array, len(entry.hf))
    return [(name, block) for name, block in zip(entry.hf, blocks, strict=True) if name is not None]


def ct2_from_hf(
    model: WhisperForConditionalGeneration,
    folder: str | os.PathLike[str],
    *,
    like: str | os.PathLike[str],
    dtype: str = "float32",
) -> Path:
    """Writes a transformers Whisper as a CTranslate2 directory that stock faster-whisper loads.

    `like` is a CTranslate2 directory of the same architecture: its tokenizer, vocabulary, `config.json` and
    alignment heads are taken over (a checkpoint of transformers does not hold them in CTranslate2's form).
    `dtype` is "float32" or "float16", the type on disk. Raises `WeightsError` when the shapes of the two differ.
    """
    folder, like = Path(folder), Path(like)
    template = read_model_bin(like / "model.bin")
    state = model.state_dict()
    variables = dict(template.variables)
    for entry in entries(count_layers(template, "encoder"), count_layers(template, "decoder")):
        stacked = _stack(entry, state)
        if stacked.shape != template[entry.ct2].shape:
            raise WeightsError(
                f"{entry.ct2}: the model has {stacked.shape}, the template {like} has {template[entry.ct2].shape}"
            )
        variables[entry.ct2] = stacked.astype(np.dtype(dtype))
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        for name in SIDE_FILES:
            if (like / name).is_file():
                shutil.copyfile(like / name, temporary / name)
        write_model_bin(
            temporary / "model.bin",
            ModelBin(variables, template.aliases, template.spec_name, template.spec_revision),
        )
    return folder


def _stack(entry: Entry, state: dict[str, Any]) -> np.ndarray:
    parts: list[np.ndarray | None] = []
    for name in entry.hf:
        if name is not None and name not in state:
            raise WeightsError(f"the model has no tensor {name}; is it a Whisper model?")
        parts.append(None if name is None else state[name].detach().float().cpu().numpy())
    like = next(part for part in parts if part is not None)
    return np.concatenate([np.zeros_like(like) if part is None else part for part in parts])


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from `path`; raises `WeightsError` when it is missing or broken."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: expected a JSON object")
    return content
