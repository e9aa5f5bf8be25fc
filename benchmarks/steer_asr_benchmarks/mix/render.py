"""The waveform of one planned item, and what can only be said once it is there.

rendered = render(plan[0])
rendered.wave, rendered.spans, rendered.level_dbfs
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from steer_asr.audio import SAMPLE_RATE_HZ, decode_audio
from steer_asr.errors import AudioError
from steer_asr.manifest import Span
from steer_asr_benchmarks.clips import BenchClip
from steer_asr_benchmarks.mix.channels import telephone, through_codec
from steer_asr_benchmarks.mix.levels import active_power, crossfaded, dbfs, excerpt, lay_over, power, ramp
from steer_asr_benchmarks.mix.plan import CROSSFADE_S, Copy, Decode, Excerpt, Item, Overlay, Recording, Stretch

SPEECH_DBFS = -26.0
"""Active level that every utterance of a long recording is brought to."""
NOISE_DBFS = (-60.0, -25.0)
"""Levels of computed noise, uniform."""
LSB = 1 / 32768
SPEECH_FADE = SAMPLE_RATE_HZ // 200


@dataclass(frozen=True)
class Rendered:
    """One item as sound."""

    wave: np.ndarray
    """float32 [n_samples], 16 kHz, in [-1, 1]."""
    level_dbfs: float | None
    """Active level of the speech in a mix; of a stretch its level, None when it is digital silence; None for a copy."""
    spans: tuple[Span, ...] = ()
    """What is said when, in a long recording: whole utterances, as long as their files."""

    @property
    def duration_s(self) -> float:
        return len(self.wave) / SAMPLE_RATE_HZ


def render(item: Item, decode: Decode = decode_audio) -> Rendered:
    """The sound of `item`: the same samples each time. Reads the audio files through `decode`.

    Raises `AudioError` for a file that is broken, silent where sound is needed, or longer than its manifest says, and
    `SteerOptionError` for a codec that this FFmpeg lacks.
    """
    match item:
        case Overlay():
            return _overlay(item, decode)
        case Recording():
            return _recording(item, decode)
        case Stretch():
            return _stretch(item, decode)
        case Copy():
            wave = _wave(item.named, decode)
            return Rendered(telephone(wave) if item.codec is None else through_codec(wave, item.codec), None)


def _overlay(item: Overlay, decode: Decode) -> Rendered:
    speech = _wave(item.speech, decode)
    noise = _excerpt(item.noise, len(speech), decode)
    speech_power = _not_silent(active_power(speech), item.speech)
    noise_power = _not_silent(power(noise), item.noise.named)
    mixed = lay_over(speech, noise, item.snr_db, speech_power=speech_power, noise_power=noise_power)
    return Rendered(mixed.wave, mixed.speech_dbfs)


def _recording(item: Recording, decode: Decode) -> Rendered:
    n = round(item.duration_s * SAMPLE_RATE_HZ)
    speech, is_speech, spans = np.zeros(n, np.float32), np.zeros(n, bool), []
    for utterance in item.utterances:
        wave = _faded(_wave(utterance.named, decode))
        gain = np.sqrt(10 ** (SPEECH_DBFS / 10) / _not_silent(active_power(wave), utterance.named))
        start = round(utterance.start_s * SAMPLE_RATE_HZ)
        end = start + len(wave)
        if end > n or is_speech[start:end].any():
            clip = utterance.named.clip
            raise AudioError(
                f"{utterance.named.id}: {len(wave) / SAMPLE_RATE_HZ:.2f} s long, the manifest says {clip.duration_s} s"
            )
        speech[start:end], is_speech[start:end] = gain * wave, True
        spans.append(Span(_seconds(start), _seconds(end), utterance.named.clip.text))
    noise = _bed(item, n, decode)
    noise_power = _not_silent(power(noise[is_speech]), item.noises[0])
    mixed = lay_over(speech, noise, item.snr_db, speech_power=10 ** (SPEECH_DBFS / 10), noise_power=noise_power)
    return Rendered(mixed.wave, mixed.speech_dbfs, tuple(spans))


def _bed(item: Recording, n: int, decode: Decode) -> np.ndarray:
    """Noises one behind the other, all of the same power: float32 [n]."""
    waves = [_wave(named, decode) for named in item.noises]
    levelled = [wave / np.sqrt(_not_silent(power(wave), named)) for wave, named in zip(waves, item.noises, strict=True)]
    return excerpt(crossfaded(levelled, round(CROSSFADE_S * SAMPLE_RATE_HZ)), 0, n)


def _stretch(item: Stretch, decode: Decode) -> Rendered:
    n = round(item.duration_s * SAMPLE_RATE_HZ)
    rng = np.random.default_rng(item.seed)
    if item.recorded is not None:
        wave = _excerpt(item.recorded, n, decode)
    elif item.sound == "digital_silence":
        wave = np.zeros(n)
    elif item.sound == "dither":
        wave = (rng.random(n) - rng.random(n)) * LSB  # triangular: what a converter adds to silence
    else:
        wave = rng.standard_normal(n) if item.sound == "white_noise" else _pink(n, rng)
        wave = np.clip(wave / np.sqrt(power(wave)) * 10 ** (rng.uniform(*NOISE_DBFS) / 20), -1, 1)
    level = power(wave)
    return Rendered(wave.astype(np.float32), dbfs(level) if level else None)


def _pink(n: int, rng: np.random.Generator) -> np.ndarray:
    """Falls by 3 dB per octave from 20 Hz on."""
    frequency = np.fft.rfftfreq(n, 1 / SAMPLE_RATE_HZ)
    return np.fft.irfft(np.fft.rfft(rng.standard_normal(n)) / np.sqrt(np.maximum(frequency, 20.0)), n)


def _wave(named: BenchClip, decode: Decode) -> np.ndarray:
    wave = decode(named.clip.audio_path)
    if not len(wave):
        raise AudioError(f"{named.id}: there are no samples in it")
    return wave


def _excerpt(part: Excerpt, n: int, decode: Decode) -> np.ndarray:
    return excerpt(_wave(part.named, decode), round(part.offset_s * SAMPLE_RATE_HZ), n)


def _not_silent(value: float, named: BenchClip) -> float:
    if value <= 0:
        raise AudioError(f"{named.id}: silent where it is needed, so there is no level to set; leave it out")
    return value


def _faded(wave: np.ndarray) -> np.ndarray:
    """In and out over 5 ms: a cut through room noise would click."""
    fade = min(SPEECH_FADE, len(wave) // 4)
    shape = np.ones(len(wave), np.float32)
    shape[:fade], shape[len(wave) - fade :] = ramp(fade), ramp(fade)[::-1]
    return wave * shape


def _seconds(samples: int) -> float:
    return round(samples / SAMPLE_RATE_HZ, 4)
