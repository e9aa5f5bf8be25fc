"""AudioSAE's published checkpoints (arXiv 2602.05027): `layer_{n}/ae.pt`, `layer_{n}/config.json`.

Facts from the model cards and README of github.com/audiosae/audio-sae; the class is dictionary_learning's BatchTopK.
Keys: `encoder.weight [F, d]`, `encoder.bias [F]`, `decoder.weight [d, F]`, `b_dec [d]`, `k`; a `threshold` is in the
Python API and not on the cards, so it may be absent, or -1 for unset.

- **Layers count from 1**: `layer_n` is the output of block n, our `encoder.layers.{n-1}`. The last one is that of the
  last block, before the final layer norm, and so not `encoder.output`.
- **k is per frame**: the source's own encode keeps `k * x.size(0)`, which for [1, frame, d] is k for a whole clip.
  Frames are flattened here.
- **Inputs**: the paper says "unit norm" only. If each frame was divided by its own length, no folding can express that;
  `check` finds it out by reconstruction and refuses.
"""

from __future__ import annotations

import re
from pathlib import Path

from steer_asr._files import sha256_of
from steer_asr.errors import WeightsError
from steer_asr_training.foreign import dictionary_learning
from steer_asr_training.foreign.files import read_json, read_pt
from steer_asr_training.foreign.sae import ForeignSae


def load(folder: Path) -> ForeignSae:
    """Raises `WeightsError` for broken files, and for a folder that is not called `layer_n`, with n from 1."""
    layer = layer_of(folder)
    if layer is None or layer < 1:
        raise WeightsError(f"{folder}: AudioSAE's folders are called layer_1, layer_2, ...; give one of these")
    path = folder / dictionary_learning.WEIGHTS_FILE
    config = read_json(folder / dictionary_learning.CONFIG_FILE) if (folder / "config.json").is_file() else {}
    origin = {"path": str(path), "file": path.name, "sha256": sha256_of(path) if path.is_file() else "", "layer": layer}
    trainer = config.get("trainer")
    return dictionary_learning.from_tensors(
        read_pt(path),
        path,
        trainer if isinstance(trainer, dict) else config,
        format="audiosae",
        origin=origin,
        hook_point=f"encoder.layers.{layer - 1}",
    )


def layer_of(folder: Path) -> int | None:
    """The number in the folder's name."""
    found = re.fullmatch(r"layer_(\d{1,3})", folder.resolve().name)
    return int(found[1]) if found else None
