"""What the page draws: the spectrogram, and when the features fired. Worked out in the replica, sent as bytes.

picture = Picture(mel=mel_levels(heard.mel), features=feature_tracks(tap.outputs, report, pack, duration_s))
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from steer_asr.pack import SteerPack, load_pack
from steer_asr.steering import FRAME_S, steer_frames
from steer_asr.transcription import SteerReport, WindowReport

MAX_COLUMNS = 2000
"""Of the spectrogram: as many as a wide screen has."""
MEL_FRAME_S = 0.01
DARKEST, BRIGHTEST = 2.0, 99.8
"""Percentiles of the spectrogram between which its levels lie."""
TRACKS = 6


@dataclass(frozen=True, eq=False)
class FeatureTrack:
    """One feature over the whole recording."""

    feature: int
    """Id in the full SAE dictionary."""
    peak: float
    """Highest activation."""
    levels: np.ndarray
    """uint8 [frame], 20 ms a frame; 255 is the peak."""


@dataclass(frozen=True, eq=False)
class Picture:
    """What was drawn in one job: a stock one draws the spectrogram, a steered one the features."""

    mel: np.ndarray | None = None
    """uint8 [n_mels, column]"""
    column_s: float = 0.0
    """Length of a column."""
    features: tuple[FeatureTrack, ...] = ()
    """Strongest first."""
    encoded_windows: int = 0
    """How many windows the encoder had to run for."""


def draw_mel(mel: np.ndarray, duration_s: float) -> Picture:
    """The spectrogram of a recording from float32 [n_mels, mel frame], in at most `MAX_COLUMNS` columns."""
    shown = mel[:, : max(1, round(duration_s / MEL_FRAME_S))]
    step = -(-shown.shape[1] // MAX_COLUMNS)
    starts = np.arange(0, shown.shape[1], step)
    means = np.add.reduceat(shown, starts, axis=1) / np.diff(np.append(starts, shown.shape[1]))
    low, high = np.percentile(means, (DARKEST, BRIGHTEST))
    levels = (means - low) / max(high - low, 1e-6)
    return Picture(mel=_as_bytes(levels), column_s=step * MEL_FRAME_S)


def draw_features(
    outputs: Sequence[np.ndarray], windows: Sequence[WindowReport], pack: SteerPack, duration_s: float
) -> Picture:
    """The `TRACKS` features that a full edit moves most, then those that fire most. The same whatever the strength.

    `outputs` are the plain encoder outputs of `windows`, [1, frame, d_model]. Where windows overlap the later counts.
    """
    shape = frames_in(duration_s), len(pack.feature_ids)
    activations, moved = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for output, window in zip(outputs, windows, strict=True):
        report = steer_frames(output[0].astype(np.float32), pack, 1.0)
        place, n = _place(window, shape[0])
        activations[place], moved[place] = report.activations[:n], report.contribution[:n]
    fired = activations.sum(axis=0)
    by_both = np.lexsort((-fired, -moved.sum(axis=0) * (fired > 0)))
    ranked = [i for i in by_both[:TRACKS] if fired[i] > 0]
    return Picture(features=tuple(_track(pack.feature_ids[i], activations[:, i]) for i in ranked))


def edit_weights(report: SteerReport, duration_s: float) -> np.ndarray:
    """uint8 [frame]: edit weight times strength along the recording; 255 is the whole edit."""
    weights = np.zeros(frames_in(duration_s), np.float32)
    for window in report.windows:
        place, n = _place(window, len(weights))
        weights[place] = window.frame_weights[:n]
    return _as_bytes(weights)


def frames_in(duration_s: float) -> int:
    """20-ms frames of a recording."""
    return max(1, round(duration_s / FRAME_S))


@functools.lru_cache(maxsize=8)
def pack_of(source: str, model_sha256: str, model_name: str) -> SteerPack:
    """A pack by its name or folder, which the engine has loaded and checked before."""
    return load_pack(source, model_sha256=model_sha256, model_name=model_name)


def _place(window: WindowReport, n_frames: int) -> tuple[slice, int]:
    """Where a window's real frames belong in a recording of `n_frames`, and how many of them."""
    start = round(window.start_s / FRAME_S)
    n = max(0, min(len(window.frame_weights), n_frames - start))
    return slice(start, start + n), n


def _track(feature: int, activation: np.ndarray) -> FeatureTrack:
    peak = float(activation.max())
    return FeatureTrack(feature, peak, _as_bytes(activation / peak))


def _as_bytes(levels: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(levels, 0, 1) * 255).astype(np.uint8)
