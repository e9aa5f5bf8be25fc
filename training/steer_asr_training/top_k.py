"""The largest of millions of activations, exactly, without sorting them.

A selection over a whole batch x dictionary is a fifth of a dense training step. But the k-th largest of the maxima of
any blocks is a lower bound of the k-th largest element, since each of k blocks holds one that is as large. With blocks
of 32 out of 4096 and k = 32, about 1.1 k elements pass that bound. They alone are sorted.
"""

from __future__ import annotations

import numpy as np
import torch

from steer_asr_training.sparse_code import Entries

MAX_BLOCK = 32
SCANNED_AT_ONCE = 1 << 19
"""Elements compared in one go: what then is read again is still in the cache."""


def largest_of_batch(pre: torch.Tensor, n: int) -> tuple[Entries, torch.Tensor]:
    """The positive among the `n` largest of `pre`, [frame, feature], and the smallest of them, [].

    Those as large as the smallest are all kept. With fewer than `n` positive ones, all are, and it is 0.
    """
    maxima = _block_maxima(pre, n / len(pre))
    return _of_batch(pre, entries_from(pre, _kth_largest(maxima.flatten(), n)), n)


def largest_of_frames(pre: torch.Tensor, k: int) -> Entries:
    """The positive among the `k` largest of each row of `pre`, [frame, feature]."""
    return _of_frames(pre, entries_from(pre, _kth_largest(_block_maxima(pre, k), k)[:, None]), k)


def largest_of_both(pre: torch.Tensor, k: int, n: int) -> tuple[Entries, tuple[Entries, torch.Tensor]]:
    """What `largest_of_frames` and `largest_of_batch` find, in one pass."""
    maxima = _block_maxima(pre, max(k, n / len(pre)))
    bound = _kth_largest(maxima, k)[:, None].minimum(_kth_largest(maxima.flatten(), n))
    candidates = entries_from(pre, bound)
    return _of_frames(pre, candidates, k), _of_batch(pre, candidates, n)


def _of_batch(pre: torch.Tensor, candidates: Entries, n: int) -> tuple[Entries, torch.Tensor]:
    values = pre.view(-1).index_select(0, candidates.flat)
    if len(values) < n:
        return candidates, values.new_zeros(())
    smallest = _kth_largest(values, n)
    return Entries(candidates.flat[values >= smallest], candidates.shape), smallest


def _of_frames(pre: torch.Tensor, candidates: Entries, k: int) -> Entries:
    """Writes the candidates of a frame side by side, so that one call sorts all frames."""
    starts = candidates.frame_starts
    width = max(k, int(starts.diff().max()))
    shift = torch.arange(len(pre), device=pre.device) * width - starts[:-1]
    place = torch.arange(len(candidates.flat), device=pre.device) + shift[candidates.frames]
    values = pre.view(-1).index_select(0, candidates.flat)
    rows = pre.new_full((len(pre) * width,), -torch.inf).index_copy_(0, place, values).view(-1, width)
    kept = torch.zeros_like(rows, dtype=torch.bool)
    kept.scatter_(1, rows.topk(k, dim=1, sorted=False).indices, value=True)
    return Entries(candidates.flat[kept.view(-1).index_select(0, place)], candidates.shape)


def entries_from(pre: torch.Tensor, bound: torch.Tensor) -> Entries:
    """Where `pre`, [frame, feature], is positive and at least `bound`, broadcast."""
    return entries_above(pre, bound.clamp_min(torch.finfo(pre.dtype).smallest_normal), or_equal=True)


def entries_above(pre: torch.Tensor, bound: torch.Tensor, *, or_equal: bool = False) -> Entries:
    """Where `pre`, [frame, feature], exceeds `bound`, broadcast."""
    if pre.is_cuda:
        passes = pre >= bound if or_equal else pre > bound
        return Entries(passes.view(-1).nonzero().squeeze(1), (pre.shape[0], pre.shape[1]))
    # a third of the time that PyTorch takes
    compare = np.greater_equal if or_equal else np.greater
    values, limits = pre.numpy(), np.broadcast_to(bound.numpy(), pre.shape)
    step = max(1, SCANNED_AT_ONCE // pre.shape[1])
    found = [
        np.flatnonzero(compare(values[i : i + step], limits[i : i + step])) + i * pre.shape[1]
        for i in range(0, len(values), step)
    ]
    return Entries(torch.from_numpy(np.concatenate(found)), (pre.shape[0], pre.shape[1]))


def _block_maxima(pre: torch.Tensor, k: float) -> torch.Tensor:
    """[frame, block]: maxima of blocks small enough that there are several times `k` of them per frame."""
    n_features = pre.shape[1]
    size = min(MAX_BLOCK, 1 << max(0, int(n_features / (4 * k)).bit_length() - 1))
    if size == 1:
        return pre
    # features that lie far apart make a block, so that whole rows are compared; the rest of a row is not needed
    n_blocks = n_features // size
    return pre[:, : n_blocks * size].unflatten(1, (size, n_blocks)).amax(dim=1)


def _kth_largest(values: torch.Tensor, k: int) -> torch.Tensor:
    """[...]: the `k`-th largest along the last dimension of `values`, [..., n]."""
    if values.is_cuda:
        return values.topk(k, sorted=False).values.amin(dim=-1)
    place = values.shape[-1] - k
    return torch.from_numpy(np.asarray(np.partition(values.numpy(), place, axis=-1)[..., place]))
