"""A fit in several processes of this machine, as a cluster would have it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import distributed, multiprocessing

from steer_asr_training.ray_fit import BoardProgress, Share, train_share


def train_in_processes(shares: Sequence[Share], meeting_point: Path, world: int = 2) -> None:
    """Trains each of the shares in `world` processes, of which this one is the first."""
    context = multiprocessing.get_context("spawn")
    others = [
        context.Process(target=train_here, args=(shares, meeting_point, rank, world), daemon=True)
        for rank in range(1, world)
    ]
    for process in others:
        process.start()
    train_here(shares, meeting_point, 0, world)
    for process in others:
        process.join()
        assert process.exitcode == 0


def train_here(shares: Sequence[Share], meeting_point: Path, rank: int, world: int) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=meeting_point.as_uri(), rank=rank, world_size=world)
    try:
        for share in shares:
            train_share(share, rank, world, BoardProgress(None))
    finally:
        distributed.destroy_process_group()
