"""Layers that compute what we want: neurons out of GELU, and the variables CTranslate2 reads them from.

CTranslate2's Whisper takes as many `encoder/layer_{i}` and `decoder/layer_{i}` as the file holds, each of any inner
width, and every layer adds to the residual what its attention and its feed-forward network (FFN) give. The FFN is
`linear_1(GELU(linear_0(LayerNorm(h))))`, so with `ReLU(v) ~ GELU(beta v) / beta` (off by 0.17 / beta at most) and
`v = GELU(v) - GELU(-v)` (exact) it computes any piecewise linear function of what the LayerNorm shows it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

RELU_SHARPNESS = 16.0
ALIGNMENT = 4


@dataclass
class Ffn:
    """A feed-forward network of single neurons, [width] in and out; `gamma` and `beta` are its LayerNorm's."""

    gamma: np.ndarray
    beta: np.ndarray
    sharpness: float = RELU_SHARPNESS
    """Scale of what its neurons hold. int8 has one scale for all neurons of a frame, and one for all that write to a
    channel, so neurons that must be exact together need about the same sizes."""
    reads: list[np.ndarray] = field(default_factory=list)
    offsets: list[float] = field(default_factory=list)
    writes: list[np.ndarray] = field(default_factory=list)
    constant: np.ndarray = field(init=False)
    """What is added to every frame."""

    def __post_init__(self) -> None:
        self.constant = np.zeros(len(self.gamma))

    def relu(self, read: np.ndarray, offset: float, write: np.ndarray, sharpness: float | None = None) -> None:
        """Adds ReLU(read . n + offset) * write, where n is what the LayerNorm gives."""
        scale = sharpness or self.sharpness
        self.reads.append(scale * np.asarray(read, np.float64))
        self.offsets.append(scale * float(offset))
        self.writes.append(np.asarray(write, np.float64) / scale)

    def linear(self, read: np.ndarray, offset: float, write: np.ndarray) -> None:
        """Adds (read . n + offset) * write, exactly."""
        for sign in (1.0, -1.0):
            self.reads.append(sign * self.sharpness * np.asarray(read, np.float64))
            self.offsets.append(sign * self.sharpness * float(offset))
            self.writes.append(sign * np.asarray(write, np.float64) / self.sharpness)

    def step(
        self, read: np.ndarray, offset: float, width: float, write: np.ndarray, sharpness: float | None = None
    ) -> None:
        """Adds clip((read . n + offset) / width + 1/2, 0, 1) * write: a ramp of the given width."""
        self.relu(read, offset + width / 2, np.asarray(write) / width, sharpness)
        self.relu(read, offset - width / 2, -np.asarray(write) / width, sharpness)

    def variables(self, scope: str) -> dict[str, np.ndarray]:
        width = len(self.gamma)
        n = ALIGNMENT * max(1, math.ceil(len(self.reads) / ALIGNMENT))
        reads, offsets, writes = np.zeros((n, width)), np.zeros(n), np.zeros((width, n))
        for i, (read, offset, write) in enumerate(zip(self.reads, self.offsets, self.writes, strict=True)):
            reads[i], offsets[i], writes[:, i] = read, offset, write
        return {
            f"{scope}/layer_norm/gamma": self.gamma,
            f"{scope}/layer_norm/beta": self.beta,
            f"{scope}/linear_0/weight": reads,
            f"{scope}/linear_0/bias": offsets,
            f"{scope}/linear_1/weight": writes,
            f"{scope}/linear_1/bias": self.constant,
        }


@dataclass
class Pooling:
    """Cross-attention with constant queries, for a decoder layer: adds `write` * (what a readout pools + `constant`).

    Head h attends to frame t of the encoder's output x in proportion to exp(keys_h . x_t), and pools values_h . x_t.
    """

    keys: np.ndarray
    """[heads, width]."""
    values: np.ndarray
    write: np.ndarray
    """[width]."""
    constant: float = 0.0

    def variables(self, scope: str) -> dict[str, np.ndarray]:
        heads, width = self.keys.shape
        dim = head_dim(heads)
        read = np.zeros((2, heads, dim, width))
        read[0, :, 0], read[1, :, 0] = (
            self.keys * math.sqrt(dim),
            self.values,
        )  # CTranslate2 divides scores by sqrt(dim)
        query = np.zeros((heads, dim))
        query[:, 0] = 1.0
        out = np.zeros((width, heads, dim))
        out[:, :, 0] = self.write[:, None]
        return plain_norm(scope, width) | {
            f"{scope}/head_dim": np.array(dim, np.int32),
            f"{scope}/linear_0/weight": np.zeros((heads * dim, width)),
            f"{scope}/linear_0/bias": query.ravel(),
            f"{scope}/linear_1/weight": read.reshape(-1, width),
            f"{scope}/linear_1/bias": np.zeros(2 * heads * dim),
            f"{scope}/linear_2/weight": out.reshape(width, -1),
            f"{scope}/linear_2/bias": self.write * self.constant,
        }


def no_attention(scope: str, width: int, heads: int) -> dict[str, np.ndarray]:
    """Self-attention that adds nothing, as small as it can be."""
    inner = heads * head_dim(heads)
    return plain_norm(scope, width) | {
        f"{scope}/head_dim": np.array(head_dim(heads), np.int32),
        f"{scope}/linear_0/weight": np.zeros((3 * inner, width)),
        f"{scope}/linear_0/bias": np.zeros(3 * inner),
        f"{scope}/linear_1/weight": np.zeros((width, inner)),
        f"{scope}/linear_1/bias": np.zeros(width),
    }


def plain_norm(scope: str, width: int) -> dict[str, np.ndarray]:
    return {f"{scope}/layer_norm/gamma": np.ones(width), f"{scope}/layer_norm/beta": np.zeros(width)}


def head_dim(heads: int) -> int:
    """The fewest dimensions per head with which rows are whole multiples of four bytes, as int8 on GPUs wants them."""
    return ALIGNMENT // math.gcd(heads, ALIGNMENT)


def in_float32(variables: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: value if value.ndim == 0 else value.astype(np.float32) for name, value in variables.items()}
