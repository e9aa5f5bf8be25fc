from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from steer_asr.errors import SteerOptionError, WeightsError
from steer_asr_training.encoders import Window
from steer_asr_training.store import ActivationStore, open_store, shard_path
from tests.training.builders import POINT, write_store


@pytest.fixture
def store(tmp_path: Path) -> ActivationStore:
    """Ten windows of different lengths; every frame of window i holds 100 i + its number, padding holds -1."""
    windows = []
    for i in range(10):
        values = np.array([100 * i + t for t in range(5 + i)] + [-1.0] * 3, np.float32)
        windows.append(Window({POINT: np.stack([values, values], axis=1)}, n_real_frames=5 + i))
    return write_store(tmp_path, windows, [{"name": i} for i in range(10)])


def test_windows_come_back_whole_and_in_order(store: ActivationStore) -> None:
    assert [w["name"] for w in store.windows] == list(range(10))
    np.testing.assert_array_equal(store.window(7, POINT)[:, 0], [*range(700, 712), -1, -1, -1])
    assert store.n_real_frames(7) == 12


def test_frames_are_shuffled_complete_and_without_padding(store: ActivationStore) -> None:
    n_frames = sum(store.n_real_frames(i) for i in range(len(store)))
    batches = islice(store.frames(POINT, batch=5, seed=0, windows_in_buffer=100), n_frames // 5)
    values = torch.cat(list(batches))[:, 0].tolist()
    assert len(set(values)) == len(values), "no frame twice in one pass"
    assert min(values) >= 0, "padding frames are dropped"
    assert values != sorted(values)


def test_frames_depend_on_the_seed_alone_and_can_start_further_on(store: ActivationStore) -> None:
    def first(n: int, *, seed: int, skip: int = 0) -> list[torch.Tensor]:
        return list(islice(store.frames(POINT, batch=4, seed=seed, windows_in_buffer=3, skip_batches=skip), n))

    run = first(40, seed=1)
    for skip in (0, 1, 7, 25):
        for a, b in zip(run[skip:], first(40 - skip, seed=1, skip=skip), strict=True):
            assert torch.equal(a, b)
    assert not torch.equal(run[0], first(1, seed=2)[0])


def test_a_broken_or_missing_shard_is_named(store: ActivationStore) -> None:
    shard_path(store.folder, 1).write_bytes(b"torn")
    with pytest.raises(WeightsError, match="shard 1 of 3.*resumes"):
        ActivationStore(store.folder)


def test_an_empty_folder_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="steer-asr-train collect"):
        ActivationStore(tmp_path)


def test_a_folder_with_other_settings_is_refused(tmp_path: Path) -> None:
    open_store(tmp_path, {"model": "a", "n_shards": 1})
    open_store(tmp_path, {"model": "a", "n_shards": 1})
    with pytest.raises(SteerOptionError, match="other settings .model."):
        open_store(tmp_path, {"model": "b", "n_shards": 1})


def test_activations_that_lie_transposed_in_memory_come_back_as_they_were(tmp_path: Path) -> None:
    x = np.arange(24, dtype=np.float32).reshape(4, 6).T
    assert not x.flags.c_contiguous
    store = write_store(tmp_path, [Window({"encoder.layers.0": x}, n_real_frames=6)], [{"kind": "speech"}])
    np.testing.assert_array_equal(store.window(0, "encoder.layers.0"), x)
