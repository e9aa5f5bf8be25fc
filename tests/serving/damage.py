"""Damaged files for `fuzz`: small clips, and the ways to spoil them. A file depends on its seed and number only."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from dataclasses import dataclass

import av
import numpy as np

from tests.helpers import noise, tone

CONTAINERS = {
    "wav": ("wav", "pcm_s16le", 16_000),
    "flac": ("flac", "flac", 16_000),
    "mp3": ("mp3", "libmp3lame", 44_100),
    "ogg": ("ogg", "libopus", 48_000),
    "m4a": ("mp4", "aac", 44_100),
    "webm": ("webm", "libopus", 48_000),
}
"""{ending: (FFmpeg's muxer, its encoder, sample rate in Hz)}."""
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFE, 0xFFFF_FFFF)
Random = np.random.Generator


@functools.cache
def clip(container: str, seconds: float = 1.0) -> bytes:
    """A tone with noise in that container."""
    muxer, encoder, rate = CONTAINERS[container]
    samples = tone(seconds) + noise(seconds)
    file = io.BytesIO()
    with av.open(file, "w", format=muxer) as output:
        stream = output.add_stream(encoder, rate=rate, layout="mono")
        assert isinstance(stream, av.AudioStream)
        resampler = av.AudioResampler(stream.format.name, stream.layout.name, rate, stream.frame_size or 1024)
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = 16_000
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            output.mux(stream.encode(piece))
        output.mux(stream.encode(None))
    return file.getvalue()


def any_clip(rng: Random) -> bytes:
    return clip(str(rng.choice(list(CONTAINERS))))


def truncated(rng: Random) -> bytes:
    """Only the first part."""
    data = any_clip(rng)
    return data[: rng.integers(1, len(data))]


def bits_flipped(rng: Random) -> bytes:
    """1 to 1000 bits the other way, half of the time in the first 512 bytes."""
    data = np.frombuffer(any_clip(rng), np.uint8).copy()
    reach = min(512, len(data)) if rng.random() < 0.5 else len(data)
    where = rng.integers(0, reach, int(10 ** rng.uniform(0, 3)))
    np.bitwise_xor.at(data, where, (1 << rng.integers(0, 8, len(where))).astype(np.uint8))
    return data.tobytes()


def forged_header(rng: Random) -> bytes:
    """1 to 4 extreme numbers in the first 512 bytes, or at the end, where MP4 may have its tables."""
    data = bytearray(any_clip(rng))
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(4, min(512, len(data) - 8)))
        if rng.random() < 0.3:
            at = len(data) - at - 4
        n_bytes = int(rng.choice([1, 2, 4, 8]))
        value = int(rng.choice(EXTREMES)) % (1 << 8 * n_bytes)
        data[at : at + n_bytes] = value.to_bytes(n_bytes, "little" if rng.random() < 0.5 else "big")
    return bytes(data)


def forged_wav(rng: Random) -> bytes:
    """Channels, rates, sizes of a WAV that its samples do not bear out."""
    data = bytearray(clip("wav"))
    for at, n_bytes in ((4, 4), (20, 2), (22, 2), (24, 4), (28, 4), (32, 2), (34, 2)):
        if rng.random() < 0.4:
            data[at : at + n_bytes] = (int(rng.choice(EXTREMES)) % (1 << 8 * n_bytes)).to_bytes(n_bytes, "little")
    return bytes(data)


def spliced(rng: Random) -> bytes:
    """The head of one clip and the tail of another."""
    head, tail = any_clip(rng), any_clip(rng)
    return head[: rng.integers(1, len(head))] + tail[rng.integers(0, len(tail)) :]


def overwritten(rng: Random) -> bytes:
    """A stretch of random bytes, zeros, or of the file itself, in the middle."""
    data = bytearray(any_clip(rng))
    at, length = int(rng.integers(0, len(data))), int(rng.integers(1, 4096))
    other = int(rng.integers(0, len(data)))
    stretch = (rng.bytes(length), bytes(length), bytes(data[other : other + length]))[rng.integers(0, 3)]
    data[at : at + length] = stretch
    return bytes(data)


def bomb(rng: Random) -> bytes:
    """Much sound in few bytes, as far as the header tells or further."""
    match rng.integers(0, 5):
        case 0:  # ten minutes of silence that claim an unknown length
            data = bytearray(_silent_flac())
            data[21] &= 0xF0
            data[22:26] = bytes(4)
            return bytes(data)
        case 1:
            return _silent_flac()
        case 2:  # frames again and again; there is no length anywhere
            return clip("mp3")[1000:] * int(rng.integers(40, 400))
        case 3:  # chained streams
            return clip("ogg") * int(rng.integers(2, 100))
        case _:  # hours, by its rate
            data = bytearray(clip("wav"))
            data[24:28] = int(rng.integers(1, 1001)).to_bytes(4, "little")
            return bytes(data)


def no_audio(rng: Random) -> bytes:
    """Nothing, noise, other kinds of file, and files that name other files."""
    known = (
        b"",
        b"\0",
        bytes(100_000),
        rng.bytes(int(rng.integers(1, 100_000))),
        b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n",
        b"ffconcat version 1.0\nfile '/etc/passwd'\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\n",
        b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY y SYSTEM "file:///etc/passwd">]><MPD>&y;</MPD>',
        b"\x7fELF" + rng.bytes(500),
        b"PK\x03\x04" + rng.bytes(500),
        b"\x1f\x8b\x08" + rng.bytes(500),
        b"%PDF-1.7\n" + rng.bytes(500),
    )
    return known[rng.integers(0, len(known))]


def sound(rng: Random) -> bytes:
    """Nothing wrong but the name."""
    return any_clip(rng)


DAMAGE: tuple[Callable[[Random], bytes], ...] = (
    truncated,
    bits_flipped,
    forged_header,
    forged_wav,
    spliced,
    overwritten,
    bomb,
    no_audio,
    sound,
)
NAMES = ("a.wav", "a.mp3", "a.m3u8", "../../../etc/passwd", "http://127.0.0.1/a.wav", "a\u202e.wav", "a" * 500, "-i")


@dataclass(frozen=True)
class Case:
    """One file to send."""

    number: int
    damage: str
    name: str
    data: bytes


def case(seed: int, number: int) -> Case:
    """File `number` of a seed; each kind of damage in turn, the name any."""
    rng = np.random.default_rng([seed, number])
    damage = DAMAGE[number % len(DAMAGE)]
    return Case(number, damage.__name__, str(rng.choice(NAMES)), damage(rng))


@functools.cache
def _silent_flac() -> bytes:
    """Ten minutes of nothing."""
    file = io.BytesIO()
    with av.open(file, "w", format="flac") as output:
        stream = output.add_stream("flac", rate=16_000, layout="mono")
        assert isinstance(stream, av.AudioStream)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, stream.frame_size or 4608), np.int16), "s16", "mono")
        frame.sample_rate = 16_000
        for _ in range(600 * 16_000 // frame.samples):
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()
