"""Builders of small steer packs whose effect can be worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from steer_asr.edits import Edit
from steer_asr.gate import Gate
from steer_asr.pack import FRONT_END, SteerPack
from steer_asr.sae import SaeFeatures


def axis_features(n: int = 3, d_in: int = 4, threshold: float = 0.5) -> SaeFeatures:
    """Feature i reads and writes coordinate i; it fires above `threshold`."""
    eye = np.eye(d_in, dtype=np.float32)
    return SaeFeatures(
        W_enc=eye[:, :n].copy(),
        b_enc=np.zeros(n, np.float32),
        threshold=np.full(n, threshold, np.float32),
        W_dec=eye[:n].copy(),
        b_dec=np.zeros(d_in, np.float32),
    )


def open_gate(n: int) -> Gate:
    """Every frame gets (all but exactly) the whole edit, whatever the features say."""
    return Gate(np.zeros(n, np.float32), 0.0, 1, 0, (1.0, -50.0), (1.0, -50.0))


def build_pack(**overrides: Any) -> SteerPack:
    """Three axis features (ids 7, 8, 9) in four dimensions; feature 7 is switched off."""
    values: dict[str, Any] = {
        "name": "test",
        "base_model": "tiny-random",
        "base_sha256": "0" * 64,
        "hook_point": "encoder.output",
        "front_end": FRONT_END,
        "feature_ids": (7, 8, 9),
        "features": axis_features(),
        "edits": (Edit(7, "scale", 0.0),),
    }
    return SteerPack(**values | overrides)


def random_pack(d_in: int, sha256: str, n: int = 16, seed: int = 0, **overrides: Any) -> SteerPack:
    """Random unit directions, all reversed and doubled: a strong edit of an encoder output of width `d_in`."""
    rng = np.random.default_rng(seed)
    directions = rng.standard_normal((n, d_in)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    features = SaeFeatures(
        directions.T.copy(),
        np.zeros(n, np.float32),
        np.full(n, 0.1, np.float32),
        directions,
        np.zeros(d_in, np.float32),
    )
    edits = tuple(Edit(i, "scale", -2.0) for i in range(n))
    return build_pack(base_sha256=sha256, feature_ids=tuple(range(n)), features=features, edits=edits, **overrides)
