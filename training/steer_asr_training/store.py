"""Activations on disk: safetensors shards that can be written in pieces, resumed, and read back at random.

    store = ActivationStore("acts/base")
    x = store.window(17, "encoder.output")               # float16 [frame, d_in], padding included
    for batch in store.frames("encoder.output", batch=2048, seed=0):   # float32 [2048, d_in], padding dropped, for ever
        ...

Each shard holds, per hook point, the frames of its windows one after the other (`offsets` says where each begins) and
how many of each window's frames hear audio (`n_real_frames`). `store.json` says what made them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from steer_asr._files import atomic_path, write_text
from steer_asr.errors import SteerOptionError, WeightsError
from steer_asr_training.encoders import Window

STORE_FILE = "store.json"


def shard_path(folder: Path, index: int) -> Path:
    return folder / f"shard_{index:05d}.safetensors"


def write_shard(folder: Path, index: int, windows: Sequence[Window], described: Sequence[dict[str, Any]]) -> None:
    """Writes one shard atomically: `windows` and, for each, a JSON-able description."""
    points = list(windows[0].activations)
    tensors: dict[str, np.ndarray] = {
        # safetensors writes the buffer as it lies in memory, and inner layers come transposed
        point: np.ascontiguousarray(np.concatenate([w.activations[point] for w in windows]), dtype=np.float16)
        for point in points
    }
    lengths = [len(window.activations[points[0]]) for window in windows]
    tensors["offsets"] = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    tensors["n_real_frames"] = np.array([window.n_real_frames for window in windows], dtype=np.int64)
    with atomic_path(shard_path(folder, index)) as temporary:
        save_file(tensors, temporary, metadata={"windows": json.dumps(list(described))})


def open_store(folder: Path, header: dict[str, Any]) -> None:
    """Starts or resumes a store: writes `store.json`, or checks that the one there says the same.

    Raises `SteerOptionError` when the folder was made with other settings: mixing two is never what one wants.
    """
    existing = folder / STORE_FILE
    if existing.is_file():
        before = json.loads(existing.read_text(encoding="utf-8"))
        changed = sorted(key for key in header if before.get(key) != header[key])
        if changed:
            raise SteerOptionError(
                f"{folder} was collected with other settings ({', '.join(changed)}); "
                "give another output folder, or delete this one"
            )
        return
    write_text(existing, json.dumps(header, indent=2) + "\n")


def has_shard(folder: Path, index: int) -> bool:
    """True when the shard is there and whole."""
    path = shard_path(folder, index)
    if not path.is_file():
        return False
    try:
        with safe_open(path, framework="np") as shard:
            return "offsets" in shard.keys()  # noqa: SIM118  (not a dict)
    except SafetensorError:
        return False


class ActivationStore:
    """Read side of a folder written by `collect`. Raises `WeightsError` when it is missing or incomplete."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / STORE_FILE).is_file():
            raise WeightsError(
                f"{self.folder} holds no activations ({STORE_FILE} is missing); run steer-asr-train collect"
            )
        self.header: dict[str, Any] = json.loads((self.folder / STORE_FILE).read_text(encoding="utf-8"))
        self.windows: list[dict[str, Any]] = []
        self._rows: list[tuple[int, int, int, int]] = []  # shard, first frame, end frame, real frames
        for index in range(self.header["n_shards"]):
            self._index_shard(index)

    def _index_shard(self, index: int) -> None:
        if not has_shard(self.folder, index):
            raise WeightsError(
                f"{self.folder}: shard {index} of {self.header['n_shards']} is missing or broken; "
                "run steer-asr-train collect again, it resumes"
            )
        with safe_open(shard_path(self.folder, index), framework="np") as shard:
            offsets, real = shard.get_tensor("offsets"), shard.get_tensor("n_real_frames")
            self.windows += json.loads(shard.metadata()["windows"])
        self._rows += [(index, int(a), int(b), int(r)) for a, b, r in zip(offsets[:-1], offsets[1:], real, strict=True)]

    def __len__(self) -> int:
        return len(self._rows)

    def n_real_frames(self, i: int) -> int:
        return self._rows[i][3]

    def window(self, i: int, point: str) -> np.ndarray:
        """Activations of window `i` at a hook point: float16 [frame, d_in], padding frames included."""
        shard, start, end, _ = self._rows[i]
        with safe_open(shard_path(self.folder, shard), framework="np") as file:
            return file.get_slice(point)[start:end]

    def frames(
        self, point: str, *, batch: int, seed: int, windows_in_buffer: int = 256, skip_batches: int = 0
    ) -> Iterator[torch.Tensor]:
        """Shuffled real frames for ever: float32 [batch, d_in]. The order depends on `seed` alone.

        `skip_batches` starts further on, at no cost in reading, for a run that resumes.
        """
        rng = np.random.default_rng(seed)
        while True:
            order = rng.permutation(len(self))
            for start in range(0, len(order), windows_in_buffer):
                chosen = order[start : start + windows_in_buffer]
                n_frames = sum(self.n_real_frames(i) for i in chosen)
                shuffled = rng.permutation(n_frames)
                n_batches = n_frames // batch
                if skip_batches >= n_batches:
                    skip_batches -= n_batches
                    continue
                pool = np.concatenate([self.window(i, point)[: self.n_real_frames(i)] for i in chosen])
                for b in range(skip_batches, n_batches):
                    yield torch.from_numpy(pool[shuffled[b * batch : (b + 1) * batch]].astype(np.float32))
                skip_batches = 0
