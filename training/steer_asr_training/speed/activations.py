"""The frames that every contender trains on, as .npy files: made up, or from a store."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from steer_asr._files import atomic_path
from steer_asr.errors import SteerOptionError

N_ACTIVE = 8
"""Planted features per frame."""


def write_planted(folder: Path, *, d_in: int, n_frames: int, n_held_out: int, seed: int) -> str:
    """Sums of `N_ACTIVE` of d_in random directions, some of them common and most rare, with a little noise.

    Writes train.npy and held_out.npy, float32 [frame, d_in], with mean 0 and mean norm sqrt(d_in).
    """
    rng = np.random.default_rng(seed)
    n_features = d_in
    directions = rng.standard_normal((n_features, d_in), np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    common = 1 / np.arange(1, n_features + 1) ** 1.0
    edges = np.cumsum(common / common.sum())

    def draw(n: int) -> np.ndarray:
        parts = []
        for start in range(0, n, 4096):
            size = min(4096, n - start)
            chosen = np.minimum(np.searchsorted(edges, rng.random((size, N_ACTIVE))), n_features - 1)
            loud = rng.gamma(4.0, 0.25, (size, N_ACTIVE)).astype(np.float32)
            x = 0.05 * rng.standard_normal((size, d_in), np.float32)
            for i in range(N_ACTIVE):
                x += loud[:, i : i + 1] * directions[chosen[:, i]]
            parts.append(x)
        return np.concatenate(parts)

    _write(folder, draw(n_frames + n_held_out), n_held_out)
    return f"planted: {N_ACTIVE} of {n_features} directions per frame, width {d_in}, seed {seed}"


def write_stored(
    folder: Path, store_folder: Path, hook_point: str, *, n_frames: int, n_held_out: int, seed: int
) -> str:
    """The same from a store written by `collect`: shuffled frames, centred and scaled by one number.

    Raises `HookPointError` for a hook point it lacks, `SteerOptionError` when it has fewer frames.
    """
    from steer_asr_training.batches import StoreBatches
    from steer_asr_training.store import ActivationStore

    store = ActivationStore(store_folder)
    total, size = n_frames + n_held_out, 256
    there = sum(store.n_real_frames(i) for i in range(len(store)))
    if there < total:
        raise SteerOptionError(f"speed: {store_folder} has {there} frames; {total} are needed, or fewer --steps")
    batches = StoreBatches(store, [hook_point], batch=size, seed=seed)
    x = np.concatenate([next(batches)[hook_point].numpy() for _ in range(-(-total // size))])[:total]
    _write(folder, x, n_held_out)
    return f"{hook_point} of {store.header['model']}, from a store of {len(store)} windows"


def _write(folder: Path, x: np.ndarray, n_held_out: int) -> None:
    x = x - x.mean(axis=0)
    x *= x.shape[1] ** 0.5 / np.linalg.norm(x, axis=1).mean()
    with atomic_path(folder / "train.npy") as temporary:
        np.save(temporary, x[n_held_out:])
    with atomic_path(folder / "held_out.npy") as temporary:
        np.save(temporary, x[:n_held_out])
