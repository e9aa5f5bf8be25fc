"""How it sounds where a feature is strongest: loudness, brightness, noisiness, onsets and pitch of the top frames.

    sounds = acoustics_of_tops(windows, tops)
    sounds[40].words                    # ("loud", "bright")

A feature's top frames are compared with all frames of the windows that were listened to: "loud" is the median of the
top frames lying among the loudest fifth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from steer_asr._progress import Progress
from steer_asr.audio import SAMPLE_RATE_HZ, decode_audio
from steer_asr.errors import AudioError
from steer_asr_training.analysis.inputs import ManifestWindows, StoredWindows
from steer_asr_training.analysis.labels import window_spec
from steer_asr_training.encoders import SAMPLES_PER_FRAME
from steer_asr_training.windows import WINDOW_S, render

SPECTRUM_SAMPLES = 800
"""50 ms."""
ONSET_FRAMES = 5
"""An onset is a rise of the level over 100 ms."""
FLOOR = 1e-10
PITCH_HZ = (60.0, 500.0)
"""What counts as a pitch: voices, and low tones."""
PERIODIC, NEAR_HIGHEST = 0.6, 0.85
"""Autocorrelation that a pitch has to reach, as it is and as a share of the highest peak."""
EXTREME = 0.2
MEASURES = ("level_db", "centroid_hz", "flatness", "onset_db")
WORDS = {"level_db": ("quiet", "loud"), "centroid_hz": ("dark", "bright"), "flatness": ("tonal", "noisy")}


@dataclass(frozen=True)
class Acoustics:
    """Medians over a feature's top frames, in the units of `MEASURES`, and where they stand among all frames."""

    values: Mapping[str, float]
    ranks: Mapping[str, float]
    """Share of all frames listened to that lie below, in [0, 1]."""
    pitch_hz: float | None = None
    """Median over the top frames that have a pitch, when more than half of them do."""

    @property
    def words(self) -> tuple[str, ...]:
        """What is extreme about it, in plain words."""
        found = [
            pair[int(self.ranks[name] > 0.5)]
            for name, pair in WORDS.items()
            if not EXTREME <= self.ranks[name] <= 1 - EXTREME
        ]
        found += ["at onsets"] if self.ranks["onset_db"] > 1 - EXTREME else []
        return (*found, *((f"pitch {self.pitch_hz:.0f} Hz",) if self.pitch_hz else ()))


def measure(wave: np.ndarray, n_frames: int) -> np.ndarray:
    """float64 [n_frames, 4] of `MEASURES` every 20 ms, from 50 ms around each frame's centre. `wave` is at 16 kHz.

    Level in dB of full scale (mean square), centroid of the power spectrum in Hz, spectral flatness in [0, 1]
    (geometric over arithmetic mean of the power spectrum), rise of the level against 100 ms before in dB.
    """
    pieces = _pieces(wave, n_frames)
    power = np.abs(np.fft.rfft(pieces * np.hanning(SPECTRUM_SAMPLES), axis=1)) ** 2 + FLOOR
    hz = np.fft.rfftfreq(SPECTRUM_SAMPLES, 1 / SAMPLE_RATE_HZ)
    level = 10 * np.log10(np.square(pieces, dtype=np.float64).mean(axis=1) + FLOOR)
    centroid = power @ hz / power.sum(axis=1)
    flatness = np.exp(np.log(power).mean(axis=1)) / power.mean(axis=1)
    earlier = np.concatenate([np.repeat(level[:1], min(ONSET_FRAMES, n_frames)), level[:-ONSET_FRAMES]])
    return np.stack([level, centroid, flatness, level - earlier], axis=1)


def pitch(wave: np.ndarray, n_frames: int) -> np.ndarray:
    """Fundamental frequency in Hz around each frame's centre: float64 [n_frames], NaN without one from 60 to 500 Hz.

    The first peak of the autocorrelation, normalised for its shrinking overlap, that comes near its highest one: the
    highest alone is as often a multiple of the period.
    """
    pieces = _pieces(wave, n_frames).astype(np.float64)
    pieces -= pieces.mean(axis=1, keepdims=True)
    longest = int(SAMPLE_RATE_HZ / PITCH_HZ[0]) + 1
    size = 2 * SPECTRUM_SAMPLES
    correlation = np.fft.irfft(np.abs(np.fft.rfft(pieces, size, axis=1)) ** 2, size, axis=1)[:, : longest + 1]
    overlap = SPECTRUM_SAMPLES - np.arange(longest + 1)
    correlation = correlation / overlap / np.maximum(correlation[:, :1] / SPECTRUM_SAMPLES, FLOOR)
    middle = correlation[:, 1:-1]
    peaks = np.where((middle > correlation[:, :-2]) & (middle >= correlation[:, 2:]), middle, 0.0)
    near = peaks >= np.maximum(NEAR_HIGHEST * peaks.max(axis=1, keepdims=True), PERIODIC)
    lag = near.argmax(axis=1) + 1
    hz = SAMPLE_RATE_HZ / lag
    return np.where(near.any(axis=1) & (hz <= PITCH_HZ[1]), hz, np.nan)


def _pieces(wave: np.ndarray, n_frames: int) -> np.ndarray:
    """50 ms around each frame's centre, silence beyond the ends: float32 [n_frames, SPECTRUM_SAMPLES]."""
    before = (SPECTRUM_SAMPLES - SAMPLES_PER_FRAME) // 2
    length = (n_frames - 1) * SAMPLES_PER_FRAME + SPECTRUM_SAMPLES
    padded = np.zeros(length, np.float32)
    taken = wave[: length - before]
    padded[before : before + len(taken)] = taken
    return sliding_window_view(padded, SPECTRUM_SAMPLES)[::SAMPLES_PER_FRAME]


def acoustics_of_tops(
    windows: StoredWindows | ManifestWindows, tops: Sequence[Sequence[tuple[int, int]]]
) -> list[Acoustics | None] | None:
    """For each feature, from its top (window, frame) pairs; None where it has none, and at all without the audio.

    Every window among the tops is made again once. Raises nothing for audio that has gone: it is left out.
    """
    if windows.clips is None:
        return None
    wanted = sorted({window for pairs in tops for window, _ in pairs})
    measured: dict[int, np.ndarray] = {}
    pitches: dict[int, np.ndarray] = {}
    with Progress(total=len(wanted), unit="window", label="listen") as progress:
        for i in wanted:
            if (wave := _wave(windows, i)) is not None:
                n_frames = max(1, -(-len(wave) // SAMPLES_PER_FRAME))
                measured[i], pitches[i] = measure(wave, n_frames), pitch(wave, n_frames)[:, None]
            progress.advance()
    if not measured:
        return None
    everything = np.sort(np.concatenate(list(measured.values())), axis=0)
    return [_summary(_at(measured, pairs, len(MEASURES)), _at(pitches, pairs, 1), everything) for pairs in tops]


def _at(measured: Mapping[int, np.ndarray], pairs: Sequence[tuple[int, int]], width: int) -> np.ndarray:
    rows = [measured[i][min(frame, len(measured[i]) - 1)] for i, frame in pairs if i in measured]
    return np.array(rows).reshape(-1, width)


def _summary(rows: np.ndarray, pitches: np.ndarray, everything: np.ndarray) -> Acoustics | None:
    if not len(rows):
        return None
    median = np.median(rows, axis=0)
    ranks = {
        name: float(
            (np.searchsorted(everything[:, c], median[c]) + np.searchsorted(everything[:, c], median[c], "right"))
            / (2 * len(everything))
        )
        for c, name in enumerate(MEASURES)
    }
    pitched = pitches[~np.isnan(pitches)]
    pitch_hz = float(np.median(pitched)) if 2 * len(pitched) > len(rows) else None
    return Acoustics({name: float(median[c]) for c, name in enumerate(MEASURES)}, ranks, pitch_hz)


def _wave(windows: StoredWindows | ManifestWindows, i: int) -> np.ndarray | None:
    assert windows.clips is not None
    try:
        if isinstance(windows, ManifestWindows):
            return decode_audio(windows.clips[i].audio_path)[: int(WINDOW_S * SAMPLE_RATE_HZ)]
        return render(window_spec(windows.store.windows[i]), windows.clips)
    except AudioError:
        return None
