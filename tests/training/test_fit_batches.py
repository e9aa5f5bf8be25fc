"""Where a fit draws its frames from: the order, the weights, the position, several hook points at once."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from steer_asr.errors import SteerOptionError
from steer_asr.manifest import read_manifest
from steer_asr.sae import TENSORS, load_features
from steer_asr_training import batches as module
from steer_asr_training.batches import StoreBatches, TensorBatches, stored_points, window_weights
from steer_asr_training.encoders import Window
from steer_asr_training.fit import FitConfig, fit, fit_layers, fit_stream
from steer_asr_training.store import ActivationStore
from tests.training.analysis_builders import write_clips
from tests.training.builders import POINT, write_store
from tests.training.test_fit import Interrupted, assert_same, checkpoint, stop_after

LAYERS = ["encoder.layers.2", "encoder.layers.10", POINT]
CONFIG = FitConfig(d_sae=24, k=2, k_start=4, steps=12, batch_frames=32, lr=5e-3, checkpoint_every=5)


@pytest.fixture
def store(tmp_path: Path) -> ActivationStore:
    """Twelve windows of 20 real frames and 5 of padding; a frame of window i holds 100 i + its number, minus 1 later.

    Two hook points are 8 wide, the third 6.
    """
    windows, described = [], []
    for i in range(12):
        values = np.r_[100 * i + np.arange(20), [-1] * 5].astype(np.float32)[:, None]
        noise = np.random.default_rng(i).standard_normal((25, 8)).astype(np.float32)
        acts = {LAYERS[0]: noise, LAYERS[1]: noise[::-1].copy(), POINT: noise[:, :6].copy()}
        for x in acts.values():
            x[:, :1] = values
        windows.append(Window(acts, n_real_frames=20))
        kind = "speech" if i % 2 else "nonspeech"
        described.append({"kind": kind, "source": ["a", "b", "c"][i % 3], "treatment": "plain"})
    return write_store(tmp_path / "acts", windows, described, per_shard=5)


def first_column(batch: dict[str, torch.Tensor], point: str = POINT) -> list[int]:
    return batch[point][:, 0].int().tolist()


def test_every_hook_point_gives_the_same_frames_and_no_padding(store: ActivationStore) -> None:
    batches = StoreBatches(store, LAYERS, batch=16, seed=0, windows_in_buffer=5)
    seen: list[int] = []
    for batch in islice(batches, 14):  # 5 + 5 + 2 windows of 20 frames: 6 + 6 + 2 batches in a pass
        rows = first_column(batch)
        assert first_column(batch, LAYERS[0]) == rows
        assert first_column(batch, LAYERS[1]) == rows
        seen += rows
    assert len(set(seen)) == len(seen), "no frame twice in one pass"
    assert min(seen) >= 0


def test_without_weights_the_order_is_the_stores(store: ActivationStore) -> None:
    expected = store.frames(POINT, batch=16, seed=3, windows_in_buffer=5)
    batches = StoreBatches(store, [POINT], batch=16, seed=3, windows_in_buffer=5)
    for _ in range(40):
        assert torch.equal(next(batches)[POINT], next(expected))


@pytest.mark.parametrize("weights", [{}, {"kind:speech": 1.7, "source:a": 0.4}])
@pytest.mark.parametrize("drawn", [0, 1, 7, 33])
def test_a_position_is_come_back_to(store: ActivationStore, drawn: int, weights: dict[str, float]) -> None:
    def new() -> StoreBatches:
        return StoreBatches(store, [POINT], batch=16, seed=1, windows_in_buffer=3, weights=weights)

    straight, resumed = new(), new()
    list(islice(straight, drawn))
    resumed.load_state_dict(straight.state_dict())
    for _ in range(20):
        assert torch.equal(next(straight)[POINT], next(resumed)[POINT])
    assert straight.state_dict() == resumed.state_dict()


def test_a_shard_is_opened_once_for_a_buffer_of_windows_at_every_hook_point(
    store: ActivationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = StoreBatches(store, LAYERS, batch=240, seed=0)
    opened: Counter[str] = Counter()

    def counting(path: Path, **options: Any) -> Any:
        opened[path.name] += 1
        return safe_open(path, **options)

    safe_open = module.safe_open
    monkeypatch.setattr(module, "safe_open", counting)
    next(batches)
    assert set(opened.values()) == {1}
    assert len(opened) == 3


def test_windows_are_drawn_as_often_as_their_weights_say(store: ActivationStore) -> None:
    batches = StoreBatches(store, [POINT], batch=20, seed=0, weights={"kind:speech": 2.5, "source:a": 0})
    windows = Counter(row // 100 for batch in islice(batches, 2000) for row in first_column(batch))
    assert not any(windows[i] for i in (0, 3, 6, 9)), "source a"
    speech = np.mean([windows[i] for i in (1, 5, 7, 11)])
    nonspeech = np.mean([windows[i] for i in (2, 4, 8, 10)])
    assert speech / nonspeech == pytest.approx(2.5, rel=0.1)


def test_weights_of_several_tags_multiply_and_domains_come_from_the_manifest(tmp_path: Path) -> None:
    clips = read_manifest(write_clips(tmp_path / "audio", n=1))  # speech, noise and music
    windows = [
        {"kind": clip.kind, "source": clip.source, "treatment": "plain", "clips": (i,)} for i, clip in enumerate(clips)
    ]
    weights = window_weights(windows, clips, {"domain:music": 3, "kind:nonspeech": 0.5, "domain:speech": 7})
    assert {clip.source: weight for clip, weight in zip(clips, weights.tolist(), strict=True)} == {
        "buzzes": 7.0,
        "hisses": 0.5,
        "beepes": 1.5,
    }


def test_a_weight_that_fits_no_window_is_named(store: ActivationStore) -> None:
    with pytest.raises(SteerOptionError, match="unknown tag 'kind:speach'; did you mean 'kind:speech'"):
        StoreBatches(store, [POINT], batch=8, seed=0, weights={"kind:speach": 2.0})
    with pytest.raises(SteerOptionError, match="leave no window"):
        StoreBatches(store, [POINT], batch=8, seed=0, weights={"treatment:plain": 0.0})


def test_hook_points_come_in_the_order_of_the_layers(store: ActivationStore) -> None:
    assert stored_points(store) == LAYERS


def test_layers_side_by_side_are_those_that_are_fitted_alone(store: ActivationStore, tmp_path: Path) -> None:
    config = replace(CONFIG, windows_in_buffer=5, weights={"kind:speech": 2.0})
    folders = fit_layers(config, store, tmp_path / "all", LAYERS)
    assert list(folders) == LAYERS
    for point in LAYERS:
        alone = fit(replace(config, hook_point=point), store, tmp_path / f"alone-{point}")
        assert folders[point] == tmp_path / "all" / point / "sae"
        assert (folders[point] / "cfg.json").read_text() == (alone / "cfg.json").read_text()
        for name in TENSORS:
            a, b = getattr(load_features(folders[point]), name), getattr(load_features(alone), name)
            np.testing.assert_array_equal(a, b)


def test_layers_side_by_side_resume_bit_exactly(
    store: ActivationStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit_layers(CONFIG, store, tmp_path / "whole", LAYERS)
    stop_after(22, monkeypatch)  # in the middle of a step: the first of three layers has had its update
    with pytest.raises(Interrupted):
        fit_layers(CONFIG, store, tmp_path / "broken", LAYERS)
    monkeypatch.undo()
    fit_layers(CONFIG, store, tmp_path / "broken", LAYERS)
    assert_same(checkpoint(tmp_path / "broken"), checkpoint(tmp_path / "whole"))
    with pytest.raises(SteerOptionError, match="other settings .hook points."):
        fit_layers(CONFIG, store, tmp_path / "whole", LAYERS[:2])


def noise_batches(seed: int = 0) -> Iterator[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randn(32, 6, generator=generator)


class Stateful:
    """An iterator with a position, as PyTorch's stateful data loaders are."""

    def __init__(self) -> None:
        self.n = 0

    def __iter__(self) -> Stateful:
        return self

    def __next__(self) -> torch.Tensor:
        self.n += 1
        return torch.randn(32, 6, generator=torch.Generator().manual_seed(self.n))

    def state_dict(self) -> dict[str, int]:
        return {"n": self.n}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.n = state["n"]


def random_batches() -> Iterator[torch.Tensor]:
    """Draws from PyTorch's own generator, which the checkpoint keeps."""
    while True:
        yield torch.randn(32, 6)


@pytest.mark.parametrize("source", [noise_batches, Stateful, random_batches])
def test_any_iterator_of_tensors_can_be_fitted_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Any
) -> None:
    torch.manual_seed(0)
    fit_stream(CONFIG, source(), tmp_path / "whole")
    torch.manual_seed(0)
    stop_after(8, monkeypatch)
    with pytest.raises(Interrupted):
        fit_stream(CONFIG, source(), tmp_path / "broken")
    monkeypatch.undo()
    torch.manual_seed(1)
    [folder] = fit_stream(CONFIG, source(), tmp_path / "broken", origin={"model_name": "mine"}).values()
    assert_same(checkpoint(tmp_path / "broken"), checkpoint(tmp_path / "whole"))
    assert '"model_name": "mine"' in (folder / "cfg.json").read_text()


def test_an_iterator_that_ends_says_so(tmp_path: Path) -> None:
    with pytest.raises(SteerOptionError, match="the batches ended after 10"):
        fit_stream(CONFIG, islice(noise_batches(), 10), tmp_path)
    batches = TensorBatches(itertools.repeat(torch.zeros(2, 3)), "here")
    assert list(next(batches)) == ["here"]
