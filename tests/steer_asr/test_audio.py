"""Every way audio can come in, and every way it can be wrong. Files are built here, with PyAV and by hand."""

from __future__ import annotations

import io
import subprocess
import sys
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from faster_whisper.audio import decode_audio as theirs

from steer_asr.audio import AudioLimits, decode_audio
from steer_asr.errors import AudioError, AudioLimitError, SteerOptionError
from tests.helpers import PEAK_MEMORY


def pcm(seconds: float = 2.0, rate: int = 16000, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Noise, int16 [n, channels]."""
    noise = np.random.default_rng(seed).standard_normal((round(seconds * rate), channels)) * 3000
    return noise.astype("<i2")


def wav(samples: np.ndarray, rate: int = 16000) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return buffer.getvalue()


def encoded(
    container: str, codec: str, seconds: float = 2.0, rate: int = 48000, samples: np.ndarray | None = None
) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate)
        stream.layout = "mono"  # pyright: ignore[reportAttributeAccessIssue]
        frame = av.AudioFrame.from_ndarray((pcm(seconds, rate) if samples is None else samples).T.copy(), "s16", "mono")
        frame.sample_rate = rate
        resampler = av.AudioResampler(format=stream.format.name, layout="mono", rate=rate)  # pyright: ignore
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            output.mux(stream.encode(piece))  # pyright: ignore
        output.mux(stream.encode(None))  # pyright: ignore
    return buffer.getvalue()


COMPRESSED = [("flac", "flac"), ("ogg", "libopus"), ("mp3", "libmp3lame"), ("mp4", "aac"), ("webm", "libopus")]


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (16000, 1), (22050, 2), (44100, 2), (48000, 6), (192000, 2)])
def test_rates_and_channels(rate: int, channels: int) -> None:
    data = wav(pcm(1.0, rate, channels), rate)
    wave_ = decode_audio(data)
    assert wave_.dtype == np.float32
    assert wave_.ndim == 1
    assert len(wave_) == pytest.approx(16000, abs=40)
    np.testing.assert_array_equal(wave_, theirs(io.BytesIO(data)))


@pytest.mark.parametrize("codec", ["pcm_u8", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le", "pcm_mulaw"])
def test_sample_formats(codec: str) -> None:
    data = encoded("wav", codec, 1.0, 16000)
    reference = pcm(1.0, 16000)[:, 0] / 32768
    assert np.abs(decode_audio(data) - reference).max() < (0.01 if codec in ("pcm_u8", "pcm_mulaw") else 1e-4)


@pytest.mark.parametrize(("container", "codec"), COMPRESSED)
def test_containers(container: str, codec: str) -> None:
    data = encoded(container, codec)
    np.testing.assert_array_equal(decode_audio(data), theirs(io.BytesIO(data)))


def test_paths_bytes_and_file_objects_give_the_same(tmp_path: Path) -> None:
    data = wav(pcm())
    (tmp_path / "a.wav").write_bytes(data)
    expected = decode_audio(data)
    np.testing.assert_array_equal(decode_audio(tmp_path / "a.wav"), expected)
    np.testing.assert_array_equal(decode_audio(str(tmp_path / "a.wav")), expected)
    file = io.BytesIO(b"header" + data)
    file.seek(6)
    np.testing.assert_array_equal(decode_audio(file), expected)
    assert not file.closed


def test_what_can_only_be_read_once_is_read_once_and_no_further_than_the_limit() -> None:
    data = wav(pcm())
    np.testing.assert_array_equal(decode_audio(Pipe(data)), decode_audio(data))
    endless = Pipe(data + bytes(50_000_000))
    with pytest.raises(AudioLimitError, match="the limit is 2000000"):
        decode_audio(endless, limits=AudioLimits(max_input_bytes=2_000_000))
    assert endless.tell() < 4_000_000


class Pipe(io.BytesIO):
    """Bytes that cannot be gone back in, as from a pipe or a socket."""

    def seekable(self) -> bool:
        return False


def test_what_is_no_recording_at_all_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav(pcm()))
    with pytest.raises(AudioError, match="int is not a recording"):
        decode_audio(5)  # pyright: ignore[reportArgumentType]
    with (tmp_path / "a.wav").open("r", encoding="latin-1") as text, pytest.raises(AudioError, match="mode 'rb'"):
        decode_audio(text)  # pyright: ignore[reportArgumentType]
    closed = io.BytesIO(b"")
    closed.close()
    with pytest.raises(AudioError, match="cannot be read"):
        decode_audio(closed)


def test_files_that_were_joined_keep_all_of_their_sound() -> None:
    """Two MP3s of different rates one behind the other, as some recorders write them."""
    first, second = encoded("mp3", "libmp3lame", 2.0, 48000), encoded("mp3", "libmp3lame", 3.0, 16000)
    cut = second[second.index(b"\xff\xf3", 200) :] if b"\xff\xf3" in second[200:] else second
    assert len(decode_audio(first + cut)) / 16000 == pytest.approx(5.0, abs=0.3)


@pytest.mark.parametrize("value", [0, -1, float("nan"), "600", None])
def test_a_limit_is_a_positive_number(value: object) -> None:
    with pytest.raises(SteerOptionError, match="max_seconds"):
        AudioLimits(max_seconds=value)  # pyright: ignore[reportArgumentType]


def test_infinity_lifts_a_limit() -> None:
    everything = AudioLimits(*[float("inf")] * 4)
    assert len(decode_audio(wav(pcm(2.0)), limits=everything)) == 32000


def test_a_valid_file_without_samples_is_an_empty_array() -> None:
    assert decode_audio(wav(pcm(0))).shape == (0,)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"just some text\n" * 100, "not audio"),
        (np.random.default_rng(0).bytes(20000), "not audio"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n", "not audio"),
        (b"ffconcat version 1.0\nfile '/etc/hostname'\n", "not audio"),
        (wav(pcm())[:5000], "truncated"),
    ],
    ids=["empty", "text", "noise", "playlist", "concat", "cut wav"],
)
def test_what_is_not_audio(data: bytes, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        decode_audio(data)


@pytest.mark.parametrize(("container", "codec"), COMPRESSED)
def test_truncated_files(container: str, codec: str) -> None:
    data = encoded(container, codec, seconds=6.0)
    with pytest.raises(AudioError):
        decode_audio(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("container", "codec"),
    [("aiff", "pcm_s16be"), ("au", "pcm_s16be"), ("w64", "pcm_s16le"), ("caf", "pcm_s16le"), ("matroska", "pcm_s16le"),
     ("mov", "pcm_s16le"), ("tta", "tta"), ("wv", "wavpack")],
)  # fmt: skip
def test_other_containers_whole_and_cut(container: str, codec: str) -> None:
    data = encoded(container, codec, seconds=6.0)
    np.testing.assert_array_equal(decode_audio(data), theirs(io.BytesIO(data)))
    if container != "caf":  # written to a pipe, it states no length
        with pytest.raises(AudioError):
            decode_audio(data[: len(data) // 2])


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_a_wave_file_may_end_where_its_header_does_not_say(share: float) -> None:
    """What programs write that stream: the length of the header is not known, and what is there is all there is."""
    data = bytearray(wav(pcm(4.0)))
    data[4:8], data[40:44] = b"\xff\xff\xff\xff", b"\xff\xff\xff\xff"
    n = 44 + 2 * round(share * 64000)
    assert len(decode_audio(bytes(data[:n]))) == round(share * 64000)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="no such file"):
        decode_audio(tmp_path / "nope.wav")
    with pytest.raises(AudioError, match="is a folder"):
        decode_audio(tmp_path)
    with pytest.raises(AudioError, match="no such file"):
        decode_audio("http://127.0.0.1:9/a.wav")


def test_video_without_sound() -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as output:
        stream = output.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"  # pyright: ignore
        for _ in range(5):
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            output.mux(stream.encode(frame))  # pyright: ignore
        output.mux(stream.encode(None))  # pyright: ignore
    with pytest.raises(AudioError, match="no audio track"):
        decode_audio(buffer.getvalue())


def test_protected_audio() -> None:
    """An MP4 whose sample entry says "encrypted audio", as DRM does."""
    data = encoded("mp4", "aac").replace(b"mp4a", b"enca")
    with pytest.raises(AudioError, match="protected"):
        decode_audio(data)


def test_limits_are_checked_while_decoding() -> None:
    with pytest.raises(AudioLimitError, match="limit of? ?i?s? ?1 s|limit is 1 s"):
        decode_audio(wav(pcm(2.0)), limits=AudioLimits(max_seconds=1))
    with pytest.raises(AudioLimitError, match="2 s long, the limit is 1 s"):
        decode_audio(encoded("ogg", "libopus"), limits=AudioLimits(max_seconds=1))
    with pytest.raises(AudioLimitError, match="longer than the limit"):  # ADTS states no length
        decode_audio(encoded("adts", "aac"), limits=AudioLimits(max_seconds=1))
    with pytest.raises(AudioLimitError, match="bytes"):
        decode_audio(wav(pcm(2.0)), limits=AudioLimits(max_input_bytes=1000))
    with pytest.raises(AudioLimitError, match="decodes to more"):
        decode_audio(wav(pcm(2.0)), limits=AudioLimits(max_decoded_bytes=10_000))


def test_a_forged_header_does_not_get_around_the_limit() -> None:
    data = bytearray(wav(pcm(10.0)))
    data[24:28] = (192_000).to_bytes(4, "little")  # claims to play twelve times as fast
    with pytest.raises(AudioLimitError):
        decode_audio(bytes(data), limits=AudioLimits(max_seconds=0.5))


@pytest.mark.parametrize("tag", [0x00FF, 0x8001, 0xF1AC, 0xFFFD])
def test_format_tags_that_are_no_text(tag: int) -> None:
    """PyAV spells tags as text and fails on these; what they stand for is FFmpeg's business, and noise is not it."""
    data = bytearray(wav(pcm(1.0)))
    data[20:22] = tag.to_bytes(2, "little")
    with pytest.raises(AudioError):
        decode_audio(bytes(data))


def test_a_bomb_is_refused_in_bounded_memory(tmp_path: Path) -> None:
    """An hour of FLAC silence at 48 kHz: small on disk, over 200 to 1 when decoded."""
    bomb = encoded("flac", "flac", samples=np.zeros((48000 * 3600, 1), np.int16))
    (tmp_path / "bomb.flac").write_bytes(bomb)
    assert 48000 * 3600 * 2 / len(bomb) > 200
    code = (
        PEAK_MEMORY
        + "import sys; from steer_asr.audio import decode_audio; from steer_asr.errors import AudioLimitError\n"
        "before = peak_kb()\n"
        "try: decode_audio(sys.argv[1])\n"
        "except AudioLimitError as error: print('to 1' in str(error))\n"
        "print(peak_kb() - before)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "bomb.flac")], capture_output=True, text=True, check=True
    ).stdout.split()
    assert found[0] == "True"
    assert int(found[1]) < 150_000, "kilobytes"


def test_a_few_broken_packets_are_skipped_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    data = bytearray(encoded("mp3", "libmp3lame", seconds=8.0))
    for i in range(len(data) // 2, len(data) // 2 + 200):
        data[i] ^= 0x5A
    wave_ = decode_audio(bytes(data))
    assert len(wave_) > 7.5 * 16000
    assert "skipped" in caplog.text
