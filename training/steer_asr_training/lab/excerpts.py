"""Short pieces of audio around a feature's strongest moments: sound, mel spectrogram and activation.

    found = cut(windows, dictionary, wanted, folder, CutOptions())
    found[17][0].trace                   # float32 [frame]: activation of feature 17 in its first excerpt

Sound is written only of clips that may be passed on (`shippable` in the manifest, with a licence), unless asked for.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from steer_asr._progress import Progress
from steer_asr.audio import SAMPLE_RATE_HZ
from steer_asr.errors import AudioError, SteerOptionError
from steer_asr.manifest import Clip
from steer_asr_training.analysis.inputs import FRAME_S, Dictionary, StoredWindows
from steer_asr_training.analysis.labels import window_spec
from steer_asr_training.encoders import SAMPLES_PER_FRAME
from steer_asr_training.windows import render

MEL_BANDS = 80
MP3_BITS_PER_S = 32_000
QUIETEST_DB = -80.0
BRIGHTEST = 0.7
"""Of the colour map: the curve of the activation has to stand out from the loudest sound."""
MEDIA = "media"
"""Folder of sounds and spectrograms."""


@dataclass(frozen=True)
class CutOptions:
    """How excerpts are cut. Raises `SteerOptionError` for lengths that make no sense."""

    seconds: float = 3.0
    audio: bool = True
    all_audio: bool = False
    """Write sound of clips, too, that nothing says may be passed on: for your own eyes and ears."""

    def __post_init__(self) -> None:
        if not 0.2 <= self.seconds <= 30:
            raise SteerOptionError(f"{self.seconds:g} s: an excerpt lasts 0.2 to 30 seconds")


@dataclass(frozen=True, eq=False)
class Excerpt:
    """A feature in one window."""

    window: int
    start_s: float
    peak_s: float
    """When in the window it is strongest."""
    activation: float
    trace: np.ndarray
    """float32 [frame]: its activation on every frame of the excerpt."""
    mel: str | None
    """Name of the spectrogram's PNG, one pixel per frame; None without the audio."""
    sound: str | None
    """Name of the MP3."""
    silent_because: str
    """Why there is no sound; empty when there is."""
    origin: str
    labels: tuple[str, ...]
    credit: str
    """Source, file and licence of what is heard."""


def cut(
    windows: StoredWindows,
    dictionary: Dictionary,
    wanted: Mapping[int, Sequence[Mapping[str, Any]]],
    folder: Path,
    options: CutOptions,
) -> dict[int, list[Excerpt]]:
    """Excerpts by feature id; `wanted` are the rows `top` of a `features` report by feature id.

    Every window is read, rendered and shown to the dictionary once, however many features it is wanted for. Sounds and
    pictures land in `folder`/media; features that are strongest at the same moment share them.
    """
    column = {feature: j for j, feature in enumerate(dictionary.ids)}
    by_window: dict[int, list[tuple[int, int, Mapping[str, Any]]]] = {}
    for feature, tops in wanted.items():
        for rank, top in enumerate(tops):
            by_window.setdefault(top["window"], []).append((feature, rank, top))
    (folder / MEDIA).mkdir(parents=True, exist_ok=True)
    found: dict[int, dict[int, Excerpt]] = {feature: {} for feature in wanted}
    with Progress(total=len(by_window), unit="window", label="excerpts") as progress:
        for i, asked in sorted(by_window.items()):
            z = dictionary.features.encode(windows.frames(i))[:, [column[feature] for feature, _, _ in asked]]
            media = _Media(windows, i, folder / MEDIA, options)
            for k, (feature, rank, top) in enumerate(asked):
                found[feature][rank] = media.excerpt(z[:, k], top)
            progress.advance()
    return {feature: [ranked[rank] for rank in sorted(ranked)] for feature, ranked in found.items()}


class _Media:
    """The sounds and pictures of one window, each written once."""

    def __init__(self, windows: StoredWindows, i: int, folder: Path, options: CutOptions) -> None:
        self.i, self.folder, self.options = i, folder, options
        self.origin = windows.describe(i)
        self.credit, self.silent_because = credit(windows, i)
        if options.all_audio and windows.clips is not None:
            self.silent_because = ""
        if not options.audio:
            self.silent_because = "no sound was asked for"
        self.wave = wave_of(windows, i)
        if self.wave is None:
            self.silent_because = "the audio is not there any more"

    def excerpt(self, z: np.ndarray, top: Mapping[str, Any]) -> Excerpt:
        """`z` is float32 [frame], the feature's activation in the whole window."""
        first, n = span(top["time_s"], self.options.seconds, len(z))
        trace = z[first : first + n].astype(np.float32)
        stem = f"w{self.i:05d}-{first:04d}-{len(trace)}"
        return Excerpt(
            window=self.i,
            start_s=first * FRAME_S,
            peak_s=top["time_s"],
            activation=top["activation"],
            trace=trace,
            mel=self._mel(stem, first, len(trace)),
            sound=self._sound(stem, first, len(trace)),
            silent_because=self.silent_because,
            origin=self.origin,
            labels=tuple(top["labels"]),
            credit=self.credit,
        )

    def _piece(self, first: int, n: int) -> np.ndarray:
        assert self.wave is not None
        piece = self.wave[first * SAMPLES_PER_FRAME : (first + n) * SAMPLES_PER_FRAME]
        return np.pad(piece, (0, n * SAMPLES_PER_FRAME - len(piece)))

    def _mel(self, stem: str, first: int, n: int) -> str | None:
        if self.wave is None:
            return None
        name = f"{stem}.png"
        if not (self.folder / name).is_file():
            (self.folder / name).write_bytes(mel_png(self._piece(first, n)))
        return name

    def _sound(self, stem: str, first: int, n: int) -> str | None:
        if self.wave is None or self.silent_because:
            return None
        name = f"{stem}.mp3"
        if not (self.folder / name).is_file():
            (self.folder / name).write_bytes(mp3(self._piece(first, n)))
        return name


def span(time_s: float, seconds: float, n_frames: int) -> tuple[int, int]:
    """(first frame, number of frames) around a moment; within the `n_frames` of a window as far as that goes."""
    n = round(seconds / FRAME_S)
    return max(0, min(round(time_s / FRAME_S) - n // 2, n_frames - n)), n


def credit(windows: StoredWindows, i: int) -> tuple[str, str]:
    """(whom the sound is owed to, why it may not be passed on; "" when it may)."""
    window = windows.store.windows[i]
    if windows.clips is None:
        return "", "the manifests are gone or have changed, so nothing says what may be passed on"
    clips: list[Clip] = [windows.clips[c] for c in window.get("clips", ())]
    if not clips:
        return f"synthetic: {window.get('generator', '')}", ""
    credits = "; ".join(
        f"{clip.source}, {clip.audio_path.name}, {clip.licence or 'no licence stated'}" for clip in clips
    )
    kept = [clip for clip in clips if not (clip.shippable and clip.licence)]
    if kept:
        return credits, f"its licence does not say that it may be passed on ({kept[0].licence or 'none stated'})"
    return credits, ""


def mel_png(wave: np.ndarray) -> bytes:
    """The log-mel spectrogram of float32 [n_samples] as an 8-bit PNG: one pixel per 20 ms and mel band, low at the
    bottom."""
    from faster_whisper.feature_extractor import FeatureExtractor
    from matplotlib import colormaps
    from PIL import Image

    mel = FeatureExtractor(feature_size=MEL_BANDS)(wave.astype(np.float32), padding=0)
    n = max(1, len(wave) // SAMPLES_PER_FRAME)
    pairs = mel[:, : 2 * n].reshape(MEL_BANDS, -1, 2).max(axis=2)  # its frames last 10 ms
    low, high = float(pairs.max()) - 2.0, float(pairs.max())  # Whisper's own range: 8 dB of log10, divided by 4
    grey = np.clip((pairs - low) / max(1e-6, high - low), 0, 1)
    image = Image.fromarray((255 * grey[::-1]).astype(np.uint8))
    image.putpalette((255 * colormaps["magma"](np.linspace(0, BRIGHTEST, 256))[:, :3]).astype(np.uint8).tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def mp3(wave: np.ndarray) -> bytes:
    """float32 [n_samples] at 16 kHz as an MP3 of 32 kbit/s, which every browser plays from a file."""
    import av

    buffer = io.BytesIO()
    samples = (np.clip(wave, -1, 1) * 32767).astype(np.int16)
    with av.open(buffer, "w", format="mp3") as container:
        stream: Any = container.add_stream("libmp3lame", rate=SAMPLE_RATE_HZ, layout="mono")
        stream.bit_rate = MP3_BITS_PER_S
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16p", layout="mono")
        frame.sample_rate = SAMPLE_RATE_HZ
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return buffer.getvalue()


def wave_of(windows: StoredWindows, i: int) -> np.ndarray | None:
    """The sound of a window, float32 [n_samples] at 16 kHz, made again; None when it is not there any more."""
    if windows.clips is None:
        return None
    try:
        return render(window_spec(windows.store.windows[i]), windows.clips)
    except AudioError:
        return None
