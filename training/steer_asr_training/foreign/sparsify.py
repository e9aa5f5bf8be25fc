"""EleutherAI/sparsify: `sae.safetensors` and `cfg.json`.

Read off `sparsify/sparse_coder.py`, `fused_encoder.py` and `config.py` (commits 9d3b136, 001d98e). Keys:
`encoder.weight [F, d]`, `encoder.bias [F]`, `W_dec [F, d]`, `b_dec [d]`, and `W_skip [d, d]` with a skip connection.
`cfg.json`: `d_in`, `k`, `activation`, `num_latents` or `expansion_factor`, `transcode`, `skip_connection`. Encoding is
`relu(encoder(x - b_dec))`, then the k largest of each frame; no threshold is stored, so one is calibrated.

Folders are called by their hook point, a module path: `layers.5`, counting from 0 as ours do.
"""

from __future__ import annotations

import re
from pathlib import Path

from steer_asr._files import sha256_of
from steer_asr.errors import WeightsError
from steer_asr_training.foreign.files import integer, need, read_json, read_safetensors
from steer_asr_training.foreign.sae import ForeignSae, subtract_from_input

WEIGHTS_FILE, CONFIG_FILE = "sae.safetensors", "cfg.json"
NOT_AUTOENCODERS = ("transcode", "skip_connection", "embed_skip", "gram_lookup")


def load(folder: Path) -> ForeignSae:
    """Raises `WeightsError` for broken files, transcoders, skip connections and the groupmax activation."""
    path, config = folder / WEIGHTS_FILE, read_json(folder / CONFIG_FILE)
    if other := [name for name in NOT_AUTOENCODERS if config.get(name)]:
        raise WeightsError(
            f"{folder}: {other[0]} is on in {CONFIG_FILE}; plain autoencoders are read, this is another kind"
        )
    if (activation := config.get("activation", "topk")) != "topk":
        raise WeightsError(f"{folder}: activation {activation!r}; a threshold can stand for topk only")
    weight, b_enc, W_dec, b_dec = need(read_safetensors(path), path, "encoder.weight", "encoder.bias", "W_dec", "b_dec")
    if config.get("d_in") != weight.shape[-1]:
        raise WeightsError(
            f"{folder}: d_in is {config.get('d_in')} in {CONFIG_FILE}, {weight.shape[-1]} in {WEIGHTS_FILE}"
        )
    layer = re.search(r"(?:^|\.)layers\.(\d{1,3})$", folder.resolve().name)
    return ForeignSae(
        format="sparsify",
        kind="topk",
        W_enc=weight.T,
        b_enc=subtract_from_input(weight.T, b_enc, b_dec),
        W_dec=W_dec,
        b_dec=b_dec,
        k=integer(config.get("k"), "k", folder / CONFIG_FILE),
        hook_point=f"encoder.layers.{layer[1]}" if layer else None,
        origin={"path": str(path), "file": path.name, "sha256": sha256_of(path)},
    )
