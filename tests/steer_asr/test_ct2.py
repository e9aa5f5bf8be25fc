"""The ct2 executor on real weights (tiny.en) and real speech; the pack is random and strong, so its effect shows."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faster_whisper import BatchedInferencePipeline, WhisperModel

import steer_asr
from steer_asr.audio import decode_audio
from steer_asr.ct2 import SteeredBatchedInferencePipeline, SteeredWhisperModel
from steer_asr.errors import ModelError, PackError, PackMismatchError, SteerOptionError
from steer_asr.gate import Gate
from steer_asr.manifest import read_manifest
from steer_asr.pack import SteerPack, save_pack
from steer_asr.steering import Steering
from steer_asr.transcription import SteeredInfo, SteeredSegment
from tests.steer_asr.packs import open_gate, random_pack

CLIPS = Path(__file__).parents[2] / "benchmarks" / "demo" / "clips.jsonl"
GREEDY: dict[str, Any] = {"beam_size": 1, "language": "en", "condition_on_previous_text": False}


@pytest.fixture(scope="module")
def model() -> SteeredWhisperModel:
    try:
        return steer_asr.load_model("tiny.en", compute_type="float32", cpu_threads=1, local_files_only=True)
    except ModelError as error:
        pytest.skip(f"needs the tiny.en wheel: {error}")


@pytest.fixture(scope="module")
def stock(model: SteeredWhisperModel) -> WhisperModel:
    return WhisperModel(str(model.files.path), compute_type="float32", cpu_threads=1)


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return decode_audio(next(clip for clip in read_manifest(CLIPS) if clip.kind == "speech").audio_path)


@pytest.fixture(scope="module")
def pack(model: SteeredWhisperModel) -> SteerPack:
    return random_pack(384, model.files.sha256, gate=open_gate(16))


def texts(result: tuple[Iterable[Any], Any]) -> list[str]:
    return [segment.text for segment in result[0]]


@pytest.mark.parametrize(
    "options",
    [{}, {"beam_size": 5}, {"without_timestamps": True}, {"word_timestamps": True}, {"vad_filter": True}],
    ids=str,
)
def test_without_steering_it_is_faster_whisper(
    model: SteeredWhisperModel, stock: WhisperModel, speech: np.ndarray, options: dict[str, Any]
) -> None:
    segments, their_info = stock.transcribe(speech, **GREEDY | options)
    theirs = list(segments)
    assert theirs
    for steer in ({}, {"steer": None}, {"steer": False}):
        segments, our_info = model.transcribe(speech, **GREEDY | options, **steer)
        assert list(segments) == theirs
        assert our_info == their_info


def test_strength_zero_is_the_identity(
    model: SteeredWhisperModel, stock: WhisperModel, speech: np.ndarray, pack: SteerPack
) -> None:
    ours, info = model.transcribe(speech, steer=Steering(pack, 0.0), suppress_blank=True, **GREEDY)
    theirs = list(stock.transcribe(speech, **GREEDY)[0])
    assert [(s.text, s.tokens, s.avg_logprob) for s in ours] == [(s.text, s.tokens, s.avg_logprob) for s in theirs]
    assert info.steer.strength == 0.0


def test_steering_changes_the_encoder_output_by_the_pack_and_by_nothing_else(
    model: SteeredWhisperModel, pack: SteerPack
) -> None:
    mel = np.random.default_rng(0).standard_normal((80, 3000)).astype(np.float32)
    plain = np.array(model.encode(mel))
    steered = np.array(model.steered(Steering(pack, 0.5)).encode(mel))
    z = pack.features.encode(plain[0])
    expected = plain[0] + 0.5 * (-3.0 * z) @ pack.features.W_dec
    np.testing.assert_allclose(steered[0], expected, atol=1e-4)
    assert np.abs(steered - plain).max() > 0.5
    np.testing.assert_array_equal(np.array(model.encode(mel)), plain)


def test_a_bound_on_wer_is_read_off_the_packs_curve(model: SteeredWhisperModel, speech: np.ndarray) -> None:
    points = ({"strength": 0.1, "changed_words": 0.01}, {"strength": 0.3, "changed_words": 0.05})
    pack = random_pack(384, model.files.sha256, gate=open_gate(16), calibration=points)
    segments, info = model.transcribe(speech, steer={"pack": pack, "max_wer_increase": 0.03}, **GREEDY)
    read = [segment.text for segment in segments]
    assert (info.steer.strength, info.steer.edited_share) == pytest.approx((0.2, 0.2))  # pyright: ignore[reportAttributeAccessIssue]
    assert read == texts(model.transcribe(speech, steer=Steering(pack, 0.2), **GREEDY))
    for steer, message in (
        ({"max_wer_increase": 0.005, "pack": pack}, "leaves no strength"),
        ({"max_wer_increase": 0.5, "pack": random_pack(384, model.files.sha256)}, "has no strength curve"),
    ):
        with pytest.raises(SteerOptionError, match=message):
            model.transcribe(speech, steer=steer, **GREEDY)
        with pytest.raises(SteerOptionError, match=message):
            model.steered(steer)


def test_segments_and_info_say_what_was_done(model: SteeredWhisperModel, speech: np.ndarray, pack: SteerPack) -> None:
    segments, info = model.transcribe(speech, steer=Steering(pack, 0.3), **GREEDY)
    assert isinstance(info, SteeredInfo)
    assert info.steer is not None
    assert info.steer.windows == [], "lazy: nothing is encoded before somebody looks"
    done = list(segments)
    assert (info.steer.pack, info.steer.strength, info.steer.executor) == ("test", 0.3, "ct2")
    [window] = info.steer.windows
    assert (window.start_s, round(window.end_s, 1)) == (0.0, round(len(speech) / 16000, 1))
    assert window.edited_share == pytest.approx(0.3, abs=1e-3)
    for segment in done:
        assert isinstance(segment, SteeredSegment)
        assert segment.steer is not None
        assert 0 < len(segment.steer.features) <= 5
        for feature in segment.steer.features:
            assert segment.start - 0.05 <= feature.start_s < feature.end_s <= segment.end + 0.05


def test_the_gate_decides_which_frames_change(model: SteeredWhisperModel, speech: np.ndarray) -> None:
    closed = Gate(np.zeros(16, np.float32), 0.0, 1, 0, (1.0, 50.0), (1.0, 50.0))
    pack = random_pack(384, model.files.sha256, gate=closed)
    segments, info = model.transcribe(speech, steer=pack, suppress_blank=True, **GREEDY)
    assert [s.text for s in segments] == texts(model.transcribe(speech, **GREEDY))
    assert info.steer.edited_share == 0.0
    assert info.steer.nobody_speaks < 1e-6


def test_settings_are_those_of_the_call_although_segments_are_lazy(
    model: SteeredWhisperModel, speech: np.ndarray, pack: SteerPack
) -> None:
    expected = {
        strength: texts(model.transcribe(speech, steer=Steering(pack, strength), **GREEDY)) for strength in (0.1, 1.0)
    }
    weak, _ = model.transcribe(speech, steer=Steering(pack, 0.1), **GREEDY)
    strong, _ = model.transcribe(speech, steer=Steering(pack, 1.0), **GREEDY)
    assert [s.text for s in strong] == expected[1.0]
    assert [s.text for s in weak] == expected[0.1]
    assert expected[0.1] != expected[1.0]


def test_threads_do_not_mix_up_their_settings(model: SteeredWhisperModel, speech: np.ndarray, pack: SteerPack) -> None:
    asked = [None, Steering(pack, 0.1), Steering(pack, 0.5), Steering(pack, 1.0)]
    expected = [texts(model.transcribe(speech, steer=steer, **GREEDY)) for steer in asked]
    assert len({tuple(text) for text in expected}) > 2
    got: dict[int, list[str]] = {}

    def work(i: int) -> None:
        got[i] = texts(model.transcribe(speech, steer=asked[i], **GREEDY))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(asked))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [got[i] for i in range(len(asked))] == expected


def test_batched_pipelines_are_steered(model: SteeredWhisperModel, speech: np.ndarray, pack: SteerPack) -> None:
    ours = SteeredBatchedInferencePipeline(model)
    options: dict[str, Any] = {"language": "en", "beam_size": 1}
    plain = texts(BatchedInferencePipeline(model).transcribe(speech, **options))
    assert texts(ours.transcribe(speech, **options)) == plain
    segments, info = ours.transcribe(speech, steer=pack, **options)
    steered = [s.text for s in segments]
    assert steered != plain
    assert len(info.steer.windows) == 1
    theirs = BatchedInferencePipeline(model.steered(pack)).transcribe(speech, suppress_blank=False, **options)
    assert [text for text in texts(theirs) if text.strip()] == steered


def test_windows_of_long_audio_have_their_places(model: SteeredWhisperModel, pack: SteerPack) -> None:
    noise = (np.random.default_rng(0).standard_normal(16000 * 70) * 0.01).astype(np.float32)
    segments, info = model.transcribe(noise, steer=pack, **GREEDY)
    list(segments)
    starts = [window.start_s for window in info.steer.windows]
    assert starts[0] == 0.0
    assert starts == sorted(starts)
    assert info.steer.windows[-1].end_s == pytest.approx(70.0)


def test_vad_moves_segments_and_their_features_together(
    model: SteeredWhisperModel, speech: np.ndarray, pack: SteerPack
) -> None:
    delayed = np.concatenate([np.zeros(16000 * 8, np.float32), speech])
    segments, info = model.transcribe(delayed, steer=Steering(pack, 0.1), vad_filter=True, **GREEDY)
    first = next(iter(segments))
    assert first.start > 6.0
    assert all(feature.start_s > 6.0 for feature in first.steer.features)
    assert info.duration == pytest.approx(len(delayed) / 16000)
    assert info.duration_after_vad < info.duration


def test_an_empty_answer_is_possible_in_both_modes(model: SteeredWhisperModel, speech: np.ndarray) -> None:
    """Zeroing what the decoder attends to leaves it nothing to say; only a forbidden first token could stop that."""
    axes = random_pack(384, model.files.sha256, n=16, gate=open_gate(16))
    for without_timestamps in (False, True):
        _, info = model.transcribe(speech, steer=axes, without_timestamps=without_timestamps, **GREEDY)
        assert info.transcription_options.suppress_blank is False


def test_word_timestamps_work_on_steered_output(
    model: SteeredWhisperModel, speech: np.ndarray, pack: SteerPack
) -> None:
    segments, _ = model.transcribe(speech, steer=Steering(pack, 0.05), word_timestamps=True, **GREEDY)
    words = [word for segment in segments for word in segment.words]
    assert words
    assert all(word.start <= word.end for word in words)


def test_the_one_liner(model: SteeredWhisperModel, speech: np.ndarray, pack: SteerPack) -> None:
    result = steer_asr.transcribe(speech, model=model, steer=Steering(pack, 0.0), suppress_blank=True, **GREEDY)
    assert result.text == "".join(texts(model.transcribe(speech, **GREEDY))).strip()
    assert result.speech_detected
    assert result.duration_s == pytest.approx(len(speech) / 16000)
    empty = steer_asr.transcribe(np.zeros(0, np.float32), model=model, steer=pack, **GREEDY)
    assert (empty.text, empty.segments, empty.speech_detected) == ("", (), False)


def test_what_does_not_fit_is_refused_before_anything_runs(
    model: SteeredWhisperModel, speech: np.ndarray, tmp_path: Path
) -> None:
    for_base = save_pack(random_pack(512, "d01c" + "0" * 60, gate=open_gate(16)), tmp_path / "for-base", card="")
    inside = random_pack(384, model.files.sha256, hook_point="encoder.layers.1")
    too_wide = random_pack(512, model.files.sha256)
    for steer, error, message in [
        (for_base, PackMismatchError, "d01c.*tiny.en"),
        (inside, PackMismatchError, r"encoder\.layers\.1"),
        (too_wide, PackMismatchError, "512 wide"),
        ("no-such-pack", PackError, "unknown pack"),
        (1.5, SteerOptionError, "outside 0 to 1"),
    ]:
        with pytest.raises(error, match=message):
            model.transcribe(speech, steer=steer)


def test_language_detection_sees_the_plain_output() -> None:
    """On base, which is multilingual: a strong edit would change what language it hears."""
    try:
        base = steer_asr.load_model("base", compute_type="int8", cpu_threads=1, local_files_only=True)
    except ModelError as error:
        pytest.skip(f"needs the base wheels: {error}")
    noise = (np.random.default_rng(0).standard_normal(16000 * 3) * 0.05).astype(np.float32)
    pack = random_pack(512, base.files.sha256, gate=open_gate(16))
    plain = base.detect_language(noise)[2]
    assert base.steered(pack).detect_language(noise)[2] == plain
    assert base.steered(Steering(pack, steer_language_detection=True)).detect_language(noise)[2] != plain
    for multilingual in (False, True):
        segments, info = base.transcribe(noise, steer=pack, multilingual=multilingual, beam_size=1, max_new_tokens=5)
        assert info.language == base.transcribe(noise, beam_size=1)[1].language
        list(segments)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(SteeredWhisperModel, WhisperModel), (SteeredBatchedInferencePipeline, BatchedInferencePipeline)],
)
def test_transcribe_shows_faster_whispers_signature_plus_steer(ours: Any, theirs: Any) -> None:
    shown, original = inspect.signature(ours.transcribe).parameters, inspect.signature(theirs.transcribe).parameters
    assert {name: shown[name] for name in original} == dict(original)
    assert set(shown) - set(original) == {"steer"}
    assert shown["steer"].kind is inspect.Parameter.KEYWORD_ONLY
