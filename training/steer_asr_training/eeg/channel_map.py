"""Where on the head a feature's response is: its score at every channel.

A study keeps only the channels that it tests; for the map the recordings are read once more, a listener at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from steer_asr._progress import Progress
from steer_asr_training.eeg.pairs import Pair
from steer_asr_training.eeg.recordings import Trial
from steer_asr_training.eeg.study import Material, StudyConfig, read_trial
from steer_asr_training.eeg.trf import Fits, Listener, one_blas_thread


def channel_maps(
    config: StudyConfig, material: Material, pairs: Sequence[Pair], signals: Sequence[Sequence[np.ndarray]]
) -> list[dict[str, Any]]:
    """For each of `signals` (one feature each: float [sample] per piece) `channels` and `r`, a mean over listeners.

    A channel that is bad in one of a listener's trials has no part in that listener's score.
    """
    everywhere = replace(config, channels=("all",))
    scores: list[dict[str, list[float]]] = [{} for _ in signals]
    with one_blas_thread(), Progress(total=len(material.listeners), unit="listener", label="channel map") as progress:
        for one in material.listeners:
            mine = [pair for pair in pairs if pair.subject == one.name]
            trials = [read_trial(everywhere, pair, material.duration_s(pair)) for pair in mine]
            listener, channels = _listener(material, one.name, mine, trials)
            for feature, found in zip(signals, scores, strict=True):
                r = Fits(config.trf, listener, [feature[s] for s in listener.stimuli]).scores()[0]
                for name, value in zip(channels, r, strict=True):
                    found.setdefault(name, []).append(float(value))
            progress.advance()
    return [{"channels": list(found), "r": [float(np.mean(values)) for values in found.values()]} for found in scores]


def _listener(
    material: Material, name: str, pairs: Sequence[Pair], trials: Sequence[Trial]
) -> tuple[Listener, list[str]]:
    """The channels that all trials have, and that are good in all."""
    shared = [
        channel
        for channel in trials[0].channels
        if all(channel in trial.channels and channel not in trial.bad for trial in trials)
    ]
    eeg, stimuli = [], []
    for pair, trial in zip(pairs, trials, strict=True):
        at = [trial.channels.index(channel) for channel in shared]
        for i, piece in material.pieces_of(pair):
            eeg.append(trial.eeg[piece.start : piece.stop, at])
            stimuli.append(i)
    return Listener(name, eeg, stimuli), shared
