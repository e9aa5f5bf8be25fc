"""What happens between the first and the last line of one `with steer_asr.hf.steer(...)` block.

`generate` shuffles its batch: a recording that has ended leaves it, a window that came out badly is encoded once more
without its neighbours, and static caches fill it up. So that every row keeps its strength, and every window is reported
once, `SteeredCalls` follows `generate` through its `monitor_progress`, and recognises windows it has seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields

import torch

from steer_asr._torch_edit import edit_for
from steer_asr.errors import NotSteeredError, SteerOptionError
from steer_asr.pack import SteerPack
from steer_asr.steering import FRAME_S, window_report
from steer_asr.transcription import SteerReport, WindowReport

Progress = Callable[[torch.Tensor], None]


@dataclass(frozen=True, eq=False)
class HfWindow(WindowReport):
    """A window and its place in the batch. Times count from the start of the row's audio."""

    row: int = 0


@dataclass
class HfReport(SteerReport):
    """Which steering ran, and what it did so far, in the order in which windows were encoded."""

    windows: list[HfWindow] = field(default_factory=list)  # pyright: ignore[reportIncompatibleVariableOverride]
    strengths: tuple[float, ...] = ()
    """One for all rows, or one for each; `strength` is the highest."""
    check: str = "weights"
    """By what the pack was found to fit."""


class SteeredCalls:
    """Edits the encoder calls of one block, and notes what was done."""

    def __init__(self, pack: SteerPack, strengths: tuple[float, ...], report: HfReport) -> None:
        self.pack, self.strengths, self.report = pack, strengths, report
        self.allow_empty = self.steer_language_detection = False
        self._steered = False
        self._copies = 0
        """Rows that `generate` makes of each row of the caller's; 0 outside of it."""
        self._at: torch.Tensor | None = None
        """int [row, 2]: where each row is and where it ends, in mel frames; None before the first window."""
        self._active: list[int] = []
        """Rows that have not ended."""
        self._seen: tuple[torch.Tensor, list[int | None]] | None = None
        """The mel input of the present step's first encoder call, and whose rows they are."""
        self._mel = torch.empty(0)
        self._rows: list[int | None] = []
        """Of the present encoder call: the row that each of its rows is, or None for a filler."""
        self._new = False

    @contextmanager
    def generating(self, copies: int, theirs: Progress | None) -> Iterator[Progress]:
        """While one `generate` runs, which gets the yielded function as `monitor_progress`."""

        def progress(state: torch.Tensor) -> None:
            self._at, self._seen = state.clone(), None
            self._active = torch.nonzero(state[:, 0] < state[:, 1]).flatten().tolist()
            self._check_size(len(state))
            if theirs is not None:
                theirs(state)

        self._copies = copies
        try:
            yield progress
        finally:
            self._copies, self._at, self._seen, self._active = 0, None, None, []

    def begin(self, mel: torch.Tensor) -> None:
        """Before the encoder runs on `mel`, [row, n_mels, mel frame]."""
        self._mel, self._new = mel, self._seen is None
        if self._seen is not None:
            self._rows = self._known(mel, *self._seen)
        elif self._at is not None:
            fillers: list[int | None] = [None] * (len(mel) - len(self._active))
            self._rows = [*self._active, *fillers]
            self._seen = (mel, self._rows)
        else:  # the model was called directly, or `generate` detects the language
            self._check_size(len(mel))
            self._rows = list(range(len(mel)))
            self._new = self._copies == 0

    def edit(self, x: torch.Tensor) -> torch.Tensor:
        """The edited activations, [row, frame, d_in], at the hook point."""
        strengths = [0.0 if row is None else self._strength(row) for row in self._rows]
        ends = self._real_frames()
        edited, reports = edit_for(self.pack, x.device)(x, strengths, ends)
        self._steered = True
        if self._new:
            for row, frames, n in zip(self._rows, reports, ends, strict=True):
                if row is not None and n > 0:
                    start_s = 0.0 if self._at is None else float(self._at[row, 0]) * FRAME_S / 2
                    window = window_report(frames, self.pack, start_s, n * FRAME_S)
                    self.report.windows.append(
                        HfWindow(**{f.name: getattr(window, f.name) for f in fields(window)}, row=row)
                    )
        return edited

    def check_something_was_steered(self) -> None:
        """Raises `NotSteeredError` when the encoder never ran."""
        if not self._steered:
            raise NotSteeredError(
                f"the block that was to be steered by pack {self.pack.name!r} has ended, and the model's encoder never "
                "ran in it: was another model called, were encoder_outputs given, did another thread do the work, or "
                "did a block inside this one steer instead?"
            )

    def _strength(self, row: int) -> float:
        return self.strengths[0] if len(self.strengths) == 1 else self.strengths[row // max(1, self._copies)]

    def _check_size(self, n_rows: int) -> None:
        copies = self._copies if self._at is not None else 1
        if len(self.strengths) > 1 and n_rows != len(self.strengths) * copies:
            raise SteerOptionError(
                f"{len(self.strengths)} strengths were given, and the model got a batch of {n_rows // copies}"
            )

    def _known(self, mel: torch.Tensor, seen: torch.Tensor, rows: list[int | None]) -> list[int | None]:
        """Whose rows these are, among those that this step has encoded before (a second attempt, a no-speech check).

        Raises `SteerOptionError` when two rows hold the same audio at different strengths and only one is tried again.
        """
        if mel.shape == seen.shape and torch.equal(mel, seen):
            return rows
        found: list[int | None] = []
        for window in mel:
            same = (seen == window).flatten(1).all(dim=1).nonzero().flatten().tolist()
            candidates = [row for i in same if (row := rows[i]) is not None]
            if len({self._strength(row) for row in candidates}) > 1:
                raise SteerOptionError(
                    f"rows {candidates} hold the same audio at different strengths, and generate tries one of them "
                    "again: it cannot be told which. Give generate one temperature, or these rows separate calls"
                )
            found.append(candidates[0] if candidates else None)
        return found

    def _real_frames(self) -> list[int]:
        """Encoder frames of each row of the present call that are not padding.

        Padding is what lies behind the row's end, and what equals the last mel frame up to the end: zeros or silence,
        whichever front-end made it. A window of nothing but zeros is padding; one of nothing but silence need not be.
        """
        mel, n = self._mel, self._mel.shape[-1]
        alike = (mel == mel[..., -1:]).all(dim=1).flip(-1).int().cumprod(dim=-1).sum(dim=-1).tolist()
        only_zeros = (mel == 0).flatten(1).all(dim=1).tolist()
        real = [0 if zeros else n if p in (1, n) else n - p for p, zeros in zip(alike, only_zeros, strict=True)]
        if self._at is not None:
            left = (self._at[:, 1] - self._at[:, 0]).tolist()
            real = [r if row is None else min(r, left[row]) for r, row in zip(real, self._rows, strict=True)]
        return [-(-r // 2) for r in real]
