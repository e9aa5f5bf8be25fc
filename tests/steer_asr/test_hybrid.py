"""The hybrid executor on a tiny random Whisper: what ct2 does, at any layer."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from steer_asr.ct2 import SteeredBatchedInferencePipeline, SteeredWhisperModel, load_model
from steer_asr.errors import HookPointError, PackMismatchError
from steer_asr.hybrid import HybridWhisperModel
from steer_asr.pack import SteerPack
from steer_asr.steering import Steering
from tests.helpers import noise
from tests.steer_asr.packs import open_gate, random_pack
from tests.tiny_whisper import WIDTH

OPTIONS: dict[str, Any] = {"beam_size": 1, "language": "en", "temperature": 0.0, "max_new_tokens": 6}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny operations on many threads mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model(tiny_whisper_dir: Path) -> HybridWhisperModel:
    return load(tiny_whisper_dir)


def load(folder: Path) -> HybridWhisperModel:
    model = load_model(folder, executor="hybrid", device="cpu", compute_type="float32", cpu_threads=1)
    assert isinstance(model, HybridWhisperModel)
    return model


@pytest.fixture(scope="module", params=["encoder.layers.0", "encoder.output"])
def pack(request: pytest.FixtureRequest, model: HybridWhisperModel) -> SteerPack:
    return random_pack(WIDTH, model.files.sha256, gate=open_gate(16), hook_point=request.param)


def tokens(result: tuple[Iterable[Any], Any]) -> list[list[int]]:
    return [segment.tokens for segment in result[0]]


def mel(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((80, 3000)).astype(np.float32)


def test_unsteered_it_decodes_as_ct2_does(model: HybridWhisperModel) -> None:
    stock = SteeredWhisperModel(model.files, device="cpu", compute_type="float32", cpu_threads=1)
    audio = noise(4.0)
    assert tokens(model.transcribe(audio, **OPTIONS)) == tokens(stock.transcribe(audio, **OPTIONS))


def test_strength_zero_is_the_identity_to_the_bit(model: HybridWhisperModel, pack: SteerPack) -> None:
    plain = np.array(model.encode(mel()))
    np.testing.assert_array_equal(np.array(model.steered(Steering(pack, 0.0)).encode(mel())), plain)
    assert np.abs(np.array(model.steered(pack).encode(mel())) - plain).max() > 0.1


def test_reports_are_those_of_ct2_and_lazy(model: HybridWhisperModel, pack: SteerPack) -> None:
    segments, info = model.transcribe(noise(4.0), steer=Steering(pack, 0.3), **OPTIONS)
    assert info.steer.windows == []
    done = list(segments)
    assert (info.steer.pack, info.steer.strength, info.steer.executor) == ("test", 0.3, "hybrid")
    assert info.steer.windows[0].end_s == pytest.approx(4.0)
    assert info.steer.edited_share == pytest.approx(0.3, abs=1e-3)
    assert all(segment.steer is not None for segment in done)


def test_settings_are_those_of_the_call(model: HybridWhisperModel, pack: SteerPack) -> None:
    audio = noise(4.0)
    asked = [Steering(pack, 0.0), Steering(pack, 1.0), None]
    reports = [model.transcribe(audio, steer=steer, **OPTIONS) for steer in asked]
    found = [tokens(report) for report in reversed(reports)]
    assert found[::-1] == [tokens(model.transcribe(audio, steer=steer, **OPTIONS)) for steer in asked]


def test_threads_share_the_encoder_and_nothing_else(model: HybridWhisperModel, pack: SteerPack) -> None:
    asked: list[Steering | None] = [None, Steering(pack, 0.0), Steering(pack, 0.5), Steering(pack, 1.0)]
    models = [model.steered(steer) for steer in asked]
    expected = [np.array(bound.encode(mel(i))) for i, bound in enumerate(models)]
    wrong: list[int] = []
    start = threading.Barrier(len(models))

    def work(i: int) -> None:
        start.wait()
        for _ in range(5):
            if not np.allclose(np.array(models[i].encode(mel(i))), expected[i], atol=1e-5):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(models))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert not any(module._forward_hooks for module in model._torch.modules())


def test_batches_are_steered(model: HybridWhisperModel, pack: SteerPack) -> None:
    clips = [{"start": 0.0, "end": 2.0}, {"start": 2.0, "end": 5.0}]
    options: dict[str, Any] = {"language": "en", "beam_size": 1, "max_new_tokens": 6, "clip_timestamps": clips}
    segments, info = SteeredBatchedInferencePipeline(model).transcribe(noise(5.0), steer=pack, batch_size=2, **options)
    list(segments)
    assert [(window.start_s, round(window.end_s, 2)) for window in info.steer.windows] == [(0.0, 2.0), (2.0, 5.0)]
    assert info.steer.executor == "hybrid"


def test_hooks_go_when_the_encoder_fails(model: HybridWhisperModel, pack: SteerPack) -> None:
    with pytest.raises(ValueError, match="3000"):
        model.steered(pack).encode(mel()[:, :100])
    assert not any(module._forward_hooks for module in model._torch.modules())


def test_language_is_detected_on_the_plain_output(tiny_multilingual_dir: Path) -> None:
    model = load(tiny_multilingual_dir)
    audio = noise(4.0)
    for point in ("encoder.layers.0", "encoder.output"):
        pack = random_pack(WIDTH, model.files.sha256, gate=open_gate(16), hook_point=point)
        plain = np.array(model.encode(mel()))
        bound = model._bind(Steering(pack))
        run = bound._bound_run
        run.keep_plain = True
        steered = np.array(bound.encode(mel()))
        assert run.plain is not None
        np.testing.assert_array_equal(run.plain, plain)
        assert np.abs(steered - plain).max() > 0.1
        segments, info = model.transcribe(audio, steer=pack, multilingual=True, max_new_tokens=3, beam_size=1)
        list(segments)
        assert info.language == model.detect_language(audio)[0]


def test_what_does_not_fit_is_refused_before_anything_runs(model: HybridWhisperModel) -> None:
    sha256 = model.files.sha256
    for pack, error, message in [
        (random_pack(WIDTH, sha256, hook_point="encoder.layers.7"), HookPointError, r"encoder\.layers\.1"),
        (random_pack(WIDTH, sha256, hook_point="decoder.layers.0"), HookPointError, "outside the encoder"),
        (random_pack(WIDTH, "d" * 64), PackMismatchError, "dddd"),
        (random_pack(16, sha256), PackMismatchError, "16 wide"),
    ]:
        with pytest.raises(error, match=message):
            model.transcribe(noise(1.0), steer=pack)


def test_the_encoder_runs_in_float32_without_its_decoder(model: HybridWhisperModel) -> None:
    assert {parameter.dtype for parameter in model._torch.parameters()} == {torch.float32}
    assert not any("decoder" in name for name, _ in model._torch.named_parameters())
