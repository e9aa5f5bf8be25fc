"""Encoder layers that compute what we want: neurons out of GELU, and the variables CTranslate2 reads them from.

CTranslate2's Whisper encoder takes as many `encoder/layer_{i}` as the file holds, each of any inner width, and every
layer adds to the residual what its attention and its feed-forward network (FFN) give. The FFN is
`linear_1(GELU(linear_0(LayerNorm(h))))`, so with `ReLU(v) ~ GELU(beta v) / beta` (off by 0.17 / beta at most) and
`v = GELU(v) - GELU(-v)` (exact) it computes any piecewise linear function of what the LayerNorm shows it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

RELU_SHARPNESS = 16.0
ROTARY_DIM = 8
ROTARY_BASE = 10_000.0  # CTranslate2's default


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
        reads = np.stack(self.reads) if self.reads else np.zeros((1, width))
        writes = np.stack(self.writes, axis=1) if self.writes else np.zeros((width, 1))
        return {
            f"{scope}/layer_norm/gamma": self.gamma,
            f"{scope}/layer_norm/beta": self.beta,
            f"{scope}/linear_0/weight": reads,
            f"{scope}/linear_0/bias": np.array(self.offsets or [0.0]),
            f"{scope}/linear_1/weight": writes,
            f"{scope}/linear_1/bias": self.constant,
        }


@dataclass
class Attention:
    """Self-attention of which one head works and reads one number per frame, `n . read` of a plain LayerNorm's n.

    Frame t attends to frame s in proportion to exp(`sharpness` * n_s . read + `kernel`(t - s)), and `write` times the
    attended mean of n . read is added to frame t, as is `constant`.
    """

    width: int
    heads: int
    read: np.ndarray | None = None
    write: np.ndarray | None = None
    sharpness: float = 0.0
    smoothing: float = 0.0
    """Variance, in frames squared, of a bell-shaped kernel around each frame; 0 for none."""
    constant: np.ndarray | None = None

    def variables(self, scope: str) -> dict[str, np.ndarray]:
        dim = ROTARY_DIM if self.smoothing else 1
        rows = np.zeros((3, self.heads * dim, self.width))
        bias = np.zeros((3, self.heads * dim))
        out = np.zeros((self.width, self.heads * dim))
        made: dict[str, np.ndarray] = {f"{scope}/head_dim": np.array(dim, np.int32)}
        if self.read is not None and self.write is not None:
            rows[2, 0], out[:, 0] = self.read, self.write
            if self.smoothing:
                bias[:2, :dim:2] = np.sqrt(rotary_amplitudes(self.smoothing) * math.sqrt(dim))
                made[f"{scope}/rotary_dim"] = np.array(dim, np.int32)
                made[f"{scope}/rotary_interleave"] = np.array(1, np.int8)
            else:  # a head of one dimension: CTranslate2 scales its scores by 1
                bias[0, 0] = 1.0
                rows[1, 0] = self.sharpness * self.read
        return made | {
            f"{scope}/layer_norm/gamma": np.ones(self.width),
            f"{scope}/layer_norm/beta": np.zeros(self.width),
            f"{scope}/linear_0/weight": rows.reshape(-1, self.width),
            f"{scope}/linear_0/bias": bias.ravel(),
            f"{scope}/linear_1/weight": out,
            f"{scope}/linear_1/bias": np.zeros(self.width) if self.constant is None else self.constant,
        }


def layer_variables(index: int, attention: Attention, ffn: Ffn) -> dict[str, np.ndarray]:
    """The CTranslate2 variables of encoder layer `index`, weights in float32."""
    scope = f"encoder/layer_{index}"
    made = attention.variables(f"{scope}/self_attention") | ffn.variables(f"{scope}/ffn")
    return {name: value if value.ndim == 0 else value.astype(np.float32) for name, value in made.items()}


def rotary_amplitudes(variance: float) -> np.ndarray:
    """Weights a_i, [ROTARY_DIM / 2], with which the kernel exp(sum a_i cos(f_i Delta)) has this variance.

    Rotary embeddings turn a constant query and key into a score that depends on the distance of two frames alone. The
    frequencies are CTranslate2's: 1, 0.1, 0.01 and 0.001 per frame. The second shapes the bell, the others keep it
    from coming back a period later.
    """
    low, high = 0.0, 1e4
    for _ in range(60):
        middle = (low + high) / 2
        wide = _kernel_variance(_amplitudes(middle)) > variance
        low, high = (middle, high) if wide else (low, middle)
    return _amplitudes(high)


def _amplitudes(a: float) -> np.ndarray:
    return np.array([0.0, a, 64.0, 64.0])


def rotary_kernel(amplitudes: np.ndarray, frames: int) -> np.ndarray:
    """Attention weights at distances 0 to `frames` - 1 (not normalised)."""
    frequencies = ROTARY_BASE ** (-2 * np.arange(ROTARY_DIM // 2) / ROTARY_DIM)
    scores = (amplitudes * np.cos(np.arange(frames)[:, None] * frequencies)).sum(axis=1)
    return np.exp(scores - scores[0])


def _kernel_variance(amplitudes: np.ndarray) -> float:
    weights = rotary_kernel(amplitudes, 1500)
    distance = np.arange(1500.0)
    return float((2 * weights * distance**2).sum() / (2 * weights.sum() - 1))
