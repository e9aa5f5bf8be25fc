"""Test sets: what is planned, and whether it sounds as planned."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steer_asr.audio import decode_audio
from steer_asr.errors import AudioError, SteerOptionError
from steer_asr.manifest import Span, read_manifest
from steer_asr_benchmarks.clips import BenchClip, load_clips
from steer_asr_benchmarks.mix.channels import telephone, through_codec
from steer_asr_benchmarks.mix.levels import PEAK, active_power, crossfaded, excerpt, lay_over
from steer_asr_benchmarks.mix.plan import Excerpt, Overlay, Recording, Stretch, Utterance, make_plan
from steer_asr_benchmarks.mix.recipes import (
    CODECS,
    Codec,
    CodecCopies,
    Lengths,
    Long,
    OverMusic,
    Snr,
    Telephone,
)
from steer_asr_benchmarks.mix.render import render
from steer_asr_benchmarks.mix.write import MixOptions, write_mix
from tests.benchmarks.mix_inputs import SPEECH_HZ, rows_of, said, save, write_manifests
from tests.helpers import RATE_HZ, noise, silence, tone


@pytest.fixture
def manifests(tmp_path: Path) -> tuple[Path, Path]:
    return write_manifests(tmp_path)


@pytest.fixture
def clips(manifests: tuple[Path, Path]) -> list[BenchClip]:
    return load_clips(manifests)


def mean_square(wave: np.ndarray) -> float:
    return float(np.mean(np.square(wave, dtype=np.float64)))


def above(wave: np.ndarray, hz: float) -> np.ndarray:
    """What of `wave` is above a frequency."""
    spectrum = np.fft.rfft(wave)
    spectrum[np.fft.rfftfreq(len(wave), 1 / RATE_HZ) < hz] = 0
    return np.fft.irfft(spectrum, len(wave))


# --- levels


def test_pauses_do_not_count_for_the_level_of_speech() -> None:
    voice = tone(1.0, level=0.2)
    paused = np.concatenate([silence(3.0), voice, noise(2.0, 0.0005), voice])
    assert active_power(paused) == pytest.approx(0.02, rel=1e-3)
    assert active_power(silence(1.0)) == 0
    assert active_power(tone(0.01)) == pytest.approx(0.005, rel=0.1), "shorter than a frame"


def test_a_mix_that_would_clip_is_made_quieter_as_a_whole() -> None:
    speech, loud = tone(1.0, SPEECH_HZ, 0.9), noise(1.0, 0.02)
    powers = {"speech_power": active_power(speech), "noise_power": mean_square(loud)}
    mixed = lay_over(speech, loud, 0.0, **powers)
    assert np.abs(mixed.wave).max() == pytest.approx(PEAK, abs=1e-4)
    assert 10 * np.log10(active_power(mixed.speech) / mean_square(mixed.noise)) == pytest.approx(0.0, abs=0.01)
    assert mixed.speech_dbfs == pytest.approx(10 * np.log10(active_power(mixed.speech)), abs=0.01)
    np.testing.assert_array_equal(lay_over(speech, loud, 40.0, **powers).speech, speech)


def test_a_short_noise_is_repeated_without_a_click() -> None:
    hum = tone(0.5, 333.0)
    long = excerpt(hum, 3000, 5 * RATE_HZ)
    assert len(long) == 5 * RATE_HZ
    assert np.abs(np.diff(long)).max() < 1.6 * np.abs(np.diff(hum)).max()
    np.testing.assert_array_equal(long[: len(hum) - 3000 - 320], hum[3000:-320])
    np.testing.assert_array_equal(excerpt(hum, 100, 50), hum[100:150])


def test_recordings_that_follow_each_other_keep_their_power() -> None:
    a, b = noise(1.0, 0.1, seed=1), noise(1.0, 0.1, seed=2)
    joined = crossfaded([a, b], 1600)
    assert len(joined) == 2 * RATE_HZ - 1600
    assert mean_square(joined[RATE_HZ - 1600 : RATE_HZ]) == pytest.approx(0.01, rel=0.1)


# --- plan


def test_every_snr_of_a_clip_has_the_same_noise_and_none_is_music_or_silence(clips: list[BenchClip]) -> None:
    plan = make_plan(clips, Snr(snr_db=(10, 0)), seed=3)
    pairs = [(item.speech.id, item.noise) for item in plan if isinstance(item, Overlay)]
    assert len(pairs) == 8
    assert pairs[::2] == pairs[1::2]
    drawn = Counter(pair[1].named.clip.label for pair in pairs[::2])
    assert set(drawn) == {"hum", "fan", "dog"}, "each comes once before any comes twice"
    music = make_plan(clips, OverMusic(snr_db=(0,)), seed=3)
    assert {item.noise.named.clip.label for item in music if isinstance(item, Overlay)} == {"tune"}


def test_the_plan_depends_on_the_seed_alone(clips: list[BenchClip]) -> None:
    for recipe in (Snr(), Long(min_s=10, max_s=15), Lengths(), CodecCopies()):
        assert make_plan(clips, recipe, seed=1) == make_plan(clips, recipe, seed=1)
    assert make_plan(clips, Snr(), seed=1) != make_plan(clips, Snr(), seed=2)


def test_noise_is_not_taken_from_its_pauses(clips: list[BenchClip]) -> None:
    dogs = [named for named in clips if named.clip.kind == "speech" or named.clip.label == "dog"]
    for seed in range(5):
        for item in make_plan(dogs, Snr(snr_db=(0,)), seed=seed):
            assert isinstance(item, Overlay)
            start = round(item.noise.offset_s * RATE_HZ)
            n = round(item.speech.clip.duration_s * RATE_HZ)
            barks = excerpt(decode_audio(item.noise.named.clip.audio_path), start, n)
            assert mean_square(barks) > 0.004 / 10 - 1e-4, "at most 10 dB below the recording's mean of 0.004"


def test_a_limit_is_spread(clips: list[BenchClip]) -> None:
    plan = make_plan(clips, Snr(snr_db=(10, 0)), limit=2)
    assert [item.speech.clip.text for item in plan if isinstance(item, Overlay)] == ["word 0"] * 2 + ["word 2"] * 2
    assert len(make_plan(clips, Long(min_s=10, max_s=12), limit=7)) == 7
    assert len(make_plan(clips, Telephone(), limit=1)) == 2


@pytest.mark.parametrize(
    ("recipe", "kinds", "message"),
    [
        (Snr(), {"nonspeech"}, "no speech"),
        (Snr(), {"speech"}, "no noise"),
        (Long(), {"nonspeech"}, r"at most 15 s; there are none"),
        (Telephone(), set(), "there are none"),
    ],
)
def test_clips_that_a_recipe_needs(clips: list[BenchClip], recipe: Any, kinds: set[str], message: str) -> None:
    with pytest.raises(SteerOptionError, match=message):
        make_plan([named for named in clips if named.clip.kind in kinds], recipe)


def test_clips_that_cannot_be_mixed(clips: list[BenchClip]) -> None:
    mute = [named for named in clips if named.clip.label in ("mute", "verbatim")]
    with pytest.raises(SteerOptionError, match="all 1 clips of noise are silent"):
        make_plan(mute, Snr())
    with pytest.raises(SteerOptionError, match="no music"):
        make_plan(mute, OverMusic())
    trained = replace(clips[0], clip=replace(clips[0].clip, split="train"))
    with pytest.raises(SteerOptionError, match=r"several splits \(test, train\)"):
        make_plan([trained, *clips[1:]], Snr())
    for seed, limit in ((-1, None), (0, 0)):
        with pytest.raises(SteerOptionError, match="at least"):
            make_plan(clips, Snr(), seed=seed, limit=limit)


# --- sound


def test_the_snr_in_the_file_is_the_planned_one(manifests: tuple[Path, Path], tmp_path: Path) -> None:
    """Nothing clips here, so what is not the speech is the noise."""
    made = write_mix(MixOptions(manifests, Snr(snr_db=(20, 3, -5))), tmp_path / "out")
    for row in rows_of(made):
        source = manifests[0].parent / row["made_of"][0].partition(":")[2]
        speech, mix = decode_audio(source), decode_audio(made.parent / row["audio_filepath"])
        assert len(speech) == len(mix)
        measured = 10 * np.log10(0.005 / mean_square(mix - speech))  # a tone of 0.1 has a power of 0.005
        assert measured == pytest.approx(row["snr_db"], abs=0.1)
        assert row["level_dbfs"] == pytest.approx(10 * np.log10(0.005), abs=0.1)
    assert [row["snr_db"] for row in rows_of(made)] == [20.0, 3.0, -5.0] * 4


def test_speech_in_a_long_recording_is_where_it_is_said_to_be(manifests: tuple[Path, Path], tmp_path: Path) -> None:
    made = write_mix(MixOptions(manifests, Long(min_s=10, max_s=14), limit=4), tmp_path / "out")
    clips, rows = read_manifest(made), rows_of(made)
    for clip, row in zip(clips, rows, strict=True):
        mix = decode_audio(clip.audio_path)
        assert 10 <= clip.duration_s <= 14
        assert clip.duration_s == pytest.approx(len(mix) / RATE_HZ, abs=1e-4)
        assert clip.kind == "mixed"
        assert clip.text == " ".join(span.text for span in clip.spans)
        voice, covered = mix - above(mix, 3000), np.zeros(len(mix), bool)
        for span in clip.spans:
            covered[round(span.start_s * RATE_HZ) : round(span.end_s * RATE_HZ)] = True
            length_s = 0.8 + 0.2 * int(span.text[-1])
            assert span.end_s - span.start_s == pytest.approx(length_s, abs=1e-3)
            heard = np.flatnonzero(np.abs(voice[covered]) > 0.05 * np.abs(voice).max())
            assert len(heard) > 0
        assert mean_square(voice[~covered]) < 1e-3 * mean_square(voice[covered]), "nothing said elsewhere"
        measured = 10 * np.log10(10 ** (row["level_dbfs"] / 10) / mean_square(above(mix, 3000)[covered]))
        assert measured == pytest.approx(10.0, abs=0.1)
        first = round(clip.spans[0].start_s * RATE_HZ)
        onset = np.flatnonzero(np.abs(voice) > 0.2 * np.abs(voice).max())[0]
        assert onset == pytest.approx(first + 0.1 * (clip.spans[0].end_s - clip.spans[0].start_s) * RATE_HZ, abs=320)
    assert max(len(clip.spans) for clip in clips) > 1
    for clip in clips:
        assert {int(span.text[-1]) % 2 for span in clip.spans} == {int(clip.group[-1])}, "one speaker each"


def test_a_manifest_that_states_a_wrong_length_is_found(clips: list[BenchClip]) -> None:
    twice = (Utterance(clips[0], 1.0), Utterance(clips[1], 1.5))
    with pytest.raises(AudioError, match=r"speech-1\.wav: 1\.00 s long, the manifest says 1\.0 s"):
        render(Recording("long", 10.0, twice, (clips[4],), 10.0))
    with pytest.raises(AudioError, match="silent where it is needed"):
        render(Overlay("snr", clips[0], Excerpt(clips[7], 0.0), 10.0))


def test_lengths(tmp_path: Path, manifests: tuple[Path, Path]) -> None:
    made = write_mix(MixOptions((), Lengths(min_s=0.3, max_s=3.0, steps=4)), tmp_path / "computed")
    rows = rows_of(made)
    assert sorted({row["duration"] for row in rows}) == [0.3, 0.646, 1.392, 3.0]
    assert Counter(row["label"] for row in rows) == dict.fromkeys(
        ("digital_silence", "dither", "white_noise", "pink_noise"), 4
    )
    for row in rows:
        wave = decode_audio(made.parent / row["audio_filepath"])
        assert len(wave) == round(row["duration"] * RATE_HZ)
        if row["label"] == "digital_silence":
            assert not wave.any()
            assert row["level_dbfs"] is None
        elif row["label"] == "dither":
            assert set((wave * 32768).tolist()) == {-1.0, 0.0, 1.0}
        else:
            assert 10 * np.log10(mean_square(wave)) == pytest.approx(row["level_dbfs"], abs=0.1)
            high = mean_square(above(wave, 4000)) / mean_square(wave)
            assert high == pytest.approx(0.5 if row["label"] == "white_noise" else 0.1, abs=0.05)
    plan = make_plan(load_clips(manifests), Lengths(steps=3))
    assert [item.duration_s for item in plan if isinstance(item, Stretch) and item.recorded] == [0.3, 3.0, 30.0]
    assert len(render(plan[-1]).wave) == 30 * RATE_HZ


def test_a_telephone_passes_its_band_and_nothing_else() -> None:
    wave = noise(3.0, 0.1)
    line = telephone(wave)
    assert len(line) == len(wave)
    faded = line * np.hanning(len(line))  # where a recording is cut, every frequency is in it
    assert mean_square(above(faded, 3800)) < 1e-8 * mean_square(faded)
    assert mean_square(faded - above(faded, 200)) < 1e-8 * mean_square(faded)
    inside = above(wave, 400) - above(wave, 3300)
    heard = above(line, 400) - above(line, 3300)
    assert np.corrcoef(inside, heard)[0, 1] > 0.99
    assert mean_square(inside - heard) > 1e-5 * mean_square(inside), "mu-law leaves its noise"
    assert len(telephone(tone(0.05))) == 800


CODECS_TRIED = [Codec("opus", 12), Codec("opus", 64), Codec("mp3", 32), Codec("amr", 12.2), Codec("gsm", 13)]


@pytest.mark.parametrize("codec", CODECS_TRIED, ids=str)
def test_codecs_keep_length_and_time(codec: Codec, speech: np.ndarray) -> None:
    wave = speech[: 3 * RATE_HZ + 77]
    copy = through_codec(wave, codec)
    assert (len(copy), copy.dtype) == (len(wave), np.float32)
    n = 1 << 17
    lag = int(np.argmax(np.fft.irfft(np.fft.rfft(copy, n) * np.conj(np.fft.rfft(wave, n)))))
    assert min(lag, n - lag) < 0.005 * RATE_HZ
    assert 1e-5 < mean_square(copy - wave) / mean_square(wave) < 1


def test_copies_keep_what_is_known_about_the_clip(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    save(tmp_path / "in" / "a.wav", said(1.0))
    row = {"audio_filepath": "a.wav", "duration": 1.0, "kind": "mixed", "text": "hello", "snr_db": 5, "source": "books"}
    (tmp_path / "in" / "m.jsonl").write_text(json.dumps(row | {"group": "g", "speech": [[0.1, 0.9, "hello"]]}))
    options = MixOptions((tmp_path / "in" / "m.jsonl",), CodecCopies((Codec("opus", 24), Codec("mp3", 16))))
    made = write_mix(options, tmp_path / "out")
    assert [row["codec"] for row in rows_of(made)] == ["opus:24", "mp3:16"]
    for clip in read_manifest(made):
        assert (clip.kind, clip.text, clip.group, clip.source) == ("mixed", "hello", "g", "mix/codec/books")
        assert (clip.snr_db, clip.spans) == (5.0, (Span(0.1, 0.9, "hello"),))


def test_a_codec_that_ffmpeg_lacks_is_named_before_anything_is_written(
    manifests: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CODECS, "gsm", replace(CODECS["gsm"], encoders=("no_such_encoder",)))
    with pytest.raises(SteerOptionError, match=r"cannot encode gsm: .* lack no_such_encoder; they can encode opus"):
        write_mix(MixOptions(manifests, CodecCopies((Codec("opus", 12), Codec("gsm", 13)))), tmp_path / "out")
    assert not (tmp_path / "out").exists()
