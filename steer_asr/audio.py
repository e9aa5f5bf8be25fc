"""Audio in: one bounded decoder for every way in.

    wave = decode_audio("call.mp3")                                   # float32 [n_samples], 16 kHz mono, in [-1, 1]
    wave = decode_audio(upload, limits=AudioLimits(max_seconds=600))

PyAV reads the containers; the limits are checked on what has been decoded so far, never on what a header claims. Only
file objects opened here reach the decoder: no name, URL or protocol does, and formats that refer to other files
(playlists, concat) are not on the list of formats it may recognise.
"""

from __future__ import annotations

import io
import logging
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import BinaryIO

import av
import av.error
import numpy as np
from av.container import InputContainer

from steer_asr._truncation import missing_end
from steer_asr.errors import AudioError, AudioLimitError, SteerOptionError

logger = logging.getLogger(__name__)

SAMPLE_RATE_HZ = 16_000
FORMATS = (
    "wav,w64,aiff,au,caf,flac,ogg,mp3,aac,mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,asf,avi,flv,mpegts,mpeg,amr,amrnb,"
    "amrwb,ac3,eac3,wv,tta,ape,gsm,voc"
)
"""Demuxers that hold audio in themselves."""
STATED_LENGTH = {"aiff", "flac", "mov,mp4,m4a,3gp,3g2,mj2", "tta", "wv"}
"""Formats whose header states how long the audio track is; elsewhere FFmpeg estimates it, or there is none."""
LENGTH_KNOWN = {*STATED_LENGTH, "wav", "w64", "ogg"}
"""Those and where FFmpeg looks at the end: good enough to refuse what is too long without decoding it."""
PCM_FORMATS = {"wav", "aiff"}
"""Formats whose header can truly say "no samples"; elsewhere that means nothing was recognised."""
PROTECTED_TAGS = ("enca", "drms", "aavd")
"""MP4 sample entries that mean encrypted audio; what decodes without the key is noise."""
RATES_HZ = range(1_000, 2_000_001)
BLOCK_SAMPLES = 1 << 16
EXPANSION_FREE_BYTES = 64 * 2**20
CODEC_PADDING_S = 0.1
"""Codecs add a little at both ends; it is not what makes a recording too long."""
MAX_BAD_SHARE = 0.05
MAX_MISSING_S = 30.0
NOT_AUDIO = "not audio that can be read ({}); WAV, FLAC, Ogg, MP3, M4A and WebM work"


@dataclass(frozen=True)
class AudioLimits:
    """What one recording may cost. Exceeding a limit raises `AudioLimitError` while decoding, not after.

    `float("inf")` lifts a limit. Raises `SteerOptionError` for one that is not a positive number.
    """

    max_seconds: float = 4 * 3600.0
    """The result takes 64 kB a second: 0.9 GB at four hours."""
    max_input_bytes: float = 4 * 2**30
    max_decoded_bytes: float = 16 * 2**30
    """In the file's own rate, channels and sample format. These pass through; only the result is kept."""
    max_expansion: float = 200.0
    """Bytes of result over bytes of input; looked at once the result is 64 MiB (17 minutes), so that a short silence
    may compress as it likes. The thriftiest speech codecs reach about 100."""

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            if not isinstance(value, int | float) or math.isnan(value) or value <= 0:
                raise SteerOptionError(f"{limit.name} {value!r} is not a positive number")


def decode_audio(source: str | os.PathLike[str] | bytes | BinaryIO, *, limits: AudioLimits | None = None) -> np.ndarray:
    """Decodes one recording to float32 [n_samples], mono, 16 kHz, in [-1, 1].

    `source` is a path, the file's bytes, or a binary file object, which is read from where it stands and not closed.
    Several channels are mixed down; of several audio tracks the first counts. Sample values are those of
    faster-whisper (through 16-bit integers). A WAV or AIFF without samples gives an empty array. Up to 5 % of broken
    packets, and an end that is missing up to 5 % or 30 s, are logged as a warning.

    Raises `AudioError` when it is missing, empty, not audio, truncated, broken, protected, or has no audio track, and
    `AudioLimitError` when it exceeds a limit. Truncation shows only where a format states its length (not in MP3
    without a Xing frame, ADTS, MPEG-TS, CAF, or what was written to a pipe).
    """
    limits = limits or AudioLimits()
    name = _name(source)
    with _opened(source, name, limits) as file:
        try:
            return _read(file, name, limits)
        except av.error.PermissionError as error:  # FFmpeg's word for a key that it was not given
            raise AudioError(f"{name}: protected (DRM); it cannot be decoded without its key") from error
        except av.error.FFmpegError as error:
            raise AudioError(f"{name}: {NOT_AUDIO.format(error.strerror)}") from error
        except OSError as error:
            raise AudioError(f"{name}: cannot be read: {error}") from error


def _read(file: _Borrowed, name: str, limits: AudioLimits) -> np.ndarray:
    size = _size(file, name, limits)
    if cut := missing_end(file, size):
        raise AudioError(f"{name}: truncated: {cut}")
    counted = _mp3_counts_its_frames(file)
    file.seek(0)
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "none"}
    with av.open(file, mode="r", options=options, metadata_errors="ignore") as container:
        stream = _audio_stream(container, name)
        stated = counted or container.format.name in STATED_LENGTH
        length_s = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
        if (stated or container.format.name in LENGTH_KNOWN) and length_s > limits.max_seconds + CODEC_PADDING_S:
            raise AudioLimitError(f"{name}: {length_s:.0f} s long, the limit is {limits.max_seconds:.0f} s")
        wave, packets = _Wave(name, size, limits), _Packets()
        try:
            for frame in _frames(container, stream, packets):
                wave.add(frame)
        except av.error.InvalidDataError as error:
            if not wave.seconds:
                raise
            if file.tell() < size:
                raise AudioError(f"{name}: broken after {wave.seconds:.1f} s ({error.strerror})") from error
        samples = wave.finish()
        may_be_empty = container.format.name in PCM_FORMATS and stream.codec_context.name.startswith("pcm")
    _check_complete(name, wave.seconds, length_s if stated else 0.0, packets, may_be_empty=may_be_empty)
    return samples


def _name(source: object) -> str:
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    return str(getattr(source, "name", None) or "audio")


def _opened(source: str | os.PathLike[str] | bytes | BinaryIO, name: str, limits: AudioLimits) -> _Borrowed:
    if isinstance(source, bytes | bytearray | memoryview):
        return _Borrowed(io.BytesIO(source), name, limits)
    if not isinstance(source, str | os.PathLike):
        return _Borrowed(source, name, limits)
    path = Path(source)
    if path.is_dir():
        raise AudioError(f"{name}: is a folder; give a file, or a pattern such as '{name}/*.wav'")
    try:
        return _Borrowed(path.open("rb"), name, limits, close=True)
    except (OSError, ValueError) as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise AudioError(f"{name}: {reason}") from error


class _Borrowed:
    """A file object read from where it stands as if that were its start, and without a name.

    FFmpeg would take a name's ending for a hint, and believe anything that ends in ".flac".
    """

    def __init__(self, file: BinaryIO, name: str, limits: AudioLimits, *, close: bool = False) -> None:
        try:
            self._file = file if file.seekable() else _slurped(file, name, limits)
            self._start = self._file.tell()
            is_binary = isinstance(self._file.read(0), bytes)
        except AttributeError as error:
            kind = type(file).__name__
            raise AudioError(f"{kind} is not a recording; give a path, bytes, or a binary file object") from error
        except (OSError, ValueError) as error:
            raise AudioError(f"{name}: cannot be read: {error}") from error
        if not is_binary:
            raise AudioError(f"{name}: is open as text; open it in mode 'rb'")
        self._close = close

    def __enter__(self) -> _Borrowed:
        return self

    def __exit__(self, *_: object) -> None:
        if self._close:
            self._file.close()

    def read(self, n: int = -1) -> bytes:
        return self._file.read(n)

    def tell(self) -> int:
        return self._file.tell() - self._start

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset + self._start if whence == os.SEEK_SET else offset, whence) - self._start


def _slurped(file: BinaryIO, name: str, limits: AudioLimits) -> io.BytesIO:
    """What a pipe gives, in memory: most formats cannot be read without going back and forth."""
    content = io.BytesIO()
    while block := file.read(1 << 20):
        content.write(block)
        _check_input(content.tell(), name, limits)
    content.seek(0)
    return content


def _size(file: _Borrowed, name: str, limits: AudioLimits) -> int:
    size = file.seek(0, os.SEEK_END)
    if size <= 0:
        raise AudioError(f"{name}: the file is empty (0 bytes)")
    _check_input(size, name, limits)
    return size


def _check_input(size: int, name: str, limits: AudioLimits) -> None:
    if size > limits.max_input_bytes:
        raise AudioLimitError(f"{name}: {size} bytes or more, the limit is {limits.max_input_bytes}")


def _mp3_counts_its_frames(file: _Borrowed) -> bool:
    """Whether an MP3 starts with the Xing or Info frame that states its length; else FFmpeg guesses it."""
    file.seek(0)
    head = file.read(10)
    start = 0
    if head[:3] == b"ID3" and len(head) == 10:
        start = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
    file.seek(start)
    first = file.read(200)
    return first[:1] == b"\xff" and (b"Xing" in first or b"Info" in first)


def _audio_stream(container: InputContainer, name: str) -> av.AudioStream:
    if not container.streams.audio:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise AudioError(f"{name}: has no audio track (it holds {kinds})")
    stream = container.streams.audio[0]
    if stream.codec_context is None or _codec_tag(stream) in PROTECTED_TAGS:
        raise AudioError(f"{name}: its audio cannot be decoded: protected (DRM) or of an unknown kind")
    if "enc_key_id" in stream.metadata:  # FFmpeg's note on an encrypted WebM track
        raise AudioError(f"{name}: protected (DRM); it cannot be decoded without its key")
    stream.codec_context.thread_type = "NONE"  # one recording, one thread: servers decode many at a time
    return stream


def _codec_tag(stream: av.AudioStream) -> str:
    """Four characters, as the container has them. PyAV cannot read those that are no text, FLAC's in WAV for one."""
    try:
        return stream.codec_context.codec_tag
    except UnicodeDecodeError:
        return ""


@dataclass
class _Packets:
    total: int = 0
    bad: int = 0


def _frames(container: InputContainer, stream: av.AudioStream, packets: _Packets) -> Iterator[av.AudioFrame]:
    """Decoded frames packet by packet; broken packets are left out and counted."""
    try:
        for packet in container.demux(stream):
            packets.total += 1
            try:
                yield from packet.decode()
            except av.error.InvalidDataError:
                packets.bad += 1
    except (av.error.EOFError, IndexError):
        return  # IndexError: at its end PyAV 18 asks for tracks that turned up behind the header and finds none


class _Wave:
    """The recording at 16 kHz in one growing buffer. Limits are checked before anything is added to it."""

    def __init__(self, name: str, size: int, limits: AudioLimits) -> None:
        self._name, self._size, self._limits = name, size, limits
        self._samples = io.BytesIO()
        self._kind = ""
        self._decoded_bytes = 0
        self.seconds = 0.0

    def add(self, frame: av.AudioFrame) -> None:
        kind = f"{frame.layout.name} of {frame.format.name} at {frame.sample_rate} Hz"
        if kind != self._kind:  # files that were joined change it on the way
            self._flush()
            self._start(kind, frame.sample_rate)
        self._count(frame)
        frame.pts = None  # gaps in time stamps must not become silence or errors in the resampler
        self._pending.write(frame)
        while block := self._pending.read(BLOCK_SAMPLES):
            self._resample(block)

    def finish(self) -> np.ndarray:
        """float32 [n_samples]."""
        self._flush()
        return np.frombuffer(self._samples.getbuffer(), dtype=np.float32)

    def _start(self, kind: str, rate: int) -> None:
        if rate not in RATES_HZ:
            raise AudioError(
                f"{self._name}: a sample rate of {rate} Hz is out of range ({RATES_HZ[0]} to {RATES_HZ[-1]})"
            )
        self._kind = kind
        self._pending = av.AudioFifo()
        self._resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE_HZ)

    def _count(self, frame: av.AudioFrame) -> None:
        self.seconds += frame.samples / frame.sample_rate
        self._decoded_bytes += frame.samples * len(frame.layout.channels) * frame.format.bytes
        limits, name = self._limits, self._name
        if self.seconds > limits.max_seconds + CODEC_PADDING_S:
            raise AudioLimitError(f"{name}: longer than the limit of {limits.max_seconds:.0f} s")
        if self._decoded_bytes > limits.max_decoded_bytes:
            raise AudioLimitError(f"{name}: decodes to more than the limit of {limits.max_decoded_bytes} bytes")
        result_bytes = self.seconds * SAMPLE_RATE_HZ * np.dtype(np.float32).itemsize
        if result_bytes > max(EXPANSION_FREE_BYTES, limits.max_expansion * self._size):
            ratio = f"{limits.max_expansion:.0f} to 1"
            raise AudioLimitError(f"{name}: {self._size} bytes decode to over {result_bytes:.0f}, more than {ratio}")

    def _flush(self) -> None:
        if not self._kind:
            return
        if rest := self._pending.read():
            self._resample(rest)
        self._resample(None)

    def _resample(self, block: av.AudioFrame | None) -> None:
        if block is not None:
            block.pts = None
        try:
            pieces = self._resampler.resample(block)
        except av.error.ArgumentError as error:
            raise AudioError(f"{self._name}: {self._kind} cannot be mixed down to mono at 16 kHz") from error
        for piece in pieces:
            self._samples.write((piece.to_ndarray() * np.float32(1 / 32768)).data)


def _check_complete(name: str, decoded_s: float, stated_s: float, packets: _Packets, *, may_be_empty: bool) -> None:
    bad, total = packets.bad, packets.total
    if bad > MAX_BAD_SHARE * total and (decoded_s == 0 or bad > 1):
        raise AudioError(f"{name}: broken or protected: {bad} of {total} packets cannot be decoded")
    if decoded_s == 0 and not may_be_empty:
        raise AudioError(f"{name}: {NOT_AUDIO.format('no samples in it')}")
    missing_s = stated_s - decoded_s
    if missing_s > 0.5 + min(MAX_MISSING_S, MAX_BAD_SHARE * stated_s):
        raise AudioError(f"{name}: truncated: {stated_s:.1f} s are declared, {decoded_s:.1f} s are there")
    if bad or missing_s > 0.5:
        logger.warning("%s: skipped %d broken packets of %d; %.1f s are missing", name, bad, total, max(0.0, missing_s))
