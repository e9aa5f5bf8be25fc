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
from steer_asr.weights.ct2_format import (
    BFLOAT16_BITS,
    ModelBin,
    float32_of,
    read_model_bin,
    stored_as,
    write_model_bin,
)
from steer_asr.weights.names import Entry, entries

if TYPE_CHECKING:
    from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration

SIDE_FILES = ("config.json", "tokenizer.json", "vocabulary.txt", "vocabulary.json", "preprocessor_config.json")
FULL_VOCABULARY = 51865  # multilingual checkpoints have this many tokens or more; English-only ones have fewer


def hf_from_ct2(folder: str | os.PathLike[str]) -> WhisperForConditionalGeneration:
    """Reads a CTranslate2 Whisper directory into transformers, in float32 and in eval mode, ready to `generate`.

    Encoder outputs agree with CTranslate2's float32 ones to about 3e-6 relative. Raises `WeightsError` for a
    corrupt or missing file, a quantised (int8) model, whose original weights are gone, or a model that is not Whisper.
    """
    import torch
    from transformers import WhisperForConditionalGeneration

    folder = Path(folder)
    source = read_model_bin(folder / "model.bin")
    if source.spec_name != "WhisperSpec":
        raise WeightsError(f"{folder}: spec {source.spec_name!r} is not a Whisper model")
    config = whisper_config(source)
    state = {
        name: torch.from_numpy(block)
        for entry in entries(config.encoder_layers, config.decoder_layers)
        for name, block in _split(entry, source, folder)
    }
    with torch.device("meta"):
        model = WhisperForConditionalGeneration(config)
    try:
        model.load_state_dict(state, strict=False, assign=True)
    except RuntimeError as error:  # shapes that contradict each other; torch lists them all
        raise WeightsError(f"{folder}: {str(error).splitlines()[1].strip()}") from error
    model.tie_weights()
    if missing := [name for name, value in model.state_dict().items() if value.is_meta]:
        raise WeightsError(f"{folder}: no weights for {', '.join(missing[:3])} ({len(missing)} tensors missing)")
    model.generation_config = generation_config(folder, config)
    return model.eval()


def whisper_config(model: ModelBin) -> WhisperConfig:
    """The transformers config that the shapes in a CTranslate2 Whisper imply."""
    from transformers import WhisperConfig

    vocab_size, d_model = _shape(model, "decoder/embeddings/weight", 2)
    eot = 50257 if vocab_size >= FULL_VOCABULARY else 50256
    return WhisperConfig(
        vocab_size=vocab_size,
        d_model=d_model,
        num_mel_bins=_shape(model, "encoder/conv1/weight", 3)[1],
        encoder_layers=count_layers(model, "encoder"),
        decoder_layers=count_layers(model, "decoder"),
        encoder_attention_heads=_heads(model, "encoder", d_model),
        decoder_attention_heads=_heads(model, "decoder", d_model),
        encoder_ffn_dim=_shape(model, "encoder/layer_0/ffn/linear_0/weight", 2)[0],
        decoder_ffn_dim=_shape(model, "decoder/layer_0/ffn/linear_0/weight", 2)[0],
        max_source_positions=_shape(model, "encoder/position_encodings/encodings", 2)[0],
        max_target_positions=_shape(model, "decoder/position_encodings/encodings", 2)[0],
        decoder_start_token_id=eot + 1,
        bos_token_id=eot,
        eos_token_id=eot,
        pad_token_id=eot,
    )


def generation_config(folder: Path, config: WhisperConfig) -> GenerationConfig:
    """What transformers' `generate` has to know about a CTranslate2 directory's tokens and suppression lists."""
    from transformers import GenerationConfig

    switches = read_json(folder / "config.json")
    try:
        tokens = {token["content"]: int(token["id"]) for token in read_json(folder / "tokenizer.json")["added_tokens"]}
        no_timestamps, previous = tokens["<|notimestamps|>"], tokens["<|startofprev|>"]
    except (KeyError, TypeError) as error:
        raise WeightsError(f"{folder}: tokenizer.json is not that of a Whisper model ({error!r})") from error
    options: dict[str, Any] = {"is_multilingual": config.vocab_size >= FULL_VOCABULARY}
    if options["is_multilingual"]:
        between = range(tokens["<|startoftranscript|>"] + 1, tokens["<|translate|>"])
        options["lang_to_id"] = {text: i for text, i in tokens.items() if i in between}
        options["task_to_id"] = {task: tokens[f"<|{task}|>"] for task in ("transcribe", "translate")}
    return GenerationConfig(
        decoder_start_token_id=config.decoder_start_token_id,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        max_length=config.max_target_positions,
        suppress_tokens=switches.get("suppress_ids"),
        begin_suppress_tokens=switches.get("suppress_ids_begin"),
        alignment_heads=switches.get("alignment_heads"),
        no_timestamps_token_id=no_timestamps,
        prev_sot_token_id=previous,
        max_initial_timestamp_index=50,
        return_timestamps=False,
        **options,
    )


def ct2_from_hf(
    model: WhisperForConditionalGeneration,
    folder: str | os.PathLike[str],
    *,
    like: str | os.PathLike[str],
    dtype: str = "float32",
) -> Path:
    """Writes a transformers Whisper as a CTranslate2 directory that stock faster-whisper loads; returns `folder`.

    `like` is a CTranslate2 directory of the same architecture: its tokenizer, vocabulary, `config.json` and
    alignment heads are taken over (a checkpoint of transformers does not hold them in CTranslate2's form).
    `dtype` is "float32", "float16" or "bfloat16", the type on disk. Raises `WeightsError` when the two differ in
    architecture or a value does not fit `dtype`, and `OutputError` when the folder cannot be written.
    """
    folder, like = Path(folder), Path(like)
    template = read_model_bin(like / "model.bin")
    variables = _refilled(template, model, dtype)
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


def _refilled(template: ModelBin, model: WhisperForConditionalGeneration, dtype: str) -> dict[str, np.ndarray]:
    """The template's variables with the model's values; both must hold the same tensors, none may be left out."""
    for side in ("encoder", "decoder"):
        theirs = (count_layers(template, side), int(template[f"{side}/num_heads"]))
        ours = (getattr(model.config, f"{side}_layers"), getattr(model.config, f"{side}_attention_heads"))
        if ours != theirs:
            raise WeightsError(f"{side}: the model has (layers, heads) {ours}, the template {theirs}")
    state = model.state_dict()
    variables = {name: value for name, value in template.variables.items() if value.ndim == 0}
    used = {"proj_out.weight"}
    for entry in entries(model.config.encoder_layers, model.config.decoder_layers):
        stacked, expected = stack(entry, state), template[entry.ct2].shape
        if stacked.shape != expected:
            raise WeightsError(f"{entry.ct2}: the model has shape {stacked.shape}, the template {expected}")
        variables[entry.ct2] = stored_as(stacked, dtype)
        used.update(name for name in entry.hf if name is not None)
    if extra := (template.variables.keys() - variables.keys()) | (state.keys() - used):
        raise WeightsError(f"only one of the model and the template has {sorted(extra)[0]}: not the same architecture")
    if not state["proj_out.weight"].equal(state["model.decoder.embed_tokens.weight"]):
        raise WeightsError("proj_out.weight is not tied to the token embedding, as it is in every Whisper model")
    return {name: variables[name] for name in template.variables}  # in the template's order


def count_layers(model: ModelBin, side: str) -> int:
    """Number of blocks in `side` ("encoder" or "decoder"): consecutive `layer_{i}` scopes, as CTranslate2 counts."""
    count = 0
    while f"{side}/layer_{count}/ffn/linear_0/weight" in model.variables:
        count += 1
    return count


def _split(entry: Entry, source: ModelBin, folder: Path) -> list[tuple[str, np.ndarray]]:
    """The Hugging Face tensors that a CTranslate2 variable holds, as float32."""
    array = source[entry.ct2]
    if array.dtype.kind != "f" and array.dtype != BFLOAT16_BITS:
        raise WeightsError(f"{folder}: {entry.ct2} is stored as {array.dtype}; convert from a float16 or float32 model")
    if array.ndim == 0 or array.shape[0] % len(entry.hf):
        raise WeightsError(f"{folder}: {entry.ct2} of shape {array.shape} does not hold {len(entry.hf)} equal blocks")
    blocks = np.split(float32_of(array), len(entry.hf))
    return [(name, block) for name, block in zip(entry.hf, blocks, strict=True) if name is not None]


def stack(entry: Entry, state: dict[str, Any]) -> np.ndarray:
    """The CTranslate2 variable that holds these Hugging Face tensors, as float32."""
    parts: list[np.ndarray | None] = []
    for name in entry.hf:
        if name is not None and name not in state:
            raise WeightsError(f"the model has no tensor {name}; is it a Whisper model?")
        parts.append(None if name is None else state[name].detach().float().cpu().numpy())
    like = next(part for part in parts if part is not None)
    return np.concatenate([np.zeros_like(like) if part is None else part for part in parts])


def _shape(model: ModelBin, name: str, rank: int) -> tuple[int, ...]:
    shape = model[name].shape
    if len(shape) != rank:
        raise WeightsError(f"{name} has shape {shape}; a Whisper model has {rank} dimensions there")
    return shape


def _heads(model: ModelBin, side: str, d_model: int) -> int:
    heads = model[f"{side}/num_heads"]
    if heads.ndim or heads.dtype.kind != "i" or heads < 1 or d_model % int(heads):
        raise WeightsError(f"{side}/num_heads is {heads.tolist()}, which does not divide the width {d_model}")
    return int(heads)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from `path`; raises `WeightsError` when it is missing or broken."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: expected a JSON object")
    return content
