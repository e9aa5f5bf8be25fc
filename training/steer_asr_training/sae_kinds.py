"""The kinds of sparse autoencoder that can be trained, by name, all exported as JumpReLU.

    sae = build_sae("matryoshka", SaeConfig(d_in=512, d_sae=2048), torch.Generator().manual_seed(0))

| kind | keeps | exported thresholds |
| --- | --- | --- |
| batch_topk | the k * n largest of a batch (arXiv 2412.06410) | one: moving average of the smallest kept |
| topk | the k largest of each frame (arXiv 2406.04093) | one at which k fire per frame on average; not the same |
| matryoshka | as batch_topk; every prefix of the dictionary reconstructs by itself (arXiv 2503.17547) | as batch_topk |
| jumprelu | what exceeds a learned threshold (arXiv 2407.14435) | its own: exactly the same function |
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from steer_asr.errors import SteerOptionError, unknown_name
from steer_asr_training.sparse_code import Entries, SparseCode
from steer_asr_training.top_k import entries_above, largest_of_both, largest_of_frames
from steer_asr_training.training_sae import SPARSE_BELOW, BatchTopKSae, SaeConfig, TrainingSae


class TopKSae(BatchTopKSae):
    """Keeps the k largest activations of each frame (Gao et al., arXiv 2406.04093).

    A TopK is no JumpReLU: its threshold differs from frame to frame. The exported one is that at which as many fire,
    on average; frames with much in them then show more than k features, and quiet ones fewer.
    """

    def activate(self, hidden: torch.Tensor, k: float) -> torch.Tensor:
        if self._tracks(k):
            self._track_threshold(self._smallest_kept(hidden, k))
        kept = hidden.topk(self._k_of_frame(hidden, k), dim=1, sorted=False)
        return torch.zeros_like(hidden).scatter(1, kept.indices, kept.values)

    def select(self, pre: torch.Tensor, k: float) -> Entries:
        k_of_frame, n_kept = self._k_of_frame(pre, k), self._n_kept(pre, k)
        if not self._tracks(k):
            return largest_of_frames(pre, k_of_frame)
        entries, of_batch = largest_of_both(pre, k_of_frame, min(n_kept, pre.numel()))
        self._track_threshold(self.batch.keep(pre, *of_batch, n_kept)[1])
        return entries

    def _k_of_frame(self, hidden: torch.Tensor, k: float) -> int:
        return max(1, min(int(k), hidden.shape[1]))


class MatryoshkaSae(BatchTopKSae):
    """BatchTopK whose first features make a dictionary of their own, at several sizes (Bussmann et al., 2503.17547).

    The loss is the mean, not the sum, of the prefixes' errors, so that the other losses keep their weight beside it.
    """

    def __init__(self, config: SaeConfig, generator: torch.Generator) -> None:
        super().__init__(config, generator)
        shares = config.prefix_shares
        if not shares or list(shares) != sorted(set(shares)) or shares[0] <= 0 or shares[-1] != 1:
            raise SteerOptionError(f"prefix_shares must rise from above 0 to 1, such as (0.25, 0.5, 1); got {shares}")
        self.prefixes = sorted({max(1, round(share * config.d_sae)) for share in shares})
        """Number of features of each nested dictionary; the last one is the whole."""

    def reconstruction_loss(self, x: torch.Tensor, z: torch.Tensor | SparseCode, mse: torch.Tensor) -> torch.Tensor:
        errors = [mse]
        rest = x - self.b_dec
        for block in self._blocks(z)[:-1]:
            rest = rest - block
            errors.append(self.batch.mean(rest.square().sum(dim=1)))
        return torch.stack(errors).mean()

    def _blocks(self, z: torch.Tensor | SparseCode) -> Sequence[torch.Tensor]:
        """What each prefix adds to the one before it, [frame, d_in]."""
        if isinstance(z, SparseCode):
            return (z.by_blocks(self.prefixes) @ self.W_dec).chunk(len(self.prefixes))
        starts = [0, *self.prefixes]
        return [z[:, start:end] @ self.W_dec[start:end] for start, end in pairwise(starts)]


class JumpReluSae(TrainingSae):
    """Learns a threshold for each feature through straight-through gradients (Rajamanoharan et al., arXiv 2407.14435).

    The penalty is on L0 itself. Two things differ from the paper: the default penalty drives L0 to k
    instead of towards 0, so that k means the same for every kind; thresholds start where k features fire per frame of
    the sample instead of at 0.001, since a short training could not bring them there.
    """

    def __init__(self, config: SaeConfig, generator: torch.Generator) -> None:
        super().__init__(config, generator)
        if config.l0_penalty not in ("target", "linear"):
            raise SteerOptionError(unknown_name("l0_penalty", config.l0_penalty, ("target", "linear")))
        if config.bandwidth <= 0:
            raise SteerOptionError(f"bandwidth must be positive, got {config.bandwidth}")
        self.log_threshold = nn.Parameter(torch.full((config.d_sae,), math.log(0.001)))

    @torch.no_grad()
    def measure_input(self, x: torch.Tensor, k: float | None = None) -> None:
        super().measure_input(x, k)
        x = x[: 1 << 12]  # a large dictionary's activations on the whole sample would fill the memory
        hidden = self.encode((x - self.input_mean) * self.input_scale)
        n_firing = max(1, min(int((k or self.config.k) * len(x)), hidden.numel()))
        smallest = hidden.flatten().topk(n_firing, sorted=False).values.min()
        self.log_threshold.fill_(math.log(max(float(smallest), 1e-3)))

    def activate(self, hidden: torch.Tensor, k: float) -> torch.Tensor:  # noqa: ARG002  (thresholds decide, not k)
        return self._jump(hidden, self.log_threshold.exp())

    def select(self, pre: torch.Tensor, k: float) -> Entries | None:  # noqa: ARG002
        """Those above their threshold, and those that it hears of: less than half the bandwidth below it."""
        lower = self.log_threshold.detach().exp() - self.config.bandwidth / 2
        # a silent activation counts as 0, whatever lies before the ReLU
        entries = entries_above(pre, torch.where(lower < 0, -torch.inf, lower))
        too_many = len(entries.flat) > SPARSE_BELOW * pre.numel() and self.config.decode == "auto"
        return None if too_many else entries

    def activate_selected(self, hidden: SparseCode) -> SparseCode:
        threshold = self.log_threshold.exp()[hidden.entries.features]
        return SparseCode(hidden.entries, self._jump(hidden.values, threshold))

    def sparsity_loss(self, hidden: torch.Tensor | SparseCode, k: float) -> torch.Tensor:
        threshold = self.log_threshold.exp()
        if isinstance(hidden, SparseCode):
            values, threshold = hidden.values, threshold[hidden.entries.features]
        else:
            values = hidden
        fires: Any = _Step.apply(values, threshold.expand_as(values), self.config.bandwidth)
        l0 = self.batch.mean_of(fires.sum(), len(hidden))
        return self.config.l0_coefficient * (l0 if self.config.l0_penalty == "linear" else (l0 / k - 1).square())

    def thresholds(self) -> torch.Tensor:
        return self.log_threshold.exp()

    def _jump(self, hidden: torch.Tensor, threshold: torch.Tensor) -> torch.Tensor:
        bandwidth = self.config.bandwidth
        return _Jump.apply(hidden, threshold.expand_as(hidden), bandwidth)  # pyright: ignore[reportReturnType]


class _Jump(torch.autograd.Function):
    """`hidden` where it exceeds its threshold, else 0; by the threshold the paper's pseudo-derivative."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, threshold: torch.Tensor, bandwidth: float) -> torch.Tensor:
        ctx.save_for_backward(hidden, threshold)
        ctx.bandwidth = bandwidth
        return hidden * (hidden > threshold)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        [grad] = grad_outputs
        hidden, threshold = ctx.saved_tensors
        near = _near(hidden, threshold, ctx.bandwidth)
        return grad * (hidden > threshold), -(threshold / ctx.bandwidth) * (near * grad), None


class _Step(torch.autograd.Function):
    """1 where `hidden` exceeds its threshold, else 0. As in the paper, only the threshold gets a gradient."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, threshold: torch.Tensor, bandwidth: float) -> torch.Tensor:
        ctx.save_for_backward(hidden, threshold)
        ctx.bandwidth = bandwidth
        return (hidden > threshold).to(hidden.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[None, torch.Tensor, None]:
        [grad] = grad_outputs
        hidden, threshold = ctx.saved_tensors
        return None, -(1 / ctx.bandwidth) * (_near(hidden, threshold, ctx.bandwidth) * grad), None


def _near(hidden: torch.Tensor, threshold: torch.Tensor, bandwidth: float) -> torch.Tensor:
    """The paper's kernel, a rectangle of width `bandwidth` around the threshold: bool, of the shape of both."""
    return (hidden - threshold).abs() < bandwidth / 2


KINDS: dict[str, type[TrainingSae]] = {
    "batch_topk": BatchTopKSae,
    "topk": TopKSae,
    "matryoshka": MatryoshkaSae,
    "jumprelu": JumpReluSae,
}


def build_sae(kind: str, config: SaeConfig, generator: torch.Generator) -> TrainingSae:
    """An untrained SAE; raises `SteerOptionError` for an unknown kind or settings that the kind cannot have."""
    if kind not in KINDS:
        raise SteerOptionError(unknown_name("kind of SAE", kind, KINDS))
    return KINDS[kind](config, generator)
