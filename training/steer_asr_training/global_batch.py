"""What a training step needs of all frames of a batch, which lie in one process or are spread over several.

    sae.batch = ShardedBatch(n_frames=2048)      # in each process of a torch.distributed group, which holds a share

A BatchTopK keeps the largest activations of the whole batch, an error is a mean over all of its frames, a feature is
alive if it fired anywhere. With these few things shared, and gradients averaged by DistributedDataParallel, a step on
shares is the step on the whole batch, up to rounding.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import distributed

if TYPE_CHECKING:
    from steer_asr_training.sparse_code import Entries


class LocalBatch:
    """A batch whose frames are all here."""

    def size(self, n: int) -> int:
        """Frames of the whole batch, of which `n` are here."""
        return n

    def mean(self, x: torch.Tensor) -> torch.Tensor:
        """Mean of `x`, [frame, ...], over the frames of the whole batch."""
        return x.mean(dim=0)

    def mean_of(self, total: torch.Tensor, n: int) -> torch.Tensor:
        """The same, given the sum over the `n` frames that are here."""
        return total / n

    def count(self, counts: torch.Tensor) -> torch.Tensor:
        """Integers counted over the frames here, as counted over all."""
        return counts

    def nth_largest(self, values: torch.Tensor, n: int) -> torch.Tensor:
        """[]: the smallest of the whole batch's `n` largest activations; `values`, [value], are the largest here."""
        return values.min() if len(values) >= n else values.new_zeros(())

    def keep(self, pre: torch.Tensor, entries: Entries, smallest: torch.Tensor, n: int) -> tuple[Entries, torch.Tensor]:
        """Of `entries`, the `n` largest of pre-activations `pre` here, those among the `n` largest of the whole batch.

        Also the smallest of these, in place of `smallest`, which is that of the entries here.
        """
        del pre, n
        return entries, smallest


class ShardedBatch(LocalBatch):
    """A batch of `n_frames`, of which each process of the default group of torch.distributed holds some.

    All processes have to ask the same things in the same order. Gradients through a mean are those of the whole batch
    once `DistributedDataParallel` has averaged them.
    """

    def __init__(self, n_frames: int) -> None:
        self.n_frames = n_frames

    def size(self, n: int) -> int:  # noqa: ARG002
        return self.n_frames

    def mean(self, x: torch.Tensor) -> torch.Tensor:
        return self.mean_of(x.sum(dim=0), len(x))

    def mean_of(self, total: torch.Tensor, n: int) -> torch.Tensor:  # noqa: ARG002
        here = total / self.n_frames
        everywhere = here.detach().clone()
        distributed.all_reduce(everywhere)
        # the value of all, the gradient of those here: as a sum over processes, which DDP turns into a mean
        return everywhere + distributed.get_world_size() * (here - here.detach())

    def count(self, counts: torch.Tensor) -> torch.Tensor:
        counts = counts.clone()
        distributed.all_reduce(counts)
        return counts

    def nth_largest(self, values: torch.Tensor, n: int) -> torch.Tensor:
        longest = torch.tensor(len(values), device=values.device)
        distributed.all_reduce(longest, op=distributed.ReduceOp.MAX)
        padded = values.new_zeros(int(longest))
        padded[: len(values)] = values
        gathered = [torch.empty_like(padded) for _ in range(distributed.get_world_size())]
        distributed.all_gather(gathered, padded)
        every = torch.cat(gathered)
        return every.topk(n, sorted=False).values.min() if len(every) >= n else values.new_zeros(())

    def keep(self, pre: torch.Tensor, entries: Entries, smallest: torch.Tensor, n: int) -> tuple[Entries, torch.Tensor]:
        values = pre.view(-1).index_select(0, entries.flat)
        smallest = self.nth_largest(values, n)
        return replace(entries, flat=entries.flat[values >= smallest]), smallest
