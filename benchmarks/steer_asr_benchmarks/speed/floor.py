"""The least that an edit can cost on this machine: its arithmetic at the speed of the machine's own matrix product.

floor = edit_floor(features, windows=1)
floor.seconds, floor.bound
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

import numpy as np

from steer_asr.sae import SaeFeatures

FRAMES = 1500
"""Encoder positions of a 30-s window."""
REPEATS = 7


@dataclass(frozen=True)
class Floor:
    """Reading all features and writing all edits of some windows."""

    flops: float
    """Multiplications and additions: x @ W_enc, and the change @ W_dec."""
    bytes: float
    """The encoder's output is read twice and written once, the pack's weights are read."""
    flops_per_s: float
    """What numpy's matrix product reaches on these very shapes."""
    bytes_per_s: float
    """What numpy reaches when it adds to an array of that size."""

    @property
    def seconds(self) -> float:
        return max(self.flops / self.flops_per_s, self.bytes / self.bytes_per_s)

    @property
    def bound(self) -> Literal["compute", "memory"]:
        """What the floor is made of."""
        return "compute" if self.flops / self.flops_per_s >= self.bytes / self.bytes_per_s else "memory"


def edit_floor(features: SaeFeatures, windows: int) -> Floor:
    """The floor for a batch of full windows, with this machine's rates, measured here and now."""
    d_in, n = features.W_enc.shape
    x = np.random.default_rng(0).standard_normal((FRAMES, d_in)).astype(np.float32)
    product_s = fastest(lambda: x @ features.W_enc)
    added_s = fastest(lambda: np.add(x, 1.0, out=x))
    return Floor(
        flops=windows * 2 * 2 * FRAMES * d_in * n,
        bytes=windows * 3 * x.nbytes + features.W_enc.nbytes + features.W_dec.nbytes,
        flops_per_s=2 * FRAMES * d_in * n / product_s,
        bytes_per_s=2 * x.nbytes / added_s,
    )


def fastest(call: object, repeats: int = REPEATS) -> float:
    """Seconds of the fastest of several calls, after one that does not count."""
    assert callable(call)
    call()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return min(seconds)
