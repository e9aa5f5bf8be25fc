"""What a gate's evidence at a single frame is worth: the probability that nobody speaks at that moment.

    calibration = moment_calibration(pack, clips, "base")       # (slope, offset), or None without aligned speech
    replace(pack.gate, moment_calibration=calibration)

The gate is fitted on windows, by their best moment, and so is its clip calibration. A word's softest frame and the
pause behind it are another matter, and need clips of which it is known when somebody speaks: aligned ones, or those
whose manifest says so. Platt scaling, as for clips; nothing that is edited depends on it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from steer_asr._progress import Progress
from steer_asr.audio import SAMPLE_RATE_HZ, decode_audio
from steer_asr.gate import Gate, moving_average, speech_at
from steer_asr.manifest import Clip
from steer_asr.pack import SteerPack
from steer_asr_training.analysis.alignments import read_alignment
from steer_asr_training.encoders import load_encoder
from steer_asr_training.gate_fit import platt
from steer_asr_training.windows import WINDOW_S

MAX_CLIPS = 40
"""Of speech, and as many of non-speech: spread over all there are."""
MIN_PAUSE_S = 0.3
"""Shorter silences between words are part of speaking."""
MARGIN_S = 0.1
"""Frames this near to where speech begins or ends do not count: aligners are no more exact than that."""


def moment_calibration(
    pack: SteerPack, clips: Sequence[Clip], model: str, max_clips: int = MAX_CLIPS
) -> tuple[float, float] | None:
    """(slope, offset) fitted on clips of speech with known times, and of non-speech; None where either lacks.

    Speech and non-speech frames weigh the same. Raises `ManifestError` for a broken alignment.
    """
    spoken = [clip for clip in clips if clip.kind == "speech" and (clip.alignment_path or clip.spans)]
    quiet = [clip for clip in clips if clip.kind == "nonspeech"]
    if pack.gate is None or not spoken or not quiet:
        return None
    encoder = load_encoder(model)
    chosen = [*_spread(spoken, max_clips), *_spread(quiet, max_clips)]
    evidence, truth = [], []
    with Progress(total=len(chosen), unit="clip", label="moments") as progress:
        for clip in chosen:
            wave = decode_audio(clip.audio_path)[: int(WINDOW_S * SAMPLE_RATE_HZ)]
            [window] = encoder.capture([wave], [pack.hook_point])
            z = pack.features.encode(window.activations[pack.hook_point])
            heard = evidence_of(pack.gate, z)[: window.n_real_frames]
            evidence.append(heard)
            truth.append(speech_at(spans_of(clip), len(heard), margin_s=MARGIN_S))
            progress.advance()
    return fit_moments(np.concatenate(evidence), np.concatenate(truth))


def fit_moments(evidence: np.ndarray, truth: np.ndarray) -> tuple[float, float] | None:
    """Platt scaling of `evidence` [frame] to `truth` [frame], 1 or 0, -1 unknown; None when all are of one sort."""
    known = truth >= 0
    evidence, spoken = evidence[known].astype(np.float64), truth[known].astype(int)
    share = spoken.mean() if len(spoken) else 0.0
    if not 0 < share < 1:
        return None
    return platt(evidence, spoken, np.where(spoken == 1, 0.5 / share, 0.5 / (1 - share)))


def evidence_of(gate: Gate, z: np.ndarray) -> np.ndarray:
    """The gate's smoothed evidence at each frame, for activations `z` [frame, n_features]."""
    return moving_average(z @ gate.coefficients + np.float32(gate.bias), gate.smooth_frames)


def spans_of(clip: Clip) -> list[tuple[float, float]]:
    """(start, end) in seconds of every stretch of speech; none for non-speech."""
    if clip.alignment_path is not None:
        return read_alignment(clip.alignment_path).speech(MIN_PAUSE_S)
    return [(span.start_s, span.end_s) for span in clip.spans]


def _spread(clips: Sequence[Clip], n: int) -> list[Clip]:
    n = min(n, len(clips))
    return [clips[i * len(clips) // n] for i in range(n)]
