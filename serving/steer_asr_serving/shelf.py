"""The models in a replica's memory: all of a server's, or the few that were used last."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

Model = TypeVar("Model")


class ModelShelf(Generic[Model]):
    """Loads models by name, and keeps at most `most` of them; None keeps all.

    The least recently used one goes before another is loaded, so there is never one too many; a job that runs on it
    keeps it until its end. One model loads at a time, and jobs on those that are there do not wait for it.
    """

    def __init__(self, load: Callable[[str], Model], most: int | None = None) -> None:
        self._load, self._most = load, most
        self._models: OrderedDict[str, Model] = OrderedDict()
        self._lock, self._loading = threading.Lock(), threading.Lock()

    def fill(self, names: Iterable[str]) -> None:
        """Loads the first of them, as many as there is room for."""
        for name in list(names)[: self._most]:
            self[name]

    def __getitem__(self, name: str) -> Model:
        """Raises what loading raises; then the next job tries again."""
        if (model := self._known(name)) is not None:
            return model
        with self._loading:
            if (model := self._known(name)) is not None:
                return model
            with self._lock:
                while self._most is not None and len(self._models) >= self._most:
                    self._models.popitem(last=False)
            model = self._load(name)
            with self._lock:
                self._models[name] = model
            return model

    @property
    def names(self) -> tuple[str, ...]:
        """Of the models that are loaded, the least recently used one first."""
        with self._lock:
            return tuple(self._models)

    def _known(self, name: str) -> Model | None:
        with self._lock:
            if name in self._models:
                self._models.move_to_end(name)
            return self._models.get(name)
