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
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import av.error
import numpy as np
from av.container import InputContainer

from steer_asr.errors import AudioError, AudioLimitError

logger = logging.getLogger(__name__)

SAMPLE_RATE_HZ = 16_000
FORMATS = (
    "wav,w64,aiff,au,caf,flac,ogg,mp3,aac,mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,asf,avi,flv,mpegts,mpeg,amr,amrnb,"
    "amrwb,ac3,eac3,wv,tta,ape,gsm,voc"
)
"""Demuxers that hold audio in themselves."""
EXACT_DURATION = {"wav", "w64", "aiff", "flac", "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}
"""Formats whose header states the duration; elsewhere FFmpeg estimates it."""
PCM_FORMATS = {"wav", "w64", "aiff", "au"}
"""Formats whose header can truly say "no samples"; elsewhere that means nothing was recognised."""
PROTECTED_TAGS = ("enca", "drms")
"""MP4 sample entries that mean encrypted audio; what decodes without the key is noise."""
EXPANSION_FREE_BYTES = 64 * 2**20
MAX_BAD_SHARE = 0.05
BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class AudioLimits:
    """What one recording may cost. Exceeding a limit raises `AudioLimitError` while decoding, not after."""

    max_seconds: float = 4 * 3600.0
    max_input_bytes: int = 4 * 2**30
    max_decoded_bytes: int = 16 * 2**30
    """In the file's own rate, channels and sample format."""
    max_expansion: float = 200.0
    """Decoded over input bytes; looked at once 64 MiB are decoded, so that short silence may compress as it likes."""


def decode_audio(source: str | os.PathLike[str] | bytes | BinaryIO, *, limits: AudioLimits | None = None) -> np.ndarray:
    """Decodes one recording to float32 [n_samples], mono, 16 kHz, in [-1, 1].

    `source` is a path, the file's bytes, or a seekable binary file object; several channels are mixed down. Sample
    values are those of faster-whisper (through 16-bit integers). Up to 5 % of broken packets are skipped with a
    warning. A valid WAV (or AIFF, AU) without samples gives an empty array.

    Raises `AudioError` when it is missing, empty, not audio, truncated, broken, protected, or has no audio track, and
    `AudioLimitError` when it exceeds a limit.
    """
    limits = limits or AudioLimits()
    name = _name(source)
    with _opened(source, name) as file:
        size = _size(file, name, limits)
        _refuse_cut_off(file, size, name)
        try:
            options = {"format_whitelist": FORMATS, "protocol_whitelist": "none"}
            counted = _mp3_counts_its_frames(file)
            with av.open(file, mode="r", options=options, metadata_errors="ignore") as container:
                exact = counted or container.format.name in EXACT_DURATION
                return _decode(container, name, size, limits, exact_duration=exact)
        except av.error.FFmpegError as error:
            raise AudioError(
                f"{name}: not audio that can be read ({error.strerror}); WAV, FLAC, Ogg, MP3, M4A and WebM work"
            ) from error


def _name(source: object) -> str:
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    return str(getattr(source, "name", None) or "audio")


def _opened(source: str | os.PathLike[str] | bytes | BinaryIO, name: str) -> BinaryIO:
    if isinstance(source, bytes | bytearray | memoryview):
        return io.BytesIO(source)
    if not isinstance(source, str | os.PathLike):
        return _Borrowed(source)  # pyright: ignore[reportReturnType]
    path = Path(source)
    if path.is_dir():
        raise AudioError(f"{name}: is a folder; give a file, or a pattern such as '{name}/*.wav'")
    try:
        return _Borrowed(path.open("rb"), close=True)  # pyright: ignore[reportReturnType]
    except (OSError, ValueError) as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise AudioError(f"{name}: {reason}") from error


class _Borrowed:
    """A file object read from where it stands as if that were its start, and without a name.

    FFmpeg would take a name's ending for a hint, and believe anything that ends in ".flac".
    """

    def __init__(self, file: BinaryIO, *, close: bool = False) -> None:
        self._file = file if file.seekable() else io.BytesIO(file.read())
        self._start = self._file.tell()
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


def _size(file: BinaryIO, name: str, limits: AudioLimits) -> int:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if size == 0:
        raise AudioError(f"{name}: the file is empty (0 bytes)")
    if size > limits.max_input_bytes:
        raise AudioLimitError(f"{name}: {size} bytes, the limit is {limits.max_input_bytes}")
    return size


def _refuse_cut_off(file: BinaryIO, size: int, name: str) -> None:
    """Finds truncation in the two formats that FFmpeg reads to the cut without a word: WAV and Ogg."""
    head = file.read(44)
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        declared = int.from_bytes(head[4:8], "little") + 8
        streamed = declared <= 44 or declared > 2**31  # written to a pipe: the length was not known
        if not streamed and size < declared - 1:
            raise AudioError(f"{name}: truncated: the header says {declared} bytes, there are {size}")
    elif head[:4] == b"OggS":
        file.seek(max(0, size - 2**17))
        tail = file.read()
        last = tail.rfind(b"OggS")
        page = tail[last:] if last >= 0 else b""
        segments = page[26] if len(page) > 26 else 0
        length = 27 + segments + sum(page[27 : 27 + segments])
        if len(page) < max(27, length) or not page[5] & 0x04:
            raise AudioError(f"{name}: truncated: the Ogg stream has no last page")
    file.seek(0)


def _mp3_counts_its_frames(file: BinaryIO) -> bool:
    """Whether an MP3 starts with the Xing or Info frame that states its length; else FFmpeg guesses it."""
    head = file.read(10)
    start = 0
    if head[:3] == b"ID3" and len(head) == 10:
        start = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
    file.seek(start)
    first = file.read(200)
    file.seek(0)
    return first[:1] == b"\xff" and (b"Xing" in first or b"Info" in first)


def _decode(
    container: InputContainer, name: str, size: int, limits: AudioLimits, *, exact_duration: bool
) -> np.ndarray:
    stream = _audio_stream(container, name)
    declared_s = _declared_seconds(container, stream) if exact_duration else None
    if declared_s is not None and declared_s > limits.max_seconds:
        raise AudioLimitError(f"{name}: {declared_s:.0f} s long, the limit is {limits.max_seconds:.0f} s")
    pieces, bad, packets = io.BytesIO(), 0, 0
    decoded_bytes = 0
    resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE_HZ)
    for frames in _frames(container, stream):
        packets += 1
        if frames is None:
            bad += 1
            continue
        for frame in frames:
            decoded_bytes += frame.samples * len(frame.layout.channels) * frame.format.bytes
            frame.pts = None  # gaps in time stamps must not become silence or errors in the resampler
            for resampled in resampler.resample(frame):
                pieces.write(resampled.to_ndarray().tobytes())
        _check_limits(name, pieces.tell(), decoded_bytes, size, limits)
    if decoded_bytes:
        for resampled in resampler.resample(None):
            pieces.write(resampled.to_ndarray().tobytes())
    _check_complete(
        name,
        pieces.tell() / 2 / SAMPLE_RATE_HZ,
        declared_s,
        bad,
        packets,
        may_be_empty=container.format.name in PCM_FORMATS,
    )
    return np.frombuffer(pieces.getbuffer(), dtype=np.int16).astype(np.float32) / 32768.0


def _audio_stream(container: InputContainer, name: str) -> av.AudioStream:
    if not container.streams.audio:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise AudioError(f"{name}: has no audio track (it holds {kinds})")
    stream = container.streams.audio[0]
    if stream.codec_context is None or stream.codec_context.codec_tag in PROTECTED_TAGS:
        raise AudioError(f"{name}: its audio cannot be decoded: protected (DRM) or of an unknown kind")
    stream.codec_context.thread_type = "NONE"  # one recording, one thread: servers decode many at a time
    return stream


def _declared_seconds(container: InputContainer, stream: av.AudioStream) -> float | None:
    """Duration the header states."""
    if stream.duration and stream.time_base:
        return float(stream.duration * Fraction(stream.time_base))
    return container.duration / av.time_base if container.duration else None


def _frames(container: InputContainer, stream: av.AudioStream) -> Iterator[list[av.AudioFrame] | None]:
    """Decoded frames packet by packet; None for a packet that is broken."""
    for packet in container.demux(stream):
        try:
            yield packet.decode()
        except av.error.InvalidDataError:
            yield None
        except av.error.EOFError:
            return


def _check_limits(name: str, pcm_bytes: int, decoded_bytes: int, size: int, limits: AudioLimits) -> None:
    if pcm_bytes > limits.max_seconds * SAMPLE_RATE_HZ * 2:
        raise AudioLimitError(f"{name}: longer than the limit of {limits.max_seconds:.0f} s")
    if decoded_bytes > limits.max_decoded_bytes:
        raise AudioLimitError(f"{name}: decodes to more than the limit of {limits.max_decoded_bytes} bytes")
    if decoded_bytes > EXPANSION_FREE_BYTES and decoded_bytes > limits.max_expansion * size:
        raise AudioLimitError(
            f"{name}: {size} bytes decode to over {decoded_bytes}, more than {limits.max_expansion:.0f} to 1"
        )


def _check_complete(
    name: str, decoded_s: float, declared_s: float | None, bad: int, packets: int, *, may_be_empty: bool
) -> None:
    if packets and bad > MAX_BAD_SHARE * packets and (decoded_s == 0 or bad > 1):
        raise AudioError(f"{name}: broken or protected: {bad} of {packets} packets cannot be decoded")
    if decoded_s == 0 and not may_be_empty:
        raise AudioError(f"{name}: not audio that can be read (no samples in it)")
    if declared_s is not None and decoded_s < declared_s * (1 - MAX_BAD_SHARE) - 0.5:
        raise AudioError(f"{name}: truncated: {declared_s:.1f} s are declared, {decoded_s:.1f} s are there")
    if bad:
        logger.warning("%s: skipped %d broken packets of %d", name, bad, packets)
