"""Encoder outputs on a GPU: edited there where torch can, on the host otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import pytest
import torch

from steer_asr import _cuda_edit
from steer_asr._ct2_run import Run
from steer_asr.pack import SteerPack
from steer_asr.steering import Steering, steer_frames
from tests.helpers import noise
from tests.steer_asr.packs import random_pack
from tests.steer_asr.test_executors import half_open_gate
from tests.tiny_whisper import WIDTH, write_tiny_whisper

needs_gpu = pytest.mark.skipif(
    not (ctranslate2.get_cuda_device_count() and torch.cuda.is_available()), reason="needs a CUDA device"
)


class OnGpu:
    """What an encoder output on a GPU shows of itself; its memory is here."""

    device, device_index = "cuda", 0

    def __init__(self, x: np.ndarray) -> None:
        self.x, self.dtype = x, ctranslate2.StorageView.from_array(x).dtype

    def to_device(self, _device: Any) -> ctranslate2.StorageView:
        return ctranslate2.StorageView.from_array(self.x.copy())


@pytest.fixture
def pack() -> SteerPack:
    return random_pack(WIDTH, "0" * 64, gate=half_open_gate(16))


@pytest.mark.parametrize(("dtype", "apart"), [(np.float32, 2e-5), (np.float16, 5e-3)])
def test_on_the_device_as_on_the_host(
    monkeypatch: pytest.MonkeyPatch, pack: SteerPack, dtype: Any, apart: float
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(_cuda_edit, "view", lambda output: torch.from_numpy(output.x))
    x = np.random.default_rng(0).standard_normal((2, 200, WIDTH)).astype(dtype)
    wanted, output = x.astype(np.float32), OnGpu(x.copy())
    said = [steer_frames(window, pack, 0.8, heard) for window, heard in zip(wanted, (200, 120), strict=True)]
    run = Run(Steering(pack, 0.8), pack, "ct2", keep_plain=True)
    run.chunks = [{"offset": 0.0, "duration": 4.0}, {"offset": 4.0, "duration": 4.0}]
    assert run.steer(output, (200, 120)) is output, "nothing is copied"  # pyright: ignore[reportArgumentType]
    np.testing.assert_allclose(output.x.astype(np.float32), wanted, atol=apart)
    assert not np.array_equal(output.x, x)
    assert run.plain is not None
    assert np.array_equal(run.plain, x), "languages are detected on what was there before"
    assert [window.nobody_speaks for window in run.report.windows] == pytest.approx(
        [report.nobody_speaks for report in said], abs=1e-2 if dtype == np.float16 else 1e-5
    )


def test_without_a_torch_that_knows_gpus_the_host_edits(monkeypatch: pytest.MonkeyPatch, pack: SteerPack) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    x = np.random.default_rng(0).standard_normal((1, 200, WIDTH)).astype(np.float32)
    wanted = x[0].copy()
    steer_frames(wanted, pack, 1.0, 200)
    run = Run(Steering(pack), pack, "ct2")
    edited = run.steer(OnGpu(x), (200,))  # pyright: ignore[reportArgumentType]
    np.testing.assert_array_equal(np.asarray(edited)[0], wanted)


def test_only_what_lies_on_a_gpu_and_can_be_viewed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    x = np.zeros((1, 2, WIDTH), np.float32)
    assert _cuda_edit.can_edit(OnGpu(x))
    assert not _cuda_edit.can_edit(ctranslate2.StorageView.from_array(x))
    wide = OnGpu(x)
    wide.dtype = ctranslate2.DataType.bfloat16
    assert not _cuda_edit.can_edit(wide)


@needs_gpu
@pytest.mark.parametrize("compute_type", ["float32", "float16"])
def test_a_real_gpu_gives_what_the_cpu_gives(tmp_path: Path, compute_type: str) -> None:
    from faster_whisper.audio import pad_or_trim

    from steer_asr.ct2 import SteeredWhisperModel
    from steer_asr.models import find_model

    files = find_model(write_tiny_whisper(tmp_path / "model"))
    pack = random_pack(WIDTH, files.sha256, gate=half_open_gate(16))
    host = SteeredWhisperModel(files, device="cpu", compute_type="float32").steered(pack)
    there = SteeredWhisperModel(files, device="cuda", compute_type=compute_type).steered(pack)
    features = pad_or_trim(host.feature_extractor(noise(5.0)))
    output = there.encode(features)
    assert output.device == "cuda"
    found = np.asarray(output.to_device(ctranslate2.Device.cpu).to(ctranslate2.DataType.float32))
    wanted = np.asarray(host.encode(features))
    error = np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
    assert error < (1e-3 if compute_type == "float32" else 2e-2)
