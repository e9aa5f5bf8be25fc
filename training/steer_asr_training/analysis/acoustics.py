"""How it sounds where a feature is strongest: loudness, brightness, noisiness and onsets of the top frames.

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
EXTREME = 0.2
MEASURES = ("level_db", "centroid_hz", "flatness", "onset_db")
WORDS = {"level_db": ("quiet", "loud"), "centroid_hz": ("dark", "bright"), "flatness": ("tonal", "noisy")}


@dataclass(frozen=True)
class Acoustics:
    """Medians over a feature's top frames, in the units of `MEASURES`, and where they stand among all frames."""

    values: Mapping[str, float]
    ranks: Mapping[str, float]
    """Share of all frames listened to that lie below, in [0, 1]."""

    @property
    def words(self) -> tuple[str, ...]:
        """What is extreme about it, in plain words."""
        found = [
            pair[int(self.ranks[name] > 0.5)]
            for name, pair in WORDS.items()
            if not EXTREME <= self.ranks[name] <= 1 - EXTREME
        ]
        return (*found, *(("at onsets",) if self.ranks["onset_db"] > 1 - EXTREME else ()))


def measure(wave: np.ndarray, n_frames: int) -> np.ndarray:
    """float64 [n_frames, 4] of `MEASURES` every 20 ms, from 50 ms around each frame's centre. `wave` is at 16 kHz.

    Level in dB of full scale (mean square), centroid of the power spectrum in Hz, spectral flatness in [0, 1]
    (geometric over arithmetic mean of the power spectrum), rise of the level against 100 ms before in dB.
    """
    before = (SPECTRUM_SAMPLES - SAMPLES_PER_FRAME) // 2
    length = (n_frames - 1) * SAMPLES_PER_FRAME + SPECTRUM_SAMPLES
    padded = np.zeros(length, np.float32)
    taken = wave[: length - before]
    padded[before : before + len(taken)] = taken
    pieces = sliding_window_view(padded, SPECTRUM_SAMPLES)[::SAMPLES_PER_FRAME]
    power = np.abs(np.fft.rfft(pieces * np.hanning(SPECTRUM_SAMPLES), axis=1)) ** 2 + FLOOR
    hz = np.fft.rfftfreq(SPECTRUM_SAMPLES, 1 / SAMPLE_RATE_HZ)
    level = 10 * np.log10(np.square(pieces, dtype=np.float64).mean(axis=1) + FLOOR)
    centroid = power @ hz / power.sum(axis=1)
    flatness = np.exp(np.log(power).mean(axis=1)) / power.mean(axis=1)
    earlier = np.concatenate([np.repeat(level[:1], min(ONSET_FRAMES, n_frames)), level[:-ONSET_FRAMES]])
    return np.stack([level, centroid, flatness, level - earlier], axis=1)


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
    with Progress(total=len(wanted), unit="window", label="listen") as progress:
        for i in wanted:
            if (wave := _wave(windows, i)) is not None:
                measured[i] = measure(wave, max(1, -(-len(wave) // SAMPLES_PER_FRAME)))
            progress.advance()
    if not measured:
        return None
    everything = np.sort(np.concatenate(list(measured.values())), axis=0)
    return [_summary(_at(measured, pairs), everything) for pairs in tops]


def _at(measured: Mapping[int, np.ndarray], pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    rows = [measured[i][min(frame, len(measured[i]) - 1)] for i, frame in pairs if i in measured]
    return np.array(rows).reshape(-1, len(MEASURES))


def _summary(rows: np.ndarray, everything: np.ndarray) -> Acoustics | None:
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
    return Acoustics({name: float(median[c]) for c, name in enumerate(MEASURES)}, ranks)


def _wave(windows: StoredWindows | ManifestWindows, i: int) -> np.ndarray | None:
    assert windows.clips is not None
    try:
        if isinstance(windows, ManifestWindows):
            return decode_audio(windows.clips[i].audio_path)[: int(WINDOW_S * SAMPLE_RATE_HZ)]
        return render(window_spec(windows.store.windows[i]), windows.clips)
    except AudioError:
        return None
