"""Where `fit` gets its frames from: an iterator of batches that can say, and be told, how far it is.

batches = StoreBatches(store, ["encoder.layers.3", "encoder.output"], batch=2048, seed=0)
next(batches)["encoder.output"]      # float32 [2048, d_in]: the same frames at every hook point, padding dropped
TensorBatches(generator, "encoder.output")                            # any iterator of tensors will do
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import safe_open

from steer_asr.errors import HookPointError, SteerOptionError, unknown_name
from steer_asr.manifest import Clip
from steer_asr_training.analysis.labels import clip_labels, stored_clips
from steer_asr_training.store import ActivationStore, shard_path

TAG_FIELDS = ("kind", "source", "treatment", "lang", "generator")


class Batches(Protocol):
    """An endless iterator of batches with a position, as PyTorch's stateful data loaders have it."""

    def __next__(self) -> Mapping[str, torch.Tensor]:
        """Hook point to float32 [frame, d_in]."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class StoreBatches:
    """Shuffled real frames of a store, at several hook points at once, for ever. The order depends on `seed` alone.

    Each shard is opened once for every buffer of windows, whatever the number of hook points. Memory: the real frames
    of `windows_in_buffer` windows, in float16, times the hook points. `share` (i, n) gives the i-th of n parts of each
    batch, to one of n processes.

    Raises `HookPointError` for a hook point that the store lacks, `SteerOptionError` for a weight that fits no window
    and, on the first pass, when there are fewer frames than a batch takes.
    """

    def __init__(
        self,
        store: ActivationStore,
        points: Sequence[str],
        *,
        batch: int,
        seed: int,
        weights: Mapping[str, float] | None = None,
        windows_in_buffer: int = 256,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        known = stored_points(store)
        if unknown := sorted(set(points) - set(known)):
            raise HookPointError(f"{store.folder}: {unknown_name('hook point', unknown[0], known)}")
        self.store, self.points, self.batch, self.seed = store, list(points), batch, seed
        self.windows_in_buffer, self.share = windows_in_buffer, share
        self._weights = window_weights(store.windows, stored_clips(store), weights) if weights else None
        self._places = _places(store)
        self._drawn, self._frames = 0, self._from(0)

    def __next__(self) -> dict[str, torch.Tensor]:
        self._drawn += 1
        return next(self._frames)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        return self

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": self._drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on behind the batches drawn so far. Buffers that are used up are passed over, not read."""
        self._drawn = state["drawn"]
        self._frames = self._from(self._drawn)

    def _from(self, skip: int) -> Iterator[dict[str, torch.Tensor]]:
        rng = np.random.default_rng(self.seed)
        while True:
            order = rng.permutation(one_pass(len(self.store), self._weights, rng))
            n_found = 0
            for start in range(0, len(order), self.windows_in_buffer):
                chosen = order[start : start + self.windows_in_buffer]
                n_frames = sum(self.store.n_real_frames(i) for i in chosen)
                shuffled = rng.permutation(n_frames)
                n_batches = n_frames // self.batch
                n_found += n_batches
                if skip >= n_batches:
                    skip -= n_batches
                    continue
                pools = self._read(chosen)
                for b in range(skip, n_batches):
                    rows = shuffled[b * self.batch : (b + 1) * self.batch]
                    rows = np.array_split(rows, self.share[1])[self.share[0]]
                    yield {point: torch.from_numpy(pool[rows].astype(np.float32)) for point, pool in pools.items()}
                skip = 0
            if not n_found:
                raise too_few_frames(str(self.store.folder), self.batch)

    def _read(self, chosen: np.ndarray) -> dict[str, np.ndarray]:
        """Hook point to float16 [frame, d_in]: the real frames of the chosen windows, one window after the other."""
        found: dict[tuple[str, int], np.ndarray] = {}
        shards = self._places[chosen, 0]
        for shard in np.unique(shards):
            with safe_open(shard_path(self.store.folder, int(shard)), framework="np") as file:
                offsets = file.get_tensor("offsets")
                for i in chosen[shards == shard]:
                    start = int(offsets[self._places[i, 1]])
                    for point in self.points:
                        found[point, i] = file.get_slice(point)[start : start + self.store.n_real_frames(i)]
        return {point: np.concatenate([found[point, i] for i in chosen]) for point in self.points}


class TensorBatches:
    """Any iterator of tensors, or of mappings from hook point to tensor, as `Batches`.

    Where the iterator has a `state_dict`, that is its position. One that has none must give the same batches when it
    is made again: a run that resumes draws, and drops, as many as the interrupted one had used.
    """

    def __init__(self, source: Iterator[torch.Tensor | Mapping[str, torch.Tensor]], point: str) -> None:
        self.source: Any = source
        self.point, self._drawn = point, 0

    def __next__(self) -> Mapping[str, torch.Tensor]:
        try:
            x = next(self.source)
        except StopIteration:
            raise SteerOptionError(
                f"the batches ended after {self._drawn}; an iterator that never ends is needed, for example "
                "itertools.cycle, or fewer steps"
            ) from None
        self._drawn += 1
        return {self.point: x} if isinstance(x, torch.Tensor) else x

    def state_dict(self) -> dict[str, Any]:
        if hasattr(self.source, "state_dict"):
            return {"drawn": self._drawn, "source": self.source.state_dict()}
        return {"drawn": self._drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if "source" in state:
            self.source.load_state_dict(state["source"])
            self._drawn = state["drawn"]
        while self._drawn < state["drawn"]:
            next(self)


def stored_points(store: ActivationStore) -> list[str]:
    """The hook points that a store holds, in the order of the layers."""
    if not store.header["n_shards"]:
        return []
    with safe_open(shard_path(store.folder, 0), framework="np") as shard:
        names = [name for name in shard.keys() if name not in ("offsets", "n_real_frames")]  # noqa: SIM118
    return sorted(names, key=lambda name: (len(name), name) if name[-1].isdigit() else (1 << 10, name))


def window_weights(
    windows: Sequence[Mapping[str, Any]], clips: Sequence[Clip] | None, weights: Mapping[str, float]
) -> np.ndarray:
    """float64 [window]: the product of the weights of a window's tags; 1 where it has none of them.

    Tags are `namespace:name`: kind, source, treatment, lang, generator; and, as far as the manifests are there, domain
    (speech, music or sounds), category and label of the first clip. Raises `SteerOptionError` for one that no window
    has, and when nothing would be left.
    """
    tags = [_tags(window, clips) for window in windows]
    known = set[str]().union(*tags)
    for tag in weights:
        if tag not in known:
            raise SteerOptionError(f"fit: weights: {unknown_name('tag', tag, known)}")
    found = np.array([np.prod([weights[tag] for tag in of_window if tag in weights]) for of_window in tags])
    if not found.any():
        raise SteerOptionError("fit: the weights leave no window to draw from")
    return found


def one_pass(n: int, weights: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """Which of `n` windows one pass over the data uses: one of weight 2.3 twice, and with a chance of 0.3 once more."""
    if weights is None:
        return np.arange(n)
    return np.repeat(np.arange(n), np.floor(weights + rng.random(n)).astype(int))


def too_few_frames(where: str, batch: int) -> SteerOptionError:
    return SteerOptionError(
        f"{where}: no buffer of windows holds the {batch} frames of a batch; "
        "lower batch_frames, raise windows_in_buffer, or collect more"
    )


def _tags(window: Mapping[str, Any], clips: Sequence[Clip] | None) -> set[str]:
    tags = {f"{key}:{window[key]}" for key in TAG_FIELDS if window.get(key)}
    if window.get("kind") == "speech":
        tags.add("domain:speech")
    chosen = window.get("clips", ())[:1] if clips else ()
    for i in chosen:
        labels = clip_labels(clips[i])  # pyright: ignore[reportOptionalSubscript]
        tags |= labels.tags | ({f"domain:{labels.domain}"} if labels.domain else set())
    return tags


def _places(store: ActivationStore) -> np.ndarray:
    """int [window, 2]: shard, and place in the shard."""
    places = []
    for shard in range(store.header["n_shards"]):
        with safe_open(shard_path(store.folder, shard), framework="np") as file:
            places += [(shard, place) for place in range(len(file.get_tensor("offsets")) - 1)]
    return np.array(places, int).reshape(-1, 2)
