"""Progress of long work on stderr: a bar in a terminal, a plain line now and then elsewhere.

with Progress(total=len(clips), unit="clip", label="bench") as progress:
    progress.advance(note="rain.flac")
"""

from __future__ import annotations

import sys
import time
from types import TracebackType

from tqdm import tqdm

LINE_EVERY_S = 20.0


class Progress:
    """Counts `advance`d units towards `total`; use as a context manager."""

    def __init__(self, *, total: int, unit: str, label: str) -> None:
        self.total, self.unit, self.label, self.done = total, unit, label, 0
        self._bar = tqdm(total=total, unit=unit, desc=label) if total and sys.stderr.isatty() else None
        self._started = self._last_line = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self.total:
            self._line("" if kind is None else " (interrupted)")

    def advance(self, n: int = 1, note: str = "") -> None:
        """Counts `n` more units; `note` is shown behind the count."""
        self.done += n
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(n)
        elif time.monotonic() - self._last_line > LINE_EVERY_S:
            self._line(f"  {note}" if note else "")

    def _line(self, note: str) -> None:
        self._last_line = time.monotonic()
        spent = self._last_line - self._started
        left = spent / max(1, self.done) * (self.total - self.done)
        eta = f", about {left / 60:.0f} min left" if self.done < self.total else f", {spent / 60:.1f} min"
        sys.stderr.write(f"{self.label}: {self.done}/{self.total} {self.unit}s{eta}{note}\n")
        sys.stderr.flush()
