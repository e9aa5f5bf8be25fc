"""Small activation stores with known content, written without an encoder; and a HuBERT with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from steer_asr_training.encoders import Window
from steer_asr_training.store import ActivationStore, open_store, write_shard

POINT = "encoder.output"


def write_store(
    folder: Path, windows: list[Window], described: list[dict[str, Any]], per_shard: int = 4
) -> ActivationStore:
    """A finished store of the given windows."""
    n_shards = -(-len(windows) // per_shard)
    open_store(folder, {"model": "test", "model_sha256": "0" * 64, "n_shards": n_shards, "n_windows": len(windows)})
    for i in range(n_shards):
        chosen = slice(i * per_shard, (i + 1) * per_shard)
        write_shard(folder, i, windows[chosen], described[chosen])
    return ActivationStore(folder)


def planted_store(
    folder: Path, *, n_windows: int = 12, frames: int = 60, d_in: int = 32, n_planted: int = 24
) -> ActivationStore:
    """Sparse sums of `n_planted` random directions; half the windows are "speech", the only ones to use direction 0."""
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((n_planted, d_in)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    windows, described = [], []
    for i in range(n_windows):
        speech = i % 2 == 0
        z = (rng.random((frames, n_planted)) < 0.08) * rng.uniform(1, 3, (frames, n_planted))
        z[:, 0] = 0.0
        if speech:
            z[20:40, 0] = rng.uniform(3, 4, 20)
        x = (z @ directions).astype(np.float32)
        windows.append(Window({POINT: x}, n_real_frames=frames - 10))
        described.append({"kind": "speech" if speech else "nonspeech", "source": "planted", "treatment": "plain"})
    return write_store(folder, windows, described)


def write_hubert(folder: Path) -> Path:
    """A tiny HuBERT as transformers writes it, with random weights: 2 layers, width 24."""
    from transformers import HubertConfig, HubertModel

    torch.manual_seed(0)
    config = HubertConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
    )  # fmt: skip
    HubertModel(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_normalize": True}))
    return folder


def write_noises(folder: Path, *, n: int) -> Path:
    """A manifest of `n` clips of 0.2 to 0.5 s, every second one said to be speech. All are noise."""
    rows: list[dict[str, Any]] = []
    rng = np.random.default_rng(0)
    for i in range(n):
        seconds, name = 0.2 + 0.3 * rng.random(), f"{i}.wav"
        soundfile.write(folder / name, 0.1 * rng.standard_normal(int(seconds * 16000)), 16000)
        speech = (
            {"kind": "speech", "text": "word", "lang": "en"} if i % 2 else {"kind": "nonspeech", "category": "noise"}
        )
        rows.append({"audio_filepath": name, "duration": seconds, "source": "made", "group": f"g{i}"} | speech)
    path = folder / "clips.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
