"""Curves of a fit or a learning run for TensorBoard, an optional extra: `pip install 'steer-asr[tensorboard]'`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steer_asr.errors import SteerOptionError

EVENTS_FOLDER = "events"
EVERY_STEPS = 10


class Scalars:
    """Writes every tenth step's numbers below `folder`/events; with `enabled` false it does nothing.

    Use as a context manager. Raises `SteerOptionError` when TensorBoard is not installed.
    """

    def __init__(self, folder: Path, *, enabled: bool, first_step: int) -> None:
        self._writer: Any = None
        if enabled:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise SteerOptionError(
                    "TensorBoard is missing; install it with: pip install 'steer-asr[tensorboard]'"
                ) from error
            # steps behind the checkpoint that a run resumes from are written again, so they are dropped from the curves
            self._writer = SummaryWriter(str(folder / EVENTS_FOLDER), purge_step=first_step)

    def __enter__(self) -> Scalars:
        return self

    def __exit__(self, *error: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def add(self, step: int, prefix: str, values: Mapping[str, Any], *, always: bool = False) -> None:
        """`values` are numbers or tensors of one number; `always`: whatever step it is."""
        if self._writer is not None and (always or step % EVERY_STEPS == 0):
            for name, value in values.items():
                self._writer.add_scalar(f"{prefix}/{name}", float(value), step)
