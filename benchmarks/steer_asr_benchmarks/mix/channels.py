"""What a line does to a recording: telephone and codecs. Times stay as they were, to a few milliseconds.

wave = telephone(wave)
wave = through_codec(wave, Codec("opus", 12))
"""

from __future__ import annotations

import io

import av
import av.error
import numpy as np
import soundfile

from steer_asr.audio import SAMPLE_RATE_HZ, decode_audio
from steer_asr.errors import SteerOptionError
from steer_asr_benchmarks.mix.recipes import CODECS, Codec, CodecFormat

MU_LAW = CodecFormat(("pcm_mulaw",), "wav", 8_000, (64,), 64)
LIBSNDFILE = "libsndfile:"
BAND_HZ = (200.0, 300.0, 3400.0, 3800.0)
"""Nothing passes below the first and above the last, everything between the two in the middle."""


def telephone(wave: np.ndarray) -> np.ndarray:
    """300 to 3400 Hz, sampled at 8 kHz in 8 bits of mu-law (ITU-T G.711), and again band-limited as it is played.

    float32 [n_samples] at 16 kHz, in and out; there is nothing above 3800 Hz.
    """
    line = decode_audio(encode(band_limited(wave), MU_LAW, MU_LAW.encoders[0], 64))
    return band_limited(_fitted(line, len(wave)))


def band_limited(wave: np.ndarray) -> np.ndarray:
    """The telephone's band: float32 [n_samples], without delay, clipped to [-1, 1]."""
    n = (len(wave) // SAMPLE_RATE_HZ + 2) * SAMPLE_RATE_HZ  # whole seconds: quick, and the end does not reach the start
    spectrum = np.fft.rfft(wave, n)
    frequency = np.fft.rfftfreq(n, 1 / SAMPLE_RATE_HZ)
    spectrum *= np.interp(frequency, BAND_HZ, (0.0, 1.0, 1.0, 0.0))
    return np.clip(np.fft.irfft(spectrum, n)[: len(wave)], -1, 1).astype(np.float32)


def through_codec(wave: np.ndarray, codec: Codec) -> np.ndarray:
    """What is left after encoding and decoding: float32 [n_samples] at 16 kHz, as many samples as before.

    Raises `SteerOptionError` when nothing here can encode it.
    """
    known = CODECS[codec.name]
    decoded = decode_audio(encode(wave, known, encoder_of(codec), codec.kbit_s))
    return _fitted(decoded[known.delay_samples :], len(wave))


def encoder_of(codec: Codec) -> str:
    """The name of the encoder to use; raises `SteerOptionError` that names the codec when there is none."""
    for name in CODECS[codec.name].encoders:
        if _has_encoder(name):
            return name
    there = [name for name, known in CODECS.items() if any(map(_has_encoder, known.encoders))]
    raise SteerOptionError(
        f"cannot encode {codec.name}: this FFmpeg (PyAV {av.__version__}) and libsndfile "
        f"({soundfile.__libsndfile_version__}) lack {' and '.join(CODECS[codec.name].encoders)}; "
        f"they can encode {', '.join(there) or 'none of the codecs here'}"
    )


def encode(wave: np.ndarray, known: CodecFormat, encoder: str, kbit_s: float) -> bytes:
    """A file of `wave`, float32 [n_samples] at 16 kHz."""
    file = io.BytesIO()
    if encoder.startswith(LIBSNDFILE):
        samples = _resampled(wave, known.rate_hz)
        soundfile.write(file, samples, known.rate_hz, format=known.container, subtype=encoder.removeprefix(LIBSNDFILE))
        return file.getvalue()
    with av.open(file, "w", format=known.container) as output:
        stream = output.add_stream(encoder, rate=known.rate_hz)
        assert isinstance(stream, av.AudioStream)
        stream.layout = "mono"  # pyright: ignore[reportAttributeAccessIssue]
        stream.bit_rate = round(1000 * kbit_s)
        resampler = av.AudioResampler(format=stream.format.name, layout="mono", rate=known.rate_hz)
        for frame in [*resampler.resample(int16_frame(wave)), *resampler.resample(None)]:
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()


def int16_frame(wave: np.ndarray) -> av.AudioFrame:
    """float [n_samples] in [-1, 1] at 16 kHz as PyAV takes it, 16 bits."""
    samples = np.clip(np.round(wave * np.float32(32768)), -32768, 32767).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(samples[np.newaxis], format="s16", layout="mono")
    frame.sample_rate = SAMPLE_RATE_HZ
    return frame


def _resampled(wave: np.ndarray, rate_hz: int) -> np.ndarray:
    """int16 [n_samples at `rate_hz`]."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=rate_hz)
    frames = [*resampler.resample(int16_frame(wave)), *resampler.resample(None)]
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])


def _fitted(wave: np.ndarray, n: int) -> np.ndarray:
    return np.pad(wave[:n], (0, max(0, n - len(wave))))


def _has_encoder(name: str) -> bool:
    if name.startswith(LIBSNDFILE):
        return name.removeprefix(LIBSNDFILE) in soundfile.available_subtypes("WAV")
    try:
        av.Codec(name, "w")
    except (av.error.FFmpegError, ValueError):
        return False
    return True
