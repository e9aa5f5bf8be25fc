"""The gate: how sure the features are that nobody speaks, per frame and for the whole window.

    reading = gate(z, audio_frames)         # z float32 [frame, n_features], padding behind audio_frames
    reading.weights                         # float32 [frame]: how much of the edit each frame gets
    reading.nobody_speaks                   # calibrated probability for the window

A frame's evidence is a weighted sum of its feature activations, averaged over a few frames. Words protect their
surroundings: a frame is edited only as far as no frame within `reach_frames` sounds like speech, and padding only as
far as no frame of the window does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from steer_asr.errors import PackError

WINDOW_FRAMES = 1500
FRAME_S = 0.02
ROUNDING_S = 1e-6
"""Multiples of 20 ms are not exact."""
NEGLIGIBLE_WEIGHT = 1e-3
"""Weights below this become exactly 0, so that frames of clear speech stay bit-identical."""


class GateReading(NamedTuple):
    """What the gate says about one window."""

    weights: np.ndarray
    """float32 [frame], in [0, 1]; 0 leaves the frame as it is."""
    nobody_speaks: float
    """Probability that nobody speaks in the window."""
    frames: np.ndarray
    """float32 [frame]: probability that nobody speaks at that moment, whatever is said before and after it."""


@dataclass(frozen=True, eq=False)
class Gate:
    """Parameters of the gate; all log-odds are in favour of speech."""

    coefficients: np.ndarray
    """float32 [n_features]: log-odds of speech per unit of feature activation."""
    bias: float
    """Log-odds of a frame on which no feature fires."""
    smooth_frames: int
    """Width of the moving average over frame evidence, in 20-ms frames; odd."""
    reach_frames: int
    """Speech evidence counts for frames this far on either side."""
    frame_calibration: tuple[float, float]
    """(slope, offset): a frame's weight is sigmoid(-(slope * evidence + offset))."""
    clip_calibration: tuple[float, float]
    """(slope, offset): nobody_speaks is sigmoid(-(slope * highest evidence + offset))."""
    moment_calibration: tuple[float, float] | None = None
    """(slope, offset): the probability that nobody speaks at a frame is sigmoid(-(slope * its evidence + offset)).
    None: the clip's, which is fitted to best moments only. It is told and decides nothing: edits go by
    `frame_calibration`."""

    def __post_init__(self) -> None:
        calibrations = (*self.frame_calibration, *self.clip_calibration, *(self.moment_calibration or ()))
        numbers = [*self.coefficients, self.bias, *calibrations]
        if not np.isfinite(numbers).all():
            raise PackError("gate: a parameter is not finite")
        if not 1 <= self.smooth_frames <= WINDOW_FRAMES or self.smooth_frames % 2 == 0 or self.reach_frames < 0:
            raise PackError(f"gate: smooth_frames must be odd and 1 to {WINDOW_FRAMES}, reach_frames 0 or more")

    def __call__(self, z: np.ndarray, audio_frames: int | None = None) -> GateReading:
        """Reads one window: `z` is float32 [frame, n_features], of which the first `audio_frames` hear audio.

        The rest is padding; None: there is none. Padding is edited only as far as the whole window is, so that beside
        speech it stays what the decoder knows.
        """
        evidence = moving_average(z @ self.coefficients + np.float32(self.bias), self.smooth_frames)
        nearby = sliding_max(evidence, self.reach_frames)
        nearby[audio_frames if audio_frames is not None else len(nearby) :] = evidence.max()
        weights = _no(nearby, self.frame_calibration)
        weights[weights < NEGLIGIBLE_WEIGHT] = 0.0
        nobody_speaks = float(_no(evidence.max(keepdims=True), self.clip_calibration)[0])
        return GateReading(weights, nobody_speaks, _no(evidence, self.moment_calibration or self.clip_calibration))

    def to_json(self) -> dict[str, Any]:
        told = {} if self.moment_calibration is None else {"moment_calibration": list(self.moment_calibration)}
        return {
            "coefficients": [round(float(c), 6) for c in self.coefficients],
            "bias": self.bias,
            "smooth_frames": self.smooth_frames,
            "reach_frames": self.reach_frames,
            "frame_calibration": list(self.frame_calibration),
            "clip_calibration": list(self.clip_calibration),
            **told,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], n_features: int) -> Gate:
        """Raises `PackError` when a key is missing, has the wrong type, or the coefficients do not fit the SAE."""
        try:
            gate = cls(
                coefficients=np.asarray(data["coefficients"], dtype=np.float32),
                bias=float(data["bias"]),
                smooth_frames=int(data["smooth_frames"]),
                reach_frames=int(data["reach_frames"]),
                frame_calibration=_pair(data["frame_calibration"]),
                clip_calibration=_pair(data["clip_calibration"]),
                moment_calibration=_pair(data["moment_calibration"]) if "moment_calibration" in data else None,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise PackError(f"gate: broken ({type(error).__name__}: {error})") from error
        if gate.coefficients.shape != (n_features,):
            raise PackError(f"gate: {gate.coefficients.size} coefficients for {n_features} features")
        return gate


def speech_at(
    spans: Sequence[tuple[float, float]], n_frames: int, *, start_s: float = 0.0, margin_s: float = 0.0
) -> np.ndarray:
    """Whether somebody speaks at each frame of a window that begins at `start_s`: int8 [frame], 1 or 0.

    `spans` are (start, end) in seconds. -1 is not known: less than `margin_s` from where a span begins or ends. Frame i
    is centred on 20 ms times i.
    """
    times = start_s + FRAME_S * np.arange(n_frames)
    truth = np.zeros(n_frames, np.int8)
    for start, end in spans:
        truth[(times >= start - ROUNDING_S) & (times <= end + ROUNDING_S)] = 1
    for start, end in spans:
        for edge in (start, end):
            truth[np.abs(times - edge) < margin_s - ROUNDING_S] = -1
    return truth


def moving_average(evidence: np.ndarray, width: int) -> np.ndarray:
    """Mean over `width` frames around each frame, over fewer at the edges: float32 [frame]."""
    if width == 1:
        return evidence
    kernel = np.ones(width, np.float32)
    sums = np.convolve(evidence, kernel, mode="same")
    return (sums / np.convolve(np.ones_like(evidence), kernel, mode="same")).astype(np.float32)


def sliding_max(evidence: np.ndarray, reach: int) -> np.ndarray:
    """Largest value within `reach` frames on either side of each frame: float32 [frame]."""
    if reach >= len(evidence):
        return np.full_like(evidence, evidence.max())
    padded = np.pad(evidence, reach, constant_values=-np.inf)
    return np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1).max(axis=-1)


def _no(log_odds: np.ndarray, calibration: tuple[float, float]) -> np.ndarray:
    slope, offset = calibration
    return (1 / (1 + np.exp(np.clip(slope * log_odds + offset, -60, 60)))).astype(np.float32)


def _pair(value: Any) -> tuple[float, float]:
    slope, offset = value
    return float(slope), float(offset)
