"""What a foreign dictionary is before threshold and input scale are settled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from steer_asr.errors import WeightsError
from steer_asr.sae import SaeFeatures

Kind = Literal["relu", "jumprelu", "topk", "batch_topk"]


@dataclass(frozen=True, eq=False)
class ForeignSae:
    """`z = act(s * x @ W_enc + b_enc)`, `s * x ~ z @ W_dec + b_dec`, for an input scale `s` that may be unknown.

    Where the source subtracts `b_dec` from its input, that is folded into `b_enc` already.
    """

    format: str
    kind: Kind
    """What was trained. "topk" keeps the k largest of each frame, "batch_topk" the k * n largest of n frames."""
    W_enc: np.ndarray
    """float32 [d_in, n_features]"""
    b_enc: np.ndarray
    """float32 [n_features]"""
    W_dec: np.ndarray
    """float32 [n_features, d_in]"""
    b_dec: np.ndarray
    """float32 [d_in]"""
    threshold: np.ndarray | None = None
    """float32 [n_features]; None where the source has none that could be used."""
    k: int | None = None
    normalization: Literal["unknown", "none", "expected_average_only_in"] = "unknown"
    """What the source says of its inputs: raw, scaled so that the mean norm is the root of d_in, or nothing."""
    hook_point: str | None = None
    """As the source tells it, in our words."""
    origin: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        d_in, n = self.W_enc.shape if self.W_enc.ndim == 2 else (-1, -1)
        shapes = {"b_enc": (n,), "W_dec": (n, d_in), "b_dec": (d_in,), "threshold": (n,)}
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array is not None and array.shape != shape:
                raise WeightsError(
                    f"{self.where}: {name} has shape {array.shape}, W_enc {self.W_enc.shape}; they do not go together"
                )
        for name in ("W_enc", *shapes):
            array = getattr(self, name)
            if array is not None and not np.isfinite(array).all():
                raise WeightsError(f"{self.where}: {name} holds values that are not finite")
        if self.kind in ("topk", "batch_topk") and self.threshold is None and not self.k:
            raise WeightsError(
                f"{self.where}: neither k nor a threshold is stored, so nobody knows when a feature fires"
            )
        if self.k is not None and not 0 < self.k <= n:
            raise WeightsError(f"{self.where}: k is {self.k}, with {n} features")

    @property
    def where(self) -> str:
        return str(self.origin.get("path", self.format))

    @property
    def d_in(self) -> int:
        return self.W_enc.shape[0]

    @property
    def n_features(self) -> int:
        return self.W_enc.shape[1]

    def hidden(self, x: np.ndarray) -> np.ndarray:
        """Activations before any are dropped, non-negative [frame, n_features], of scaled `x` [frame, d_in]."""
        return np.maximum(x @ self.W_enc + self.b_enc, 0)

    def with_threshold(self, threshold: float) -> ForeignSae:
        return replace(self, threshold=np.full(self.n_features, threshold, np.float32))

    def features(self, scale: float = 1.0) -> SaeFeatures:
        """As ours, on raw activations: the scale goes into biases and thresholds, so that `z` is in the model's units.

        Raises `WeightsError` while there is no threshold: then every positive activation would fire.
        """
        if self.threshold is None:
            raise WeightsError(
                f"{self.where}: a {self.kind} dictionary without a threshold; give activations to calibrate it on "
                "(--activations)"
            )
        return SaeFeatures(
            W_enc=np.ascontiguousarray(self.W_enc),
            b_enc=self.b_enc / np.float32(scale),
            # Below 0 a threshold does nothing after the ReLU, which every kind here has.
            threshold=np.maximum(self.threshold, 0) / np.float32(scale),
            W_dec=np.ascontiguousarray(self.W_dec),
            b_dec=self.b_dec / np.float32(scale),
        )


def fold_decoder_norms(sae: ForeignSae) -> ForeignSae:
    """The same function with unit decoder rows: activations and thresholds take over their lengths."""
    norms = np.linalg.norm(sae.W_dec, axis=1).astype(np.float32)
    norms = np.where(norms > 0, norms, np.float32(1))
    return replace(
        sae,
        W_enc=sae.W_enc * norms,
        b_enc=sae.b_enc * norms,
        W_dec=sae.W_dec / norms[:, None],
        threshold=None if sae.threshold is None else sae.threshold * norms,
    )


def subtract_from_input(W_enc: np.ndarray, b_enc: np.ndarray, b_dec: np.ndarray) -> np.ndarray:
    """`b_enc` for `x @ W_enc + b_enc` where the source has `(x - b_dec) @ W_enc + b_enc`."""
    if W_enc.ndim != 2 or b_dec.shape != W_enc.shape[:1] or b_enc.shape != W_enc.shape[1:]:
        return b_enc  # ForeignSae refuses them, and says why
    return (b_enc.astype(np.float64) - b_dec.astype(np.float64) @ W_enc.astype(np.float64)).astype(np.float32)
