"""The few SAE features a pack works with: read from activations, written back along their decoder directions.

    z = features.encode(x)                      # x float32 [..., d_in]  ->  z float32 [..., n_features]
    x += (edited - z) @ features.W_dec          # the rest of x, the SAE's error included, stays untouched

Numpy only. Files follow SAELens (`cfg.json` + `sae_weights.safetensors`, architecture "jumprelu"), so that SAELens
loads them as they are; they hold the pack's features and not the whole dictionary.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from steer_asr.errors import PackError

CFG_FILE, WEIGHTS_FILE = "cfg.json", "sae_weights.safetensors"
SAELENS_FORMAT = "6.0.0"
"""Version of SAELens whose `cfg.json` this is. Without it, SAELens reads the file as one from before 6 and drops the
metadata."""
TENSORS = ("W_enc", "b_enc", "threshold", "W_dec", "b_dec")


@dataclass(frozen=True, eq=False)
class SaeFeatures:
    """Some features of a JumpReLU SAE. Shapes: `d_in` is the model width, `n_features` what the pack holds."""

    W_enc: np.ndarray
    """float32 [d_in, n_features]; input centring and scale are folded in."""
    b_enc: np.ndarray
    """float32 [n_features]"""
    threshold: np.ndarray
    """float32 [n_features]; a feature fires when its pre-activation exceeds it."""
    W_dec: np.ndarray
    """float32 [n_features, d_in]; row i is the direction of feature i in the model's own units."""
    b_dec: np.ndarray
    """float32 [d_in]; not used for steering (the error term is kept), stored for reconstruction."""

    def __post_init__(self) -> None:
        d_in, n = self.W_enc.shape
        wanted = {"W_enc": (d_in, n), "b_enc": (n,), "threshold": (n,), "W_dec": (n, d_in), "b_dec": (d_in,)}
        for name, shape in wanted.items():
            array = getattr(self, name)
            if array.shape != shape:
                raise PackError(f"{WEIGHTS_FILE}: {name} has shape {array.shape}, expected {shape}")
            if not np.isfinite(array).all():
                raise PackError(f"{WEIGHTS_FILE}: {name} holds values that are not finite")
        if (self.threshold < 0).any():
            raise PackError(f"{WEIGHTS_FILE}: a JumpReLU threshold is negative, so features would fire everywhere")

    @property
    def d_in(self) -> int:
        return self.W_enc.shape[0]

    @property
    def n_features(self) -> int:
        return self.W_enc.shape[1]

    def encode(self, x: np.ndarray) -> np.ndarray:
        """Feature activations, float32 [..., n_features], of `x`, float32 [..., d_in]."""
        hidden_pre = x @ self.W_enc
        hidden_pre += self.b_enc
        hidden_pre *= hidden_pre > self.threshold
        return hidden_pre


def save_features(folder: Path, features: SaeFeatures, metadata: dict[str, Any]) -> None:
    """Writes the two SAELens files into `folder`; `metadata` goes into `cfg.json` (hook point, model, feature ids)."""
    tensors = {name: np.ascontiguousarray(getattr(features, name)) for name in TENSORS}
    (folder / WEIGHTS_FILE).write_bytes(save(tensors))  # save_file would make it readable by its owner only
    cfg = {
        "architecture": "jumprelu",
        "d_in": features.d_in,
        "d_sae": features.n_features,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"sae_lens_version": SAELENS_FORMAT, **metadata},
    }
    (folder / CFG_FILE).write_text(json.dumps(cfg, indent=2) + "\n", encoding="utf-8")


def load_features(folder: Path) -> SaeFeatures:
    """Reads what `save_features` wrote; raises `PackError` when a file is missing, broken, or not such an SAE."""
    try:
        cfg = json.loads((folder / CFG_FILE).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS_FILE)
    except (OSError, ValueError, SafetensorError) as error:
        raise PackError(f"{folder}: cannot be read as an SAE ({error})") from error
    if cfg.get("architecture") != "jumprelu" or cfg.get("apply_b_dec_to_input") is not False:
        raise PackError(f"{folder}/{CFG_FILE}: expected a jumprelu SAE with apply_b_dec_to_input false")
    if missing := [name for name in TENSORS if name not in tensors]:
        raise PackError(f"{folder}/{WEIGHTS_FILE}: tensor {missing[0]} is missing")
    return SaeFeatures(**{name: tensors[name].astype(np.float32) for name in TENSORS})
