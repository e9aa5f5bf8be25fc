"""What is kept of a recording while somebody looks at it, so that another strength costs no encoding.

    heard = Heard(max_bytes=64 * 2**20)
    model.model = tap = RememberingTap(model.model, gone, heard)       # of a shallow copy that serves one request
    model.feature_extractor = RememberedMel(model.feature_extractor, heard)

What is kept is the encoder's plain output: the edit comes after it, so every strength starts from the same one. Windows
are known by their content, not by their time, because faster-whisper begins a window where the text of the last one
ended: another text may mean other windows, and those are encoded as always.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import ctranslate2
import numpy as np

from steer_asr_serving.tap import ModelTap

Item = TypeVar("Item")


@dataclass(frozen=True)
class Bounds:
    """How much may be kept."""

    items: int
    bytes: int
    age_s: float = float("inf")
    """Since the item was last used."""


class Shelf(Generic[Item]):
    """Keeps items by name, those used last, within bounds. Threads may share one.

    `size` tells an item's bytes; it may grow while it is kept. `clock` is in seconds.
    """

    def __init__(
        self, bounds: Bounds, size: Callable[[Item], int], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._bounds, self._size, self._clock = bounds, size, clock
        self._items: dict[Any, tuple[Item, float]] = {}
        """In order of use, with the time of it."""
        self._lock = threading.Lock()

    def get(self, name: Any) -> Item | None:
        """The item, which is now the one used last; None when it is not kept (any more)."""
        with self._lock:
            self._settle()
            if name not in self._items:
                return None
            item, _ = self._items.pop(name)
            self._items[name] = item, self._clock()
            return item

    def put(self, name: Any, item: Item) -> None:
        """Keeps an item, in place of others if need be; not at all if it is larger than everything may be."""
        with self._lock:
            self._items.pop(name, None)
            self._items[name] = item, self._clock()
            self._settle()

    @property
    def bytes(self) -> int:
        """Of all items."""
        with self._lock:
            return self._bytes()

    def _bytes(self) -> int:
        return sum(self._size(item) for item, _ in self._items.values())

    def _settle(self) -> None:
        oldest_s = self._clock() - self._bounds.age_s
        for name in [name for name, (_, used_s) in self._items.items() if used_s < oldest_s]:
            del self._items[name]
        while self._items and (len(self._items) > self._bounds.items or self._bytes() > self._bounds.bytes):
            del self._items[next(iter(self._items))]


class Heard:
    """What a model made of one recording, apart from any steering."""

    def __init__(self, max_bytes: int) -> None:
        self.mel: np.ndarray | None = None
        """float32 [n_mels, mel frame], 10 ms a frame."""
        self.windows: Shelf[np.ndarray] = Shelf(Bounds(items=1000, bytes=max_bytes), lambda output: output.nbytes)
        """{digest of the window's mel: plain encoder output [1, frame, d_model]}"""

    @property
    def bytes(self) -> int:
        return self.windows.bytes + (0 if self.mel is None else self.mel.nbytes)


class RememberingTap(ModelTap):
    """A `ModelTap` that encodes no window twice."""

    def __init__(self, wrapped: Any, gone: threading.Event, heard: Heard) -> None:
        super().__init__(wrapped, gone)
        self._heard = heard
        self.outputs: list[np.ndarray] = []
        """The plain outputs that were asked for, [1, frame, d_model] each, in order."""
        self.encoded_windows = 0
        """How many of them were not known."""

    def encode(self, features: ctranslate2.StorageView, *args: Any, **kwargs: Any) -> ctranslate2.StorageView:
        """As CTranslate2's. What is returned may be edited in place: it is a copy. Raises `Abandoned`."""
        samples: np.ndarray = np.asarray(features)
        digest = hashlib.blake2b(samples.tobytes(), digest_size=16).digest()
        plain = self._heard.windows.get(digest)
        if plain is None:
            plain = _as_array(super().encode(features, *args, **kwargs))
            self._heard.windows.put(digest, plain)
            self.encoded_windows += 1
        self._check_wanted()
        self.outputs.append(plain)
        return ctranslate2.StorageView.from_array(plain.copy())


class RememberedMel:
    """faster-whisper's feature extractor for one recording, which is the only one it is ever called with."""

    def __init__(self, extractor: Any, heard: Heard) -> None:
        self._extractor, self._heard = extractor, heard

    def __getattr__(self, name: str) -> Any:
        return getattr(self._extractor, name)

    def __call__(self, audio: np.ndarray, **options: Any) -> np.ndarray:
        """float32 [n_mels, mel frame]"""
        mel = self._heard.mel
        if mel is None:
            mel = self._heard.mel = self._extractor(audio, **options)
        return mel


def _as_array(output: ctranslate2.StorageView) -> np.ndarray:
    """The output in memory of its own, in a type that numpy has."""
    if output.dtype == ctranslate2.DataType.bfloat16:
        output = output.to(ctranslate2.DataType.float32)
    if output.device != "cpu":
        output = output.to_device(ctranslate2.Device.cpu)
    return np.asarray(output).copy()
