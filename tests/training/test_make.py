"""The whole way from audio files to a pack that loads and steers, in miniature, on tiny.en."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import steer_asr
from steer_asr.errors import ModelError, PackError, SteerOptionError
from steer_asr.manifest import read_manifest
from steer_asr.models import find_model
from steer_asr.pack import load_pack
from steer_asr_training.collect import CollectConfig, collect
from steer_asr_training.export import load_learned
from steer_asr_training.fewer import fewer_packs
from steer_asr_training.fit import FitConfig
from steer_asr_training.learn_config import LearnConfig
from steer_asr_training.make import make, strength_curve
from steer_asr_training.recipe import Recipe
from steer_asr_training.store import ActivationStore, shard_path
from steer_asr_training.windows import DataConfig

DEMO = Path(__file__).parents[2] / "benchmarks" / "demo" / "clips.jsonl"
DATA = DataConfig(
    varied_nonspeech=2,
    synthetic_nonspeech=10,
    noisy_speech=2,
    placed_speech=2,
    disguised_speech=2,
    disguised_nonspeech=2,
    only_shippable=False,
)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    try:
        find_model("tiny.en", local_files_only=True)
    except ModelError as error:
        pytest.skip(f"needs the tiny.en wheel: {error}")
    manifest = tmp_path_factory.mktemp("data") / "clips.jsonl"
    with manifest.open("w", encoding="utf-8") as file:
        for clip in read_manifest(DEMO):
            if clip.kind != "mixed" and clip.duration_s < 12:
                row = {"audio_filepath": str(clip.audio_path), "duration": clip.duration_s, "kind": clip.kind}
                file.write(json.dumps(row | {"text": clip.text, "source": "demo", "lang": clip.lang}) + "\n")
    return Recipe(
        name="mini",
        collect=CollectConfig("tiny.en", (str(manifest),), data=DATA, precision="float32"),
        fit=FitConfig(d_sae=64, k=8, k_start=16, steps=30, batch_frames=128),
        learn=LearnConfig(n_features=12, n_gate_features=6, n_heard=20, rank_steps=2, steps=3, windows_per_step=2),
        dev_manifests=(str(manifest),),
        calibration_windows=4,
        calibration_strengths=(1.0,),
    )


def scalars_in(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of every curve, by tag."""
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator").EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def store_of(work: Path) -> ActivationStore:
    return ActivationStore(work / "mini" / "activations")


@pytest.mark.slow
def test_audio_to_pack(recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = tmp_path / "work"
    folder = make(recipe, work, tmp_path / "pack", workers=1, tensorboard=True)
    assert "minutes on this machine" in capsys.readouterr().err, "it says beforehand how long it will take"

    pack = load_pack(folder)
    assert len(pack.feature_ids) == 20
    assert {edit.feature for edit in pack.edits} <= set(pack.feature_ids[:12]), "the others are heard and left alone"
    assert pack.gate is not None
    assert pack.gate.coefficients[12:].any()
    assert pack.base_sha256 == find_model("tiny.en").sha256
    assert pack.edits
    assert [point["strength"] for point in pack.calibration] == [1.0]
    assert "demo" in (folder / "README.md").read_text(encoding="utf-8")
    noise = (np.random.default_rng(0).standard_normal(16000) * 0.05).astype(np.float32)
    model = steer_asr.load_model("tiny.en", compute_type="float32", cpu_threads=1)
    segments, info = model.transcribe(noise, steer=pack, language="en", beam_size=1)
    list(segments)
    assert info.steer.windows

    curves = scalars_in(work / "mini" / "learn" / "events")
    assert {tag for tag in curves if tag.startswith("loss/")} == {
        *("loss/total", "loss/silence", "loss/speech", "loss/sparsity")
    }
    assert [step for step, _ in curves["held_out/text_rate"]] == [0, 3], "before the first step and after the last"
    assert all(0 <= rate <= 1 for tag in curves if tag.startswith("held_out/") for _, rate in curves[tag])
    assert curves["edit/features"][0][1] > 0
    assert "loss/silence" in scalars_in(work / "mini" / "learn" / "rank" / "events")
    assert "fit/" not in "".join(curves)

    # Packs with fewer features come from the same run: the gate's best and those of most effect, learned on.
    lines = list(fewer_packs(recipe, store_of(work), work / "mini" / "fit" / "sae", find_model("tiny.en"),
                             work / "mini" / "learn", tmp_path / "few", (4, None), steps=1))  # fmt: skip
    assert [json.loads(line)["features"] for line in lines] == [4, 20]
    few, whole = load_pack(tmp_path / "few" / "4"), load_pack(tmp_path / "few" / "all")
    assert whole.sha256 == pack.sha256, "all: the edit as it was learned"
    assert few.feature_ids[:2] == pack.feature_ids[:2]
    assert set(few.feature_ids) < set(pack.feature_ids)
    assert few.gate is not None
    assert len(few.gate.coefficients) == 4
    with pytest.raises(SteerOptionError, match="size 13: the run in .* edits 12 features"):
        list(fewer_packs(recipe, store_of(work), work / "mini" / "fit" / "sae", find_model("tiny.en"),
                         work / "mini" / "learn", tmp_path / "few", (13,), steps=1))  # fmt: skip

    # The curve of a finished pack can be measured again, and does not depend on how the pack came.
    curve = strength_curve(recipe, pack, find_model("tiny.en"), work / "mini", 1)
    assert list(curve) == list(pack.calibration)
    with pytest.raises(SteerOptionError, match="names no dev_manifests"):
        strength_curve(replace(recipe, dev_manifests=()), pack, find_model("tiny.en"), work / "mini", 1)

    # A second run finds everything done, and gives the same pack; curves change nothing.
    again = make(recipe, work, tmp_path / "again", workers=1)
    assert (again / "steer.json").read_bytes() == (folder / "steer.json").read_bytes()
    assert (again / "sae_weights.safetensors").read_bytes() == (folder / "sae_weights.safetensors").read_bytes()

    # Collecting resumes shard by shard, and refuses a folder with other settings.
    activations = work / "mini" / "activations"
    store = ActivationStore(activations)
    before = store.window(3, "encoder.output").copy()
    shard_path(activations, 0).unlink()
    collect(recipe.collect, activations)
    np.testing.assert_array_equal(ActivationStore(activations).window(3, "encoder.output"), before)
    with pytest.raises(SteerOptionError, match="other settings"):
        collect(CollectConfig("tiny.en", recipe.collect.manifests, data=DATA, seed=9), activations)


def test_an_unfinished_run_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(PackError, match="run steer-asr-train learn first"):
        load_learned(tmp_path, tmp_path)
