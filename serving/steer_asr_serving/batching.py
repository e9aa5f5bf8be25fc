"""Windows of requests that run at the same time, encoded and decoded together.

    batcher = Batcher(model.model, max_windows=8, wait_s=0.01, start_token=50257)
    with batcher.joined() as shared:                # in each request's own thread
        model.model = shared                        # of a shallow copy that serves one request
        segments, _ = model.transcribe(audio, steer=0.5)

A batch is what waits when CTranslate2 becomes free, so requests that come alone never wait, and batches grow with the
load. Between encoding and decoding each row goes back to its own request's thread, which steers it by its own settings.

Only what CTranslate2 can batch is: windows of one shape, with the same decoding options, prompts of one length whose
start-of-transcript token stands at the same place (`Whisper::generate`, src/models/whisper.cc), and no sampling. All
other calls run by themselves.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ctranslate2
import numpy as np


@dataclass(eq=False)
class _Ask:
    """One window of one request, and what came of it."""

    key: Hashable
    """Asks with the same key can be answered together."""
    item: Any
    answer: Any = None
    error: Exception | None = None
    batch: int = 0
    """How many windows were answered together; 0 before."""


class Batcher:
    """A `ctranslate2.models.Whisper` that many threads share. `max_windows` bounds a batch.

    A thread that finds it free waits up to `wait_s` for the windows of requests that are under way, then runs all that
    fit with its own.
    """

    def __init__(self, wrapped: Any, *, max_windows: int, wait_s: float, start_token: int | None) -> None:
        self.wrapped, self.max_windows, self.wait_s, self.start_token = wrapped, max_windows, wait_s, start_token
        self._changed = threading.Condition()
        self._waiting: list[_Ask] = []
        self._joined, self._busy = 0, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrapped, name)

    @contextmanager
    def joined(self) -> Iterator[Shared]:
        """What stands for the model in one request."""
        with self._changed:
            self._joined += 1
        try:
            yield Shared(self)
        finally:
            with self._changed:
                self._joined -= 1
                self._changed.notify_all()  # nobody has to wait for this request's windows any more

    def ask(self, key: Hashable, item: Any, run: Callable[[list[Any]], list[Any]]) -> _Ask:
        """Answers `item`, together with others of its key. Raises what `run` raises for it alone."""
        mine = _Ask(key, item)
        with self._changed:
            self._waiting.append(mine)
            self._changed.notify_all()
            self._changed.wait_for(lambda: mine.batch or not self._busy)
            while not mine.batch:
                self._busy = True
                self._changed.wait_for(self._all_here, self.wait_s)
                batch = [ask for ask in self._waiting if ask.key == key][: self.max_windows]
                self._waiting = [ask for ask in self._waiting if ask not in batch]
                self._changed.release()
                try:
                    _answer(batch, run)
                finally:
                    self._changed.acquire()
                    self._busy = False
                    self._changed.notify_all()
                self._changed.wait_for(lambda: mine.batch or not self._busy)
        if mine.error is not None:
            raise mine.error
        return mine

    def _all_here(self) -> bool:
        """Whether waiting longer would bring nothing: every request under way waits, or a batch is full."""
        return len(self._waiting) >= min(self._joined, self.max_windows)


@dataclass
class Shared:
    """The model as one request sees it."""

    batcher: Batcher
    sizes: list[int] = field(default_factory=list)
    """Windows in each decoded batch that one of this request's was in, those it was alone in included."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.batcher.wrapped, name)

    def encode(self, features: ctranslate2.StorageView, to_cpu: bool = False) -> ctranslate2.StorageView:
        """As CTranslate2's, but the output of a single window always lies in host memory, where it is edited."""
        if features.device != "cpu" or features.shape[0] != 1:
            return self.batcher.wrapped.encode(features, to_cpu=to_cpu)

        def run(rows: list[ctranslate2.StorageView]) -> list[ctranslate2.StorageView]:
            return _rows(self.batcher.wrapped.encode(_stacked(rows), to_cpu=True))

        return self.batcher.ask(("encode", tuple(features.shape), features.dtype), features, run).answer

    def generate(
        self, features: ctranslate2.StorageView, prompts: Sequence[Sequence[int]], **options: Any
    ) -> list[Any]:
        """As CTranslate2's."""
        key = self._key(features, prompts, options)
        if key is None:
            self.sizes.append(1)
            return self.batcher.wrapped.generate(features, prompts, **options)

        def run(items: list[tuple[ctranslate2.StorageView, Sequence[int]]]) -> list[Any]:
            rows = _stacked([row for row, _ in items])
            return self.batcher.wrapped.generate(rows, [prompt for _, prompt in items], **options)

        ask = self.batcher.ask(key, (features, prompts[0]), run)
        self.sizes.append(ask.batch)
        return [ask.answer]

    def _key(self, features: Any, prompts: Sequence[Sequence[int]], options: dict[str, Any]) -> Hashable | None:
        """What calls have to agree in to be one batch; None for a call that has to be alone."""
        sampled = options.get("sampling_topk", 1) != 1
        if len(prompts) != 1 or features.device != "cpu" or features.shape[0] != 1 or sampled:
            return None
        prompt = list(prompts[0])
        start = prompt.index(self.batcher.start_token) if self.batcher.start_token in prompt else -1
        frozen = tuple(sorted((name, _frozen(value)) for name, value in options.items()))
        return "generate", tuple(features.shape), features.dtype, len(prompt), start, frozen


def _answer(batch: list[_Ask], run: Callable[[list[Any]], list[Any]]) -> None:
    """Runs a batch. If it fails (memory, say), its windows run one by one, so that each gets only its own error."""
    try:
        for ask, answer in zip(batch, run([ask.item for ask in batch]), strict=True):
            ask.answer = answer
        size = len(batch)
    except Exception as error:
        size = 1
        for ask in batch:
            ask.error = error if len(batch) == 1 else _alone(ask, run)
    for ask in batch:
        ask.batch = size


def _alone(ask: _Ask, run: Callable[[list[Any]], list[Any]]) -> Exception | None:
    try:
        [ask.answer] = run([ask.item])
    except Exception as error:
        return error
    return None


def _stacked(rows: Sequence[ctranslate2.StorageView]) -> ctranslate2.StorageView:
    if len(rows) == 1:
        return rows[0]
    return ctranslate2.StorageView.from_array(np.concatenate([np.asarray(row) for row in rows]))


def _rows(output: ctranslate2.StorageView) -> list[ctranslate2.StorageView]:
    """Views of each row, [1, frame, d_model], which share the output's memory."""
    if output.dtype == ctranslate2.DataType.bfloat16:
        output = output.to(ctranslate2.DataType.float32)
    if output.shape[0] == 1:
        return [output]
    array = np.asarray(output)
    return [ctranslate2.StorageView.from_array(array[i : i + 1]) for i in range(len(array))]


def _frozen(value: Any) -> Hashable:
    return tuple(value) if isinstance(value, list) else value
