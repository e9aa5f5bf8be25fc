"""The stimulus inside the encoder: feature envelopes at 128 Hz, whatever the length of the audio.

    heard = listen(encoder, wave, "encoder.layers.3")    # frames and when they are
    source = FeatureEnvelopes([heard], dictionary.features, chosen, pieces)
    source.signals(slice(0, 64))                         # per piece: float64 [sample, 64], 1 to 8 Hz, variance 1

Audio longer than 30 s goes through the encoder in windows that overlap by 2 s, and the frames of the last and first
second are taken from the window in which they lie further inside. A cubic spline brings 50 frames a second to 128 Hz
at the times that the frames are centred on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import fft, interpolate, signal, sparse

from steer_asr.audio import SAMPLE_RATE_HZ
from steer_asr.sae import SaeFeatures
from steer_asr_training.analysis.activations import Sparse, encode_sparse
from steer_asr_training.analysis.inputs import FRAME_S
from steer_asr_training.analysis.labels import WindowLabels
from steer_asr_training.analysis.quality import Moments, Reconstruction, random_dictionary
from steer_asr_training.eeg.signals import RATE_HZ, EegError, band_passed, resampled, standardised
from steer_asr_training.encoders import AudioEncoder
from steer_asr_training.windows import WINDOW_S

CONTEXT_S = 1.0
FIRST_FRAME_S = {"waveform": 0.0125}
"""Centre of the first frame: HuBERT's hears samples 0 to 400, Whisper's is centred on the start."""
MIN_FIRING = 0.001
"""A feature takes part that fires on at least this share of the frames."""


@dataclass(frozen=True, eq=False)
class Heard:
    """One audio file inside the encoder."""

    frames: np.ndarray
    """float16 [frame, d_in]"""
    time_s: np.ndarray
    """float64 [frame]: what each frame is centred on."""


@dataclass(frozen=True)
class Piece:
    """A stretch of one stimulus, in samples at 128 Hz: what counts as a trial."""

    stimulus: int
    start: int
    stop: int


def listen(encoder: AudioEncoder, wave: np.ndarray, point: str) -> Heard:
    """`wave`, float32 at 16 kHz of any length, at a hook point. Raises `EegError` for less than a second."""
    duration_s = len(wave) / SAMPLE_RATE_HZ
    if duration_s < 1:
        raise EegError(f"a stimulus of {duration_s:.2f} s is too short")
    offset = FIRST_FRAME_S.get(encoder.front_end, 0.0)
    frames, times = [], []
    start_s, kept_from = 0.0, 0.0
    while True:
        first = round(start_s * SAMPLE_RATE_HZ)
        last = start_s + WINDOW_S >= duration_s
        [window] = encoder.capture([wave[first : first + round(WINDOW_S * SAMPLE_RATE_HZ)]], [point])
        x = window.activations[point][: window.n_real_frames]
        at = start_s + offset + FRAME_S * np.arange(len(x))
        until = np.inf if last else start_s + WINDOW_S - CONTEXT_S
        kept = (at >= kept_from - 1e-9) & (at < until - 1e-9)
        frames.append(x[kept].astype(np.float16))
        times.append(at[kept])
        if last:
            return Heard(np.concatenate(frames), np.concatenate(times))
        start_s, kept_from = start_s + WINDOW_S - 2 * CONTEXT_S, until


def envelope(z: np.ndarray, time_s: np.ndarray, n_samples: int) -> np.ndarray:
    """Activations, [frame, feature], as float64 [n_samples, feature] at 128 Hz: 1 to 8 Hz, mean 0, variance 1."""
    at = np.clip(np.arange(n_samples) / RATE_HZ, time_s[0], time_s[-1])
    dense = interpolate.CubicSpline(time_s, np.asarray(z, np.float64), axis=0)(at)
    return standardised(band_passed(dense, RATE_HZ))


def acoustic_envelope(wave: np.ndarray, n_samples: int) -> np.ndarray:
    """The baseline of the field, Hilbert envelope of the broadband sound: float64 [n_samples, 1], filtered alike."""
    padded = fft.next_fast_len(len(wave))
    magnitude = np.abs(signal.hilbert(wave, padded))[: len(wave)]
    slow = resampled(magnitude, SAMPLE_RATE_HZ)[:n_samples, None]
    slow = np.pad(slow, ((0, n_samples - len(slow)), (0, 0)), mode="edge")
    return standardised(band_passed(slow, RATE_HZ))


def choose_features(activations: Sequence[Sparse], n: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """(at most `n` features, drawn at random among those that fire often enough, in order; how many do)."""
    n_frames = sum(z.shape[0] for z in activations)
    fired = sum(np.bincount(z.indices, minlength=z.shape[1]) for z in activations)
    alive = np.flatnonzero(np.asarray(fired) >= MIN_FIRING * n_frames)
    chosen = alive if len(alive) <= n else np.sort(rng.choice(alive, n, replace=False))
    return chosen, len(alive)


def encode_all(features: SaeFeatures, heard: Sequence[Heard]) -> list[Sparse]:
    """Sparse activations, [frame, feature], of every stimulus."""
    return [encode_sparse(features, one.frames.astype(np.float32)) for one in heard]


class FeatureEnvelopes:
    """Envelopes of chosen features, made when asked for: thousands of them do not fit into memory."""

    def __init__(
        self, activations: Sequence[Sparse], heard: Sequence[Heard], chosen: np.ndarray, pieces: Sequence[Piece]
    ) -> None:
        self._columns = [sparse.csc_array(z)[:, chosen] for z in activations]
        self._times = [one.time_s for one in heard]
        self.pieces = pieces
        self.n_features = len(chosen)

    def signals(self, columns: slice) -> list[np.ndarray]:
        whole = {}
        for stimulus in {piece.stimulus for piece in self.pieces}:
            n_samples = max(piece.stop for piece in self.pieces if piece.stimulus == stimulus)
            z = self._columns[stimulus][:, columns].toarray()
            whole[stimulus] = envelope(z, self._times[stimulus], n_samples)
        return [whole[piece.stimulus][piece.start : piece.stop] for piece in self.pieces]


class _HeardWindows:
    """The stimuli as windows of an analysis."""

    def __init__(self, heard: Sequence[Heard]) -> None:
        self._heard = heard
        self.labels: Sequence[WindowLabels] = ()

    def __len__(self) -> int:
        return len(self._heard)

    def frames(self, i: int) -> np.ndarray:
        return self._heard[i].frames.astype(np.float32)

    def describe(self, i: int) -> str:
        return f"stimulus {i}"


def random_features(
    heard: Sequence[Heard], activations: Sequence[Sparse], features: SaeFeatures, rng: np.random.Generator
) -> SaeFeatures:
    """A dictionary that has learned nothing: random directions that fire as often as `features` (see docs/eeg.md)."""
    seen = Reconstruction(Moments(features.d_in), fired=sum(z.nnz for z in activations))
    for one in heard:
        seen.moments.add(one.frames.astype(np.float32))
    return random_dictionary(_HeardWindows(heard), features.W_dec.shape, seen, rng)
