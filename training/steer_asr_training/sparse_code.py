"""Activations of a batch by the few entries that are kept, and gradients that touch those alone.

With 32 of 4096 features per frame, 99 % of the products of a dense decoder and of all gradients are with zeros. Here

    pre = pre_activations(x - b_dec, W_enc, b_enc)         # [frame, feature], no gradient: the one dense product left
    z = encode(Entries(flat, pre.shape), pre, x, b_dec, W_enc, b_enc)     # flat: which entries, see `top_k.py`
    x_hat = z @ W_dec + b_dec

gives what `relu((x - b_dec) @ W_enc + b_enc)`, zeroed elsewhere, gives, and the same gradients, up to rounding: sums
run over kept entries only, in a fixed order for each output, whatever the number of threads (on the CPU).
"""

from __future__ import annotations

import threading
import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch.nn import functional


@dataclass(eq=False)
class Entries:
    """Where a sparse matrix [frame, feature] has its entries."""

    flat: torch.Tensor
    """int64 [entry]: frame * number of features + feature, rising."""
    shape: tuple[int, int]

    @cached_property
    def frames(self) -> torch.Tensor:
        return self.flat // self.shape[1]

    @cached_property
    def features(self) -> torch.Tensor:
        return self.flat % self.shape[1]

    @cached_property
    def frame_starts(self) -> torch.Tensor:
        """int64 [frame + 1]: at which entry each frame starts, and their number."""
        return _starts(self.frames, self.shape[0])

    @cached_property
    def feature_order(self) -> torch.Tensor:
        """int64 [entry]: the entries sorted by feature, and among those of one feature by frame."""
        if self.features.is_cuda or self.shape[1] > 1 << 16:
            return self.features.argsort(stable=True)
        # numpy sorts 16 bits by radix, several times faster
        return torch.from_numpy(np.argsort(self.features.numpy().astype(np.uint16), kind="stable"))

    @cached_property
    def feature_starts(self) -> torch.Tensor:
        """int64 [feature + 1], of `feature_order`."""
        return _starts(self.features, self.shape[1])

    @cached_property
    def frames_by_feature(self) -> torch.Tensor:
        return self.frames[self.feature_order]


@dataclass(eq=False)
class SparseCode:
    """A matrix [frame, feature] that is `values`, [entry], at `entries` and 0 elsewhere."""

    entries: Entries
    values: torch.Tensor

    def __len__(self) -> int:
        return self.entries.shape[0]

    def __matmul__(self, matrix: torch.Tensor) -> torch.Tensor:
        """[frame, d] for a matrix [feature, d]; gradients go to the values and the matrix."""
        return _Decode.apply(self.values, matrix, self.entries)  # pyright: ignore[reportReturnType]

    def n_fired(self) -> torch.Tensor:
        """int64 [feature]: on how many frames each is positive."""
        fired = self.entries.features[self.values.detach() > 0]
        return torch.bincount(fired, minlength=self.entries.shape[1])

    def by_blocks(self, ends: list[int]) -> SparseCode:
        """One row for every block of features and frame, [block * frame, feature]; blocks end at `ends`, rising."""
        n_frames, n_features = self.entries.shape
        boundaries = torch.tensor(ends, device=self.values.device)
        block = torch.bucketize(self.entries.features, boundaries, right=True)
        flat, order = (self.entries.flat + block * (n_frames * n_features)).sort()
        return SparseCode(Entries(flat, (len(ends) * n_frames, n_features)), self.values.gather(0, order))

    def to_dense(self) -> torch.Tensor:
        n_frames, n_features = self.entries.shape
        dense = self.values.new_zeros(n_frames * n_features)
        return dense.scatter(0, self.entries.flat, self.values).view(n_frames, n_features)


@torch.no_grad()
def pre_activations(x: torch.Tensor, W_enc: torch.Tensor, b_enc: torch.Tensor) -> torch.Tensor:
    """`x @ W_enc + b_enc` without a gradient, [frame, feature]; valid until this is called again in the same thread.

    The memory is used again and again: as new memory, its pages would cost half as much time as the product.
    """
    size = len(x) * W_enc.shape[1]
    if _scratch.memory.numel() < size or _scratch.memory.device != x.device or _scratch.memory.dtype != x.dtype:
        _scratch.memory = x.new_empty(size)
    return torch.addmm(b_enc, x, W_enc, out=_scratch.memory[:size].view(len(x), -1))


class _Scratch(threading.local):
    memory = torch.empty(0)


_scratch = _Scratch()


def encode(
    entries: Entries,
    pre: torch.Tensor,
    x: torch.Tensor,
    b_dec: torch.Tensor,
    W_enc: torch.Tensor,
    b_enc: torch.Tensor,
) -> SparseCode:
    """`relu((x - b_dec) @ W_enc + b_enc)` at `entries`, given its pre-activations [frame, feature].

    Gradients go to b_dec, W_enc and b_enc; not to x, [frame, d_in].
    """
    return SparseCode(entries, _Encode.apply(pre, x, b_dec, W_enc, b_enc, entries))  # pyright: ignore[reportArgumentType]


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> torch.Tensor:
        pre, x, b_dec, W_enc, _, entries = inputs
        values = pre.view(-1).index_select(0, entries.flat).clamp_min(0)
        ctx.save_for_backward(x, b_dec, W_enc, values)
        ctx.entries = entries
        return values

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, b_dec, W_enc, values = ctx.saved_tensors
        entries: Entries = ctx.entries
        grad = grad_outputs[0] * (values > 0)
        b_enc_grad = torch.zeros_like(W_enc[0]).index_add_(0, entries.features, grad)
        # W_enc lies in memory as [feature, d_in], and so does its gradient
        W_enc_grad = _weighted_sums(
            x - b_dec, entries.frames_by_feature, entries.feature_starts, grad[entries.feature_order]
        ).T
        return None, None, -(W_enc @ b_enc_grad), W_enc_grad, b_enc_grad, None


class _Decode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> torch.Tensor:
        values, matrix, entries = inputs
        ctx.save_for_backward(values, matrix)
        ctx.entries = entries
        return _weighted_sums(matrix, entries.features, entries.frame_starts, values)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        [grad] = grad_outputs
        values, matrix = ctx.saved_tensors
        entries: Entries = ctx.entries
        matrix_grad = _weighted_sums(
            grad, entries.frames_by_feature, entries.feature_starts, values[entries.feature_order]
        )
        return _dot_products(entries, grad, matrix), matrix_grad, None


def _weighted_sums(
    rows: torch.Tensor, chosen: torch.Tensor, starts: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """For each bag of entries from `starts[i]` on, the sum of `weights * rows[chosen]`: [bag, d]."""
    return functional.embedding_bag(
        chosen, rows.contiguous(), starts, mode="sum", per_sample_weights=weights, include_last_offset=True
    )


def _dot_products(entries: Entries, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """[entry]: `left[frame] . right[feature]`."""
    with warnings.catch_warnings():  # PyTorch says once that CSR is in beta
        warnings.filterwarnings("ignore", "Sparse CSR tensor support")
        pattern = torch.sparse_csr_tensor(
            entries.frame_starts,
            entries.features,
            left.new_zeros(len(entries.flat)),
            entries.shape,
            check_invariants=False,
        )
    return torch.sparse.sampled_addmm(pattern, left.contiguous(), right.T, beta=0.0).values()


def _starts(of_entry: torch.Tensor, n: int) -> torch.Tensor:
    counts = torch.bincount(of_entry, minlength=n)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])
