"""Windows where nobody speaks: decoded once, or not at all. On real weights; the gate is set by hand."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import steer_asr
from steer_asr.ct2 import SteeredBatchedInferencePipeline, SteeredWhisperModel
from steer_asr.errors import ModelError, SteerOptionError
from steer_asr.gate import Gate
from steer_asr.pack import SteerPack
from steer_asr.silence import SilenceDecoder
from steer_asr.steering import Steering, parse_steer
from tests.steer_asr.packs import open_gate, random_pack

TEMPERATURES = (0.0, 0.2, 0.4)
UNREACHABLE: dict[str, Any] = {"beam_size": 1, "language": "en", "log_prob_threshold": 1.0, "no_speech_threshold": None}
"""No answer is as likely as this, so faster-whisper tries every temperature."""


class CountingDecoder:
    """The real model, with a tally of what it was asked to decode."""

    def __init__(self, model: Any) -> None:
        self.wrapped, self.rows, self.beams = model, [], []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrapped, name)

    def generate(self, features: Any, prompts: Any, **options: Any) -> Any:
        self.rows.append(len(prompts))
        self.beams.append(options["beam_size"])
        return self.wrapped.generate(features, prompts, **options)


@pytest.fixture(scope="module")
def loaded() -> SteeredWhisperModel:
    try:
        return steer_asr.load_model("tiny.en", compute_type="float32", cpu_threads=1, local_files_only=True)
    except ModelError as error:
        pytest.skip(f"needs the tiny.en wheel: {error}")


@pytest.fixture
def model(loaded: SteeredWhisperModel) -> SteeredWhisperModel:
    counted: Any = copy.copy(loaded)
    counted.model = CountingDecoder(loaded.model)
    return counted


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.05, 16000 * 3).astype(np.float32)


@pytest.fixture
def pack(model: SteeredWhisperModel) -> SteerPack:
    return random_pack(384, model.files.sha256, gate=open_gate(16))


def closed(pack: SteerPack) -> SteerPack:
    """The same pack with a gate that always hears speech."""
    return replace(pack, gate=Gate(np.zeros(16, np.float32), 0.0, 1, 0, (1.0, 50.0), (1.0, 50.0)))


@pytest.mark.parametrize(("strength", "tries"), [(1.0, 1), (0.5, 1), (0.4, 3), (0.0, 3)])
def test_a_window_that_gets_half_of_the_edit_is_decoded_once(
    model: SteeredWhisperModel, noise: np.ndarray, pack: SteerPack, strength: float, tries: int
) -> None:
    list(model.transcribe(noise, steer=Steering(pack, strength), temperature=TEMPERATURES, **UNREACHABLE)[0])
    assert model.model.rows == [1] * tries


@pytest.mark.parametrize("timestamps", [True, False])
def test_silence_is_decoded_without_beams_and_speech_with_them(
    model: SteeredWhisperModel, noise: np.ndarray, pack: SteerPack, timestamps: bool
) -> None:
    """A beam search cannot choose the empty answer: it has no token to take a mean over."""
    for wanted, given in ((1, pack), (5, closed(pack)), (5, replace(pack, gate=None)), (5, None)):
        model.model.beams.clear()
        options: dict[str, Any] = {"temperature": 0.0, "language": "en", "without_timestamps": not timestamps}
        list(model.transcribe(noise, steer=given, beam_size=5, **options)[0])
        assert set(model.model.beams) == {wanted}, given


def test_speech_keeps_its_second_attempts(model: SteeredWhisperModel, noise: np.ndarray, pack: SteerPack) -> None:
    list(model.transcribe(noise, steer=closed(pack), temperature=TEMPERATURES, **UNREACHABLE)[0])
    list(model.transcribe(noise, steer=replace(pack, gate=None), temperature=TEMPERATURES, **UNREACHABLE)[0])
    assert model.model.rows == [1] * 6


@pytest.mark.parametrize("options", [{}, {"without_timestamps": True}, {"word_timestamps": True}, {"beam_size": 5}])
def test_early_exit_decodes_nothing_and_says_what_it_saw(
    model: SteeredWhisperModel, noise: np.ndarray, pack: SteerPack, options: dict[str, Any]
) -> None:
    segments, info = model.transcribe(noise, steer=Steering(pack, early_exit=True), language="en", **options)
    assert list(segments) == []
    assert model.model.rows == []
    [window] = info.steer.windows
    assert window.nobody_speaks > 0.99
    assert window.end_s == pytest.approx(3.0)


def test_early_exit_leaves_speech_as_it_is(model: SteeredWhisperModel, noise: np.ndarray, pack: SteerPack) -> None:
    def text(steer: Any) -> str:
        segments, _ = model.transcribe(noise, steer=steer, beam_size=1, temperature=0.0, suppress_blank=True)
        return "".join(segment.text for segment in segments)

    assert text(Steering(closed(pack), early_exit=True)) == text(closed(pack)) == text(None)
    assert model.model.rows == [1, 1, 1]


def test_a_batch_is_decoded_without_its_silent_rows(model: SteeredWhisperModel, noise: np.ndarray) -> None:
    """Of two chunks the gate finds the louder one silent; the other one's text is as if it were alone."""
    audio = np.concatenate([np.pad(noise, (0, 16000 * 27)), np.pad(noise / 50, (0, 16000 * 27))])
    chunks = [{"start": 0.0, "end": 30.0}, {"start": 30.0, "end": 60.0}]
    features = random_pack(384, model.files.sha256).features
    z = [
        features.encode(np.asarray(model.encode(model.feature_extractor(half)[:, :3000]))[0]).mean(axis=0)
        for half in np.split(audio, 2)
    ]
    towards_quiet = 100 * (z[1] - z[0])
    middle = float(towards_quiet @ (z[0] + z[1]) / 2)
    gate = Gate(towards_quiet, -middle, 1499, 1500, (1.0, 0.0), (1.0, 0.0))
    pack = random_pack(384, model.files.sha256, gate=gate)

    def transcribe(early_exit: bool) -> list[tuple[float, str]]:
        pipeline = SteeredBatchedInferencePipeline(model)
        segments, _ = pipeline.transcribe(
            audio,
            steer=Steering(pack, early_exit=early_exit),
            clip_timestamps=chunks,
            beam_size=1,
            without_timestamps=True,
        )
        return [(s.start, s.text) for s in segments]

    plain, skipping = transcribe(False), transcribe(True)
    assert model.model.rows == [2, 1]
    assert skipping
    assert skipping == [found for found in plain if found[0] >= 30]
    model.model.beams.clear()
    in_beams, _ = SteeredBatchedInferencePipeline(model).transcribe(
        audio, steer=pack, clip_timestamps=chunks, beam_size=3, without_timestamps=True
    )
    assert {s.start for s in in_beams} <= {0.0, 30.0}
    assert sorted(model.model.beams) == [1, 3], "each row in its own way"


def test_early_exit_asks_for_what_it_needs(model: SteeredWhisperModel, noise: np.ndarray, pack: SteerPack) -> None:
    with pytest.raises(SteerOptionError, match="at least half"):
        Steering(pack, 0.4, early_exit=True)
    with pytest.raises(SteerOptionError, match="needs a gate"):
        model.transcribe(noise, steer=Steering(replace(pack, gate=None), early_exit=True))
    assert parse_steer({"early_exit": True}) == Steering(early_exit=True)
    with pytest.raises(SteerOptionError, match="not true or false"):
        parse_steer({"early_exit": "yes"})


def test_a_bound_model_is_unwrapped_again(model: SteeredWhisperModel, pack: SteerPack) -> None:
    bound = model.steered(Steering(pack, early_exit=True))
    assert isinstance(bound.model, SilenceDecoder)
    assert bound.steered(None).model is model.model
