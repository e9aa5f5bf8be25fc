"""Audio straight into a fit, and the command lines, on a tiny random Whisper."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from steer_asr.errors import HookPointError, SteerASRError, SteerOptionError
from steer_asr.sae import TENSORS, load_features
from steer_asr_training.cli import app
from steer_asr_training.collect import CollectConfig
from steer_asr_training.fit import FitConfig, fit_stream
from steer_asr_training.stream import Augment, StreamBatches
from steer_asr_training.windows import render
from tests.training.analysis_builders import PLAIN, write_clips
from tests.training.builders import POINT, planted_store
from tests.training.test_fit import Interrupted, assert_same, checkpoint, stop_after

LAYERS = ("encoder.layers.0", POINT)
FIT = FitConfig(d_sae=48, k=3, k_start=6, steps=6, batch_frames=24, lr=5e-3, checkpoint_every=2)
DATA = replace(PLAIN, synthetic_nonspeech=0, noisy_speech=0, disguised_nonspeech=0)


@pytest.fixture
def collect(tiny_whisper_dir: Path, tmp_path: Path) -> CollectConfig:
    """Nine clips of 0.5 to 1 s: speech, noise and music, three each, as they are."""
    manifest = write_clips(tmp_path / "audio", n=3)
    return CollectConfig(str(tiny_whisper_dir), (str(manifest),), LAYERS, DATA, precision="float32")


def batches(collect: CollectConfig, **settings: object) -> StreamBatches:
    return StreamBatches(collect, **({"batch": 24, "seed": 0, "windows_in_buffer": 4} | settings))  # pyright: ignore[reportArgumentType]


def test_batches_are_the_encoders_frames_without_padding(collect: CollectConfig) -> None:
    stream = batches(collect, windows_in_buffer=12)
    plan = stream.plan(0)
    windows = [stream.encoder.capture([render(spec, stream.clips)], LAYERS)[0] for spec in plan]
    assert min(len(window.activations[POINT]) - window.n_real_frames for window in windows) > 1000, "padding is there"
    real = np.concatenate([window.activations[POINT][: window.n_real_frames] for window in windows])
    drawn = [next(stream) for _ in range(len(real) // 24)]
    shuffled = torch.cat([batch[POINT] for batch in drawn]).numpy()
    distance = np.abs(shuffled[:, None, :8] - real[None, :, :8]).max(axis=2)
    assert distance.min(axis=1).max() < 1e-3, "each is a real frame"
    assert len(set(distance.argmin(axis=1).tolist())) > 0.97 * len(shuffled), "and none comes twice"
    assert [batch[LAYERS[0]].shape for batch in drawn] == [batch[POINT].shape for batch in drawn]


def test_a_position_is_come_back_to_within_and_behind_a_pass(collect: CollectConfig) -> None:
    straight = batches(collect)
    for n in (0, 1, 3, 15):
        list(islice(straight, n))
        resumed = batches(collect)
        resumed.load_state_dict(straight.state_dict())
        assert torch.equal(next(straight)[POINT], next(resumed)[POINT])
        assert straight.state_dict() == resumed.state_dict()
    assert straight.state_dict()["pass"] > 0


def test_passes_differ(collect: CollectConfig) -> None:
    stream = batches(replace(collect, data=replace(DATA, disguised_speech=3)))
    first, second = stream.plan(0), stream.plan(1)
    assert first != second
    assert first == batches(replace(collect, data=replace(DATA, disguised_speech=3))).plan(0)


def test_noise_and_music_are_laid_over_clips_as_often_as_asked(collect: CollectConfig) -> None:
    stream = batches(collect, augment=Augment(noise=0.5, music=0.25, snr_db=(3.0, 9.0)))
    specs = [spec for n_pass in range(60) for spec in stream.plan(n_pass)]
    over = Counter(stream.clips[spec.clips[1]].label if spec.treatment == "noisy" else "" for spec in specs)
    assert over["hiss"] / len(specs) == pytest.approx(0.5, abs=0.06)
    assert over["beep"] / len(specs) == pytest.approx(0.25, abs=0.06)
    assert all(3 <= spec.snr_db <= 9 for spec in specs if spec.treatment == "noisy")
    noisy = next(spec for spec in specs if spec.treatment == "noisy")
    assert not np.array_equal(render(noisy, stream.clips), render(replace(noisy, treatment="plain"), stream.clips))


def test_weights_choose_what_is_heard(collect: CollectConfig) -> None:
    stream = batches(collect, weights={"domain:music": 3.0, "kind:speech": 0.0})
    seen = Counter(stream.clips[spec.clips[0]].label for n_pass in range(20) for spec in stream.plan(n_pass))
    assert seen["buzz"] == 0
    assert seen["beep"] / seen["hiss"] == pytest.approx(3, rel=0.01)
    seeds = [spec.seed for spec in stream.plan(0)]
    assert len(set(seeds)) == len(seeds), "a clip that comes again is rendered anew"


def test_what_cannot_be_is_refused_at_once(collect: CollectConfig) -> None:
    with pytest.raises(HookPointError, match="unknown hook point 'encoder.layers.7'"):
        batches(replace(collect, hook_points=("encoder.layers.7",)))
    with pytest.raises(SteerOptionError, match="unknown tag 'kind:musik'"):
        batches(collect, weights={"kind:musik": 1.0})
    with pytest.raises(SteerOptionError, match="together at most 1"):
        Augment(noise=0.7, music=0.4)
    with pytest.raises(SteerOptionError, match="no buffer of windows holds the 5000 frames"):
        next(batches(collect, batch=5000))
    without_music = replace(collect, data=replace(DATA, only_shippable=True))
    with pytest.raises(SteerOptionError, match="hold no usable music"):
        batches(without_music, augment=Augment(music=0.1))


def test_a_streamed_fit_resumes_bit_exactly(
    collect: CollectConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = fit_stream(FIT, batches(collect), tmp_path / "whole")
    stop_after(9, monkeypatch)
    with pytest.raises(Interrupted):
        fit_stream(FIT, batches(collect), tmp_path / "broken")
    monkeypatch.undo()
    resumed = fit_stream(FIT, batches(collect), tmp_path / "broken")
    assert_same(checkpoint(tmp_path / "broken"), checkpoint(tmp_path / "whole"))
    assert list(folders) == list(LAYERS)
    for point in LAYERS:
        for name in TENSORS:
            a, b = load_features(folders[point]), load_features(resumed[point])
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    metadata = json.loads((folders[POINT] / "cfg.json").read_text())["metadata"]
    assert metadata["hook_name"] == metadata["fit"]["hook_point"] == POINT
    assert len(metadata["model_sha256"]) == 64


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def recipe(collect: CollectConfig, tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    data = {"synthetic_nonspeech": 0, "varied_nonspeech": 0, "noisy_speech": 0, "placed_speech": 0}
    data |= {"disguised_speech": 0, "disguised_nonspeech": 0, "max_music_share": 0.99, "only_shippable": False}
    fit = {"d_sae": 48, "k": 3, "k_start": 6, "steps": 4, "batch_frames": 24, "weights": {"kind:speech": 2.0}}
    content = {"name": "mini", "learn": {}, "fit": fit}
    content["collect"] = {"model": collect.model, "manifests": list(collect.manifests), "data": data}
    content["collect"] |= {"precision": "float32"}
    path.write_text(json.dumps(content))  # JSON is YAML
    return path


def test_fit_takes_a_recipe_or_a_preset(recipe: Path, tmp_path: Path) -> None:
    acts = planted_store(tmp_path / "acts").folder
    done = run("fit", recipe, acts, "-o", tmp_path / "a", "--kind", "jumprelu", "--steps", "3", "--seed", "5")
    assert done.exit_code == 0, done.output
    fitted = json.loads((tmp_path / "a" / "sae" / "cfg.json").read_text())["metadata"]["fit"]
    assert (fitted["kind"], fitted["steps"], fitted["seed"]) == ("jumprelu", 3, 5)
    assert fitted["weights"] == {"kind:speech": 2.0}
    refused = run("fit", acts, "-o", tmp_path / "b")
    assert isinstance(refused.exception, SteerASRError)
    assert "--preset paper or laptop" in str(refused.exception)
    too_large = run("fit", acts, "--preset", "paper", "-o", tmp_path / "b")
    assert "2500 frames of a batch" in str(too_large.exception)
    assert "did you mean 'laptop'" in str(run("fit", acts, "--preset", "labtop", "-o", tmp_path / "b").exception)


def test_fit_takes_all_hook_points_at_once(recipe: Path, tmp_path: Path) -> None:
    acts = planted_store(tmp_path / "acts").folder
    done = run("fit", recipe, acts, "-o", tmp_path / "sae", "--hook-points", "all", "--steps", "2")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "sae" / POINT / "sae" / "cfg.json").is_file()


def test_fit_stream_needs_no_store(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "sae"
    done = run("fit-stream", recipe, "-o", out, "--hook-points", "all", "--noise", "0.2", "--windows-in-buffer", "6")
    assert done.exit_code == 0, done.output
    assert sorted(path.parent.parent.name for path in out.glob("*/sae/cfg.json")) == [
        "encoder.layers.0",
        "encoder.layers.1",
        POINT,
    ]
