"""The gate as a compiled model can have it: a few numbers read from every frame, pooled over the window.

    readout = load_readout(pack.path, pack)
    readout.log_odds(x)                     # x float32 [frame, d_model], the encoder's output; > 0: somebody speaks

    log_odds = sum_h sum_t softmax_t(keys_h . x_t) (values_h . x_t) + bias

That is one cross-attention of a decoder layer with constant queries, one dimension per head: each head looks for the
frames that its key finds, and says what its value reads there. The numbers are fitted to say what the pack's gate says
(`steer_asr.compiling.distil`), and lie in the pack as `readout.safetensors`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from steer_asr._files import atomic_path
from steer_asr.errors import PackError
from steer_asr.pack import READOUT_FILE, SteerPack


@dataclass(frozen=True, eq=False)
class Readout:
    """Attention-pooled evidence of speech; see the module for the formula."""

    keys: np.ndarray
    """float32 [heads, d_model]."""
    values: np.ndarray
    """float32 [heads, d_model]."""
    bias: float
    pack_sha256: str
    """Of the pack whose gate it was fitted to (`SteerPack.sha256`)."""
    windows: int = 0
    """How many windows it was fitted on."""
    silenced: float = float("nan")
    """Share of held-out windows that the gate leaves alone and this does not."""
    missed: float = float("nan")
    """Share of held-out windows that the gate silences and this does not."""

    def __post_init__(self) -> None:
        if self.keys.ndim != 2 or self.keys.shape != self.values.shape:
            raise PackError(f"readout: keys {self.keys.shape} and values {self.values.shape} must be [heads, d_model]")
        if not all(np.isfinite(a).all() for a in (self.keys, self.values, np.float64(self.bias))):
            raise PackError("readout: a number is not finite")

    @property
    def heads(self) -> int:
        return len(self.keys)

    def log_odds(self, x: np.ndarray) -> float:
        """Of speech in one window, `x` float [frame, d_model]; 0 and less is silence."""
        scores = x @ self.keys.T
        weights = np.exp(scores - scores.max(axis=0))
        return float(((weights / weights.sum(axis=0)) * (x @ self.values.T)).sum() + self.bias)


def save_readout(folder: str | os.PathLike[str], readout: Readout) -> Path:
    """Writes `readout.safetensors` into a pack's folder, whole or not at all."""
    path = Path(folder) / READOUT_FILE
    metadata = {
        "pack_sha256": readout.pack_sha256,
        "windows": str(readout.windows),
        "silenced": str(readout.silenced),
        "missed": str(readout.missed),
    }
    tensors = {
        "keys": np.ascontiguousarray(readout.keys, np.float32),
        "values": np.ascontiguousarray(readout.values, np.float32),
        "bias": np.array([readout.bias], np.float32),
    }
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)
    return path


def load_readout(pack: SteerPack) -> Readout | None:
    """The readout that lies beside `pack`; None where there is none.

    Raises `PackError` when it is broken, or was fitted to another pack.
    """
    path = None if pack.path is None else pack.path / READOUT_FILE
    if path is None or not path.is_file():
        return None
    try:
        with safe_open(path, framework="np") as file:
            meta = file.metadata() or {}
            readout = Readout(
                file.get_tensor("keys"),
                file.get_tensor("values"),
                float(file.get_tensor("bias")[0]),
                meta["pack_sha256"],
                int(meta["windows"]),
                float(meta["silenced"]),
                float(meta["missed"]),
            )
    except (OSError, SafetensorError, KeyError, ValueError, IndexError) as error:
        raise PackError(f"{path}: broken ({type(error).__name__}: {error})") from error
    if readout.pack_sha256 != pack.sha256:
        raise PackError(
            f"{path} was fitted to another state of pack {pack.name!r}; fit it again: steer-asr-train readout, or "
            "steer-asr compile --listen"
        )
    return readout
