"""The hf executor: a context manager on transformers' own models. Tiny random Whispers, real `generate`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faster_whisper.audio import pad_or_trim
from faster_whisper.feature_extractor import FeatureExtractor
from transformers import pipeline

from steer_asr import hf
from steer_asr._hf_run import HfReport, SteeredCalls
from steer_asr.audio import decode_audio
from steer_asr.errors import HookPointError, NotSteeredError, PackError, PackMismatchError, SteerOptionError
from steer_asr.models import ModelFiles, known_sha256
from steer_asr.pack import SteerPack, save_pack
from steer_asr.weights.convert import hf_from_ct2
from steer_asr.weights.fingerprint import fingerprints
from tests.helpers import noise, silence, tone
from tests.steer_asr.packs import open_gate, random_pack
from tests.tiny_whisper import WIDTH

CLIPS = Path(__file__).parents[2] / "benchmarks" / "demo" / "clips"
SHORT: dict[str, Any] = {"max_new_tokens": 4}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny operations on many threads mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def loaded(tiny_whisper_dir: Path) -> tuple[Any, Any]:
    return hf.load(tiny_whisper_dir)


@pytest.fixture
def model(loaded: tuple[Any, Any]) -> Iterator[Any]:
    """The tiny Whisper, which every test has to leave as it was."""
    model = loaded[0]
    yield model
    assert_untouched(model)


@pytest.fixture(scope="module")
def sha256(tiny_whisper_dir: Path) -> str:
    return known_sha256(tiny_whisper_dir / "model.bin")


@pytest.fixture(scope="module", params=["encoder.layers.0", "encoder.output"])
def pack(request: pytest.FixtureRequest, sha256: str) -> SteerPack:
    return random_pack(WIDTH, sha256, gate=open_gate(16), hook_point=request.param)


@pytest.fixture(scope="module")
def output_pack(sha256: str) -> SteerPack:
    return random_pack(WIDTH, sha256, gate=open_gate(16))


def assert_untouched(model: Any) -> None:
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert not {"generate", "detect_language"} & vars(model).keys()


def encoded(model: Any, mel: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.model.encoder(mel).last_hidden_state


def mels(*seeds: int) -> torch.Tensor:
    return torch.stack([torch.randn(80, 3000, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def test_each_row_has_its_own_strength(model: Any, pack: SteerPack) -> None:
    mel = mels(0, 1, 2)
    plain = encoded(model, mel)
    with hf.steer(model, pack, [0.0, 0.4, 1.0]) as report:
        mixed = encoded(model, mel)
    assert torch.equal(mixed[0], plain[0]), "strength 0 is the identity to the bit"
    for row, strength in enumerate([0.0, 0.4, 1.0]):
        with hf.steer(model, pack, strength):
            torch.testing.assert_close(encoded(model, mel)[row], mixed[row])
        assert report.windows[row].edited_share == pytest.approx(strength, abs=1e-3)
    assert (mixed[2] - plain[2]).abs().max() > 0.1
    assert torch.equal(encoded(model, mel), plain)


def test_the_report_says_what_was_done(model: Any, output_pack: SteerPack) -> None:
    mel = mels(0, 1)
    mel[0, :, 800:] = 0.0
    with hf.steer(model, output_pack, 0.5) as report:
        assert report.windows == []
        model.generate(mel, num_beams=3, **SHORT)
    assert (report.pack, report.executor, report.strength, report.check) == ("test", "hf", 0.5, "weights")
    assert [(w.row, w.start_s, w.end_s) for w in report.windows] == [(0, 0.0, 8.0), (1, 0.0, 30.0)]
    assert len(report.windows[0].frame_weights) == 400
    assert report.edited_share == pytest.approx(0.5, abs=1e-3)
    assert report.windows[0].features


def test_beams_do_not_multiply_the_edit(model: Any, pack: SteerPack) -> None:
    with hf.steer(model, pack, [0.2, 1.0]) as report:
        together = model.generate(mels(0, 1), num_beams=3, **SHORT)
    assert len(report.windows) == 2
    for row, strength in enumerate([0.2, 1.0]):
        with hf.steer(model, pack, strength):
            alone = model.generate(mels(row), num_beams=3, **SHORT)
        assert torch.equal(alone[0], together[row])


def test_threads_do_not_see_each_other(model: Any, pack: SteerPack) -> None:
    asked: list[float | None] = [None, 0.0, 0.5, 1.0]
    mel = mels(0)

    def run(strength: float | None) -> torch.Tensor:
        if strength is None:
            return encoded(model, mel)
        with hf.steer(model, pack, strength):
            return encoded(model, mel)

    expected = [run(strength) for strength in asked]
    assert (expected[2] - expected[3]).abs().max() > 0.1
    wrong: list[int] = []
    start = threading.Barrier(len(asked))

    def work(i: int) -> None:
        start.wait()
        for _ in range(5):
            if not torch.allclose(run(asked[i]), expected[i], atol=1e-5):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(asked))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_generate_of_another_thread_stays_stock(model: Any, output_pack: SteerPack) -> None:
    seen: dict[str, Any] = {}

    def first_scores(name: str) -> None:
        made = model.generate(mels(0), return_dict_in_generate=True, output_scores=True, **SHORT)
        seen[name] = made.scores[0][0, 50256].item()

    with hf.steer(model, output_pack):
        thread = threading.Thread(target=first_scores, args=("other",))
        thread.start()
        thread.join()
        first_scores("this")
    assert seen["other"] == -float("inf"), "stock Whisper forbids the empty answer"
    assert seen["this"] > -float("inf")
    assert 50256 in model.generation_config.begin_suppress_tokens
    with hf.steer(model, output_pack, allow_empty=False):
        first_scores("forbidden")
    assert seen["forbidden"] == -float("inf")


def test_an_inner_block_counts_while_it_lasts(model: Any, pack: SteerPack) -> None:
    mel = mels(0)
    with hf.steer(model, pack, 1.0) as outer:
        before = encoded(model, mel)
        with hf.steer(model, pack, 0.0) as inner:
            assert torch.equal(encoded(model, mel), encoded_plain := encoded(model, mel))
        assert torch.equal(encoded(model, mel), before)
    assert torch.equal(encoded(model, mel), encoded_plain)
    assert (len(outer.windows), len(inner.windows)) == (2, 2)


def test_model_and_its_inner_model_are_steered_once(model: Any, output_pack: SteerPack) -> None:
    mel = mels(0)
    with hf.steer(model.model, output_pack, 0.5):
        expected = encoded(model, mel)
    with hf.steer(model, output_pack, 1.0) as outer:
        assert not torch.equal(encoded(model, mel), expected)
        with hf.steer(model.model, output_pack, 0.5):
            assert torch.equal(encoded(model, mel), expected)
    assert len(outer.windows) == 1


def test_a_block_that_steers_nothing_raises(model: Any, output_pack: SteerPack) -> None:
    with pytest.raises(NotSteeredError, match="never ran"), hf.steer(model, output_pack):
        pass
    given = model.model.encoder(mels(0))
    with pytest.raises(NotSteeredError), hf.steer(model, output_pack):
        model.generate(encoder_outputs=given, **SHORT)
    with pytest.raises(ZeroDivisionError), hf.steer(model, output_pack):
        _ = 1 / 0  # not hidden by NotSteeredError


def test_hooks_go_when_the_encoder_fails(model: Any, pack: SteerPack) -> None:
    with pytest.raises(ValueError, match="3000"), hf.steer(model, pack):
        encoded(model, torch.zeros(1, 80, 7))
    assert_untouched(model)


def test_long_form_batches_keep_their_strengths(model: Any, output_pack: SteerPack, loaded: tuple[Any, Any]) -> None:
    """The short recording leaves the batch before the other has ended, which must keep its own strength."""
    inputs = loaded[1].feature_extractor(
        [noise(17.0), noise(70.0, seed=1)],
        sampling_rate=16000,
        return_tensors="pt",
        truncation=False,
        padding="longest",
        return_attention_mask=True,
    )
    options: dict[str, Any] = {"return_timestamps": True, "temperature": 0.0, "num_beams": 1, **SHORT}
    with hf.steer(model, output_pack, [0.0, 0.5]) as report:
        model.generate(inputs.input_features, attention_mask=inputs.attention_mask, **options)
    of_row = {row: [w for w in report.windows if w.row == row] for row in (0, 1)}
    assert {row: w[-1].end_s for row, w in of_row.items()} == {0: pytest.approx(17.0), 1: pytest.approx(70.0)}
    assert len(of_row[1]) > len(of_row[0])
    for row, strength in enumerate([0.0, 0.5]):
        assert all(w.edited_share == pytest.approx(strength, abs=1e-3) for w in of_row[row])
        starts = [w.start_s for w in of_row[row]]
        assert starts[0] == 0.0
        assert starts == sorted(set(starts))


def test_second_attempts_keep_their_strengths(model: Any, output_pack: SteerPack) -> None:
    """A threshold that no window meets: every window is encoded at each temperature, and reported once."""
    options: dict[str, Any] = {"temperature": (0.0, 0.4), "logprob_threshold": 0.0, "no_speech_threshold": 1.1}
    with hf.steer(model, output_pack, [0.0, 0.5]) as report:
        model.generate(mels(0, 1), **options, **SHORT)
    assert [(w.row, round(w.edited_share, 2)) for w in report.windows] == [(0, 0.0), (1, 0.5)]


def calls_of(pack: SteerPack, *strengths: float) -> SteeredCalls:
    return SteeredCalls(pack, strengths, HfReport(pack.name, max(strengths), "hf", strengths=strengths))


def test_rows_are_recognised_whatever_generate_does_with_its_batch(output_pack: SteerPack) -> None:
    mel, x = mels(0, 1, 2), torch.randn(3, 1500, WIDTH)
    calls = calls_of(output_pack, 0.0, 0.5, 1.0)
    rows: list[list[float]] = []

    def encode(which: list[int], fillers: int = 0) -> None:
        calls.begin(torch.cat([mel[which], torch.zeros(fillers, 80, 3000)]))
        edited = calls.edit(torch.cat([x[which], torch.ones(fillers, 1500, WIDTH)]))
        rows.append([(edited[i] - x[row]).norm().item() for i, row in enumerate(which)])
        if fillers:
            assert torch.equal(edited[len(which) :], torch.ones(fillers, 1500, WIDTH))

    with calls.generating(1, None) as progress:
        progress(torch.tensor([[0, 9000], [0, 3000], [0, 9000]]))
        encode([0, 1, 2])
        encode([1, 2])  # second attempt without row 0
        encode([2], fillers=2)  # third, filled up for a static cache
        progress(torch.tensor([[3000, 9000], [3000, 3000], [2500, 9000]]))
        encode([0, 2])  # row 1 has ended
        encode([2])
    every = rows[0]
    assert every[0] == 0 < every[1] < every[2]
    for found, which in zip(rows[1:], [[1, 2], [2], [0, 2], [2]], strict=True):
        assert found == pytest.approx([every[row] for row in which])
    assert [(w.row, w.start_s) for w in calls.report.windows] == [(0, 0), (1, 0), (2, 0), (0, 30.0), (2, 25.0)]


def test_rows_that_cannot_be_told_apart_are_not_guessed(output_pack: SteerPack) -> None:
    twins = mels(0, 0)
    for strengths, refused in [((0.2, 1.0), True), ((0.5, 0.5), False), ((0.5,), False)]:
        calls = calls_of(output_pack, *strengths)
        with calls.generating(1, None) as progress:
            progress(torch.tensor([[0, 3000], [0, 3000]]))
            calls.begin(twins)
            calls.begin(twins)
            if refused:
                with pytest.raises(SteerOptionError, match="same audio at different strengths"):
                    calls.begin(twins[:1])
            else:
                calls.begin(twins[:1])


@pytest.mark.parametrize("n_strengths", [2, 4])
def test_a_batch_of_another_size_is_refused(model: Any, output_pack: SteerPack, n_strengths: int) -> None:
    for call in (lambda: encoded(model, mels(0, 1, 2)), lambda: model.generate(mels(0, 1, 2), **SHORT)):
        with (
            pytest.raises(SteerOptionError, match=f"{n_strengths} strengths .* batch of 3"),
            hf.steer(model, output_pack, [0.5] * n_strengths),
        ):
            call()


def test_several_answers_for_each_row(model: Any, output_pack: SteerPack) -> None:
    with hf.steer(model, output_pack, [0.0, 0.5]) as report:
        model.generate(mels(0, 1), do_sample=True, num_return_sequences=2, temperature=0.5, **SHORT)
    assert [round(w.edited_share, 2) for w in report.windows] == [0.0, 0.0, 0.5, 0.5]


def test_progress_still_reaches_the_caller(model: Any, output_pack: SteerPack) -> None:
    told: list[Any] = []
    with hf.steer(model, output_pack):
        model.generate(mels(0), monitor_progress=lambda state: told.append(state.tolist()), **SHORT)
    assert told == [[[0, 3000]]]


def test_language_is_detected_on_the_plain_output(tiny_multilingual_dir: Path) -> None:
    model, _ = hf.load(tiny_multilingual_dir)
    pack = random_pack(WIDTH, known_sha256(tiny_multilingual_dir / "model.bin"), gate=open_gate(16))
    plain = model.detect_language(mels(0))
    with hf.steer(model, pack) as report:
        assert torch.equal(model.detect_language(mels(0)), plain)
        assert report.windows == []
        model.generate(mels(0), **SHORT)
    assert len(report.windows) == 1
    with pytest.raises(NotSteeredError), hf.steer(model, pack):
        model.detect_language(mels(0))
    with hf.steer(model, pack, steer_language_detection=True):
        model.detect_language(mels(0))
    assert_untouched(model)


@pytest.mark.parametrize("seconds", [5.0, 40.0])
def test_pipelines_are_steered(loaded: tuple[Any, Any], output_pack: SteerPack, seconds: float) -> None:
    model, processor = loaded
    recognise: Any = pipeline(
        "automatic-speech-recognition",
        model=model,
        tokenizer=processor.tokenizer,
        feature_extractor=processor.feature_extractor,
    )
    options = {"return_timestamps": True, "generate_kwargs": SHORT}
    stock = recognise(noise(seconds), **options)
    with hf.steer(model, output_pack) as report:
        steered = recognise(noise(seconds), **options)
    assert steered["text"] != stock["text"]
    assert report.windows[0].start_s == 0.0
    assert report.windows[-1].end_s == pytest.approx(seconds, abs=0.02)
    assert recognise(noise(seconds), **options) == stock
    assert_untouched(model)


def test_somebody_elses_generate_survives(model: Any, output_pack: SteerPack) -> None:
    called: list[str] = []
    original = model.generate
    model.generate = lambda *args, **kwargs: called.append("theirs") or original(*args, **kwargs)
    theirs = model.generate
    with hf.steer(model, output_pack) as report:
        model.generate(mels(0), **SHORT)
    assert called == ["theirs"]
    assert len(report.windows) == 1
    assert model.generate is theirs
    del model.generate


def test_what_does_not_fit_is_refused_before_anything_runs(model: Any, sha256: str, output_pack: SteerPack) -> None:
    refusals: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"pack": random_pack(WIDTH, "d" * 64)}, PackMismatchError, "dddd.*check='dimensions'"),
        ({"pack": random_pack(16, sha256)}, PackMismatchError, "16 wide"),
        ({"pack": random_pack(16, "d" * 64), "check": "dimensions"}, PackMismatchError, "16 wide"),
        ({"pack": random_pack(WIDTH, sha256, hook_point="encoder.layers.9")}, HookPointError, r"encoder\.layers\.1"),
        ({"pack": random_pack(WIDTH, sha256, hook_point="decoder.layers.0")}, HookPointError, "outside the encoder"),
        ({"pack": random_pack(WIDTH, sha256, front_end="waveform")}, PackMismatchError, "front-end"),
        ({"pack": "no-such-pack"}, PackError, "unknown pack"),
        ({"pack": "default"}, PackError, "no default pack"),
        ({"pack": "default", "check": "dimensions"}, PackError, "must be named"),
        ({"pack": output_pack, "check": "dimension"}, SteerOptionError, "did you mean 'dimensions'"),
        ({"pack": output_pack, "strength": 1.5}, SteerOptionError, "outside 0 to 1"),
        ({"pack": output_pack, "strength": [0.5, -1]}, SteerOptionError, "outside 0 to 1"),
        ({"pack": output_pack, "strength": []}, SteerOptionError, "one number for each row"),
    ]
    for options, error, message in refusals:
        with pytest.raises(error, match=message), hf.steer(model, **options):
            pytest.fail("the block was entered")
    with pytest.raises(SteerOptionError, match="not a Linear"), hf.steer(torch.nn.Linear(1, 1)):  # pyright: ignore[reportArgumentType]
        pass


def test_a_model_is_recognised_by_its_weights(
    tiny_whisper_dir: Path, sha256: str, output_pack: SteerPack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = hf.load(tiny_whisper_dir)
    assert next(fingerprints(model)) == sha256, "read from the file"
    for computed in (hf_from_ct2(tiny_whisper_dir), model.model):
        assert sha256 in list(fingerprints(computed)), "with or without the language-model head"
    monkeypatch.setenv("STEER_ASR_PACKS", str(tmp_path))
    save_pack(output_pack, tmp_path / "for-tiny", card="")
    with hf.steer(model) as report:
        encoded(model, mels(0))
    assert report.pack == "for-tiny"
    bias: Any = model.get_parameter("model.decoder.layers.1.fc1.bias")
    with torch.no_grad():
        bias[3] += 0.5
    assert sha256 not in list(fingerprints(model)), "not remembered past a change"
    with pytest.raises(PackMismatchError), hf.steer(model, output_pack):
        pass
    with hf.steer(model, output_pack, check="dimensions") as report:
        encoded(model, mels(0))
    assert report.check == "dimensions"


def test_the_hash_of_real_weights_is_that_of_the_file(tiny_en: ModelFiles) -> None:
    assert next(fingerprints(hf_from_ct2(tiny_en.path))) == tiny_en.sha256


@pytest.mark.parametrize("wave", [noise(5.0), noise(3.0)[:-77], tone(29.99), noise(31.3)], ids=lambda w: str(len(w)))
def test_the_front_end_is_that_of_faster_whisper(loaded: tuple[Any, Any], wave: np.ndarray) -> None:
    wanted = FeatureExtractor()(wave)[:, :-1]
    if long := len(wave) > 30 * 16000:
        wanted = wanted[:, :-1]  # unpadded audio ends in the middle of the last frame's analysis window
    made = loaded[1].feature_extractor(wave, sampling_rate=16000, return_tensors="np", truncation=not long)
    [mel] = made["input_features"]
    np.testing.assert_allclose(mel[:, :-1] if long else mel, wanted if long else pad_or_trim(wanted), atol=1e-4)


def test_the_helper_transcribes_with_and_without_steering(loaded: tuple[Any, Any], output_pack: SteerPack) -> None:
    stock = hf.transcribe(noise(3.0), *loaded, steer=None, **SHORT)
    steered = hf.transcribe(noise(3.0), *loaded, steer=output_pack, **SHORT)
    assert stock.steer is None
    assert steered.steer is not None
    assert steered.steer.windows[0].end_s == pytest.approx(3.0)
    assert steered.text != stock.text
    with pytest.raises(SteerOptionError, match="early_exit"):
        hf.transcribe(silence(1.0), *loaded, steer={"pack": output_pack, "early_exit": True})


@pytest.mark.slow
def test_what_the_other_front_end_changes(tiny_en: ModelFiles) -> None:
    """Behind transformers' own padding the gate of the shipped pack still decides alike on the demo's clips."""
    from transformers import WhisperFeatureExtractor

    model, processor = hf.load(tiny_en.path)
    extractors = {"faster-whisper": processor.feature_extractor, "transformers": WhisperFeatureExtractor()}
    for clip, nobody in (("speech.flac", False), ("hum.flac", True)):
        audio, found, outputs = decode_audio(CLIPS / clip), {}, {}
        for name, extractor in extractors.items():
            mel = extractor(audio, sampling_rate=16000, return_tensors="pt").input_features
            outputs[name] = encoded(model, mel)[0, : len(audio) // 320]
            with hf.steer(model) as report:
                tokens = model.generate(mel, max_new_tokens=30)
            text = processor.batch_decode(tokens, skip_special_tokens=True)[0]
            found[name] = (report.windows[0].nobody_speaks > 0.5, text.strip() == "")
        wanted, other = outputs["faster-whisper"], outputs["transformers"]
        assert ((other - wanted).norm() / wanted.norm()).item() > 0.05, "the encoder hears the padding"
        assert found == dict.fromkeys(extractors, (nobody, nobody))
