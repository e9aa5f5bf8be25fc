"""The whole analysis: pairs of EEG and audio, one dictionary per layer, one report.

    material = gather(config, pairs)
    report = study(config, material, dictionaries, encoder)
    report["layers"][0]["sae"]["significant"]

Per layer: the features of the SAE, those of a random SAE, and the SAE's features with the EEG of another stimulus,
where nothing should be found; once: the acoustic envelope. Holm-Bonferroni runs over the features of one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from steer_asr._progress import Progress
from steer_asr.audio import SAMPLE_RATE_HZ, decode_audio
from steer_asr.errors import HookPointError, PackMismatchError, SteerOptionError, unknown_name
from steer_asr_training.analysis.inputs import Dictionary
from steer_asr_training.eeg.envelopes import (
    FeatureEnvelopes,
    Heard,
    Piece,
    acoustic_envelope,
    choose_features,
    encode_all,
    listen,
    random_features,
)
from steer_asr_training.eeg.nulls import NullConfig, Signals, Source, Tested, holm, score_features
from steer_asr_training.eeg.pairs import Pair
from steer_asr_training.eeg.recordings import Trial, channel_indices, prepared, read_recording
from steer_asr_training.eeg.signals import RATE_HZ, EegError
from steer_asr_training.eeg.trf import Fits, Listener, TrfConfig, check_trials, one_blas_thread, response_function
from steer_asr_training.encoders import AudioEncoder

N_SHOWN = 8
"""Features per layer whose response function the report holds."""


@dataclass(frozen=True)
class StudyConfig:
    """Choices of a study; the defaults are AudioSAE's where it states them."""

    trf: TrfConfig = field(default_factory=TrfConfig)
    null: NullConfig = field(default_factory=NullConfig)
    channels: tuple[str, ...] = ("Pz",)
    """Scores are averaged over them; ("all",) takes every channel."""
    reference: str = "mastoids"
    n_features: int = 1000
    """Per layer, drawn at random among those that fire."""
    split_s: float | None = None
    """Cut every trial into pieces of this length; each is then a trial."""
    tolerance_s: float = 5.0
    """How far EEG and audio may differ in length before they are taken for a wrong pair."""

    def __post_init__(self) -> None:
        if self.n_features < 1 or self.tolerance_s < 0 or not self.channels:
            raise SteerOptionError("give at least one feature, one channel, and a tolerance of 0 s or more")
        if self.split_s is not None and self.split_s < 4 * self.trf.lags_s[1]:
            raise SteerOptionError(
                f"pieces of {self.split_s:g} s are too short for lags up to {self.trf.lags_s[1]:g} s"
            )


@dataclass(frozen=True, eq=False)
class Material:
    """EEG and audio, cut to the same lengths."""

    audio: list[Path]
    waves: list[np.ndarray]
    """float32 at 16 kHz, one per audio file."""
    pieces: list[Piece]
    """Trials of the stimuli; a listener's `stimuli` are indices into these."""
    listeners: list[Listener]
    channels: tuple[str, ...]
    bad: list[dict[str, Any]]
    """Channels that were found bad, by recording."""

    def duration_s(self, pair: Pair) -> float:
        return len(self.waves[self.audio.index(pair.audio)]) / SAMPLE_RATE_HZ

    def pieces_of(self, pair: Pair) -> list[tuple[int, Piece]]:
        """Index and place of every piece of a pair's audio."""
        return [(i, piece) for i, piece in enumerate(self.pieces) if self.audio[piece.stimulus] == pair.audio]


@dataclass(frozen=True, eq=False)
class Studied:
    """What came out."""

    report: dict[str, Any]
    """JSON values; see docs/eeg.md."""
    best: list[list[np.ndarray]]
    """Per layer, the signals of the feature with the highest score: float [sample] per piece."""


def gather(config: StudyConfig, pairs: Sequence[Pair]) -> Material:
    """Reads all recordings and audio.

    Raises `EegError` for recordings that cannot be used, differ from their audio in length or from each other in
    channels, or are too few; `AudioError` for audio; `SteerOptionError` for channels that are not there.
    """
    if not pairs:
        raise EegError("no trials: there is nothing to compare")
    audio = sorted({pair.audio for pair in pairs})
    waves = [decode_audio(path) for path in audio]
    stimuli = [audio.index(pair.audio) for pair in pairs]
    trials: list[Trial] = []
    with Progress(total=len(pairs), unit="trial", label="read EEG") as progress:
        for pair, stimulus in zip(pairs, stimuli, strict=True):
            trials.append(read_trial(config, pair, len(waves[stimulus]) / SAMPLE_RATE_HZ))
            progress.advance()
    good = _good_channels(pairs, trials)
    lengths = [len(wave) * RATE_HZ // SAMPLE_RATE_HZ for wave in waves]
    for stimulus, trial in zip(stimuli, trials, strict=True):
        lengths[stimulus] = min(lengths[stimulus], len(trial.eeg))
    pieces = _pieces(lengths, config.split_s)
    by_subject: dict[str, tuple[list[np.ndarray], list[int]]] = {}
    for pair, stimulus, trial in zip(pairs, stimuli, trials, strict=True):
        eegs, heard = by_subject.setdefault(pair.subject, ([], []))
        for i, piece in enumerate(pieces):
            if piece.stimulus == stimulus:
                eegs.append(trial.eeg[piece.start : piece.stop, good])
                heard.append(i)
    listeners = [Listener(name, *found) for name, found in by_subject.items()]
    for listener in listeners:
        check_trials(config.trf, listener)
    bad = [
        {"eeg": str(pair.eeg), "subject": pair.subject, "channels": dict(trial.bad)}
        for pair, trial in zip(pairs, trials, strict=True)
        if trial.bad
    ]
    return Material(audio, waves, pieces, listeners, tuple(trials[0].channels[i] for i in good), bad)


def read_trial(config: StudyConfig, pair: Pair, audio_s: float) -> Trial:
    """The EEG of one pair, the chosen channels of it. Raises `EegError` where it is not as long as the audio."""
    recording = read_recording(pair.eeg, pair.rate_hz)
    trial = prepared(recording, reference=config.reference, start_s=pair.start_s, duration_s=audio_s)
    apart = len(trial.eeg) / RATE_HZ - audio_s
    if abs(apart) > config.tolerance_s:
        raise EegError(
            f"{pair.eeg}: {len(trial.eeg) / RATE_HZ:.1f} s of EEG for {audio_s:.1f} s of {pair.audio.name}; are they a "
            "pair? State start_s where the recording holds more, or allow more with --tolerance"
        )
    if config.channels == ("all",):
        return trial
    at = channel_indices(trial.channels, config.channels, str(pair.eeg))
    return Trial(trial.eeg[:, at], tuple(trial.channels[i] for i in at), trial.bad)


def _good_channels(pairs: Sequence[Pair], trials: Sequence[Trial]) -> list[int]:
    """Channels that are good in every trial: a score has to mean the same for all."""
    channels = trials[0].channels
    for pair, trial in zip(pairs, trials, strict=True):
        if trial.channels != channels:
            raise EegError(f"{pair.eeg}: has other channels than {pairs[0].eeg}; name those that all share")
    good = [i for i, name in enumerate(channels) if not any(name in trial.bad for trial in trials)]
    if not good:
        pair, why = next(
            (pair, trial.bad[channels[0]])
            for pair, trial in zip(pairs, trials, strict=True)
            if channels[0] in trial.bad
        )
        raise EegError(f"{pair.eeg}: channel {channels[0]} is bad ({why}), and no other is left")
    return good


def _pieces(lengths: Sequence[int], split_s: float | None) -> list[Piece]:
    """What is left over at the end of a stimulus, shorter than a piece, is not used."""
    if split_s is None:
        return [Piece(stimulus, 0, n) for stimulus, n in enumerate(lengths)]
    step = round(split_s * RATE_HZ)
    return [
        Piece(stimulus, start, start + step)
        for stimulus, n in enumerate(lengths)
        for start in range(0, n - step + 1, step)
    ]


def study(
    config: StudyConfig, material: Material, dictionaries: Sequence[Dictionary], encoder: AudioEncoder
) -> Studied:
    """Tests every dictionary's features.

    Raises `PackMismatchError` for a dictionary of another model or width, `HookPointError` for a point that the encoder
    lacks, and what `score_features` raises.
    """
    for dictionary in dictionaries:
        _check(dictionary, encoder)
        config.null.draws_for(min(config.n_features, dictionary.features.n_features))
    acoustic = _acoustic(material)
    with_envelope = score_features(config.trf, config.null, material.listeners, acoustic, label="acoustic envelope")
    layers = [_layer(config, material, dictionary, encoder) for dictionary in dictionaries]
    report = {
        "model": encoder.name,
        "listeners": [{"name": one.name, "trials": len(one.eeg)} for one in material.listeners],
        "stimuli": [str(path) for path in material.audio],
        "minutes": sum(sum(one.n_samples) for one in material.listeners) / RATE_HZ / 60,
        "channels": list(material.channels),
        "reference": config.reference,
        "lags_s": list(config.trf.lags_s),
        "lambdas": list(config.trf.lambdas),
        "alpha": config.null.alpha,
        "seed": config.null.seed,
        "bad_channels": material.bad,
        "acoustic_envelope": _row(config, with_envelope, [0])
        | {"response_functions": _functions(config, material, acoustic, with_envelope, [0], [0])},
        "layers": [layer for layer, _ in layers],
    }
    return Studied(report, [best for _, best in layers])


def _acoustic(material: Material) -> Signals:
    ends = [max(p.stop for p in material.pieces if p.stimulus == s) for s in range(len(material.waves))]
    whole = [acoustic_envelope(wave, end) for wave, end in zip(material.waves, ends, strict=True)]
    return Signals([whole[piece.stimulus][piece.start : piece.stop] for piece in material.pieces])


def _layer(
    config: StudyConfig, material: Material, dictionary: Dictionary, encoder: AudioEncoder
) -> tuple[dict[str, Any], list[np.ndarray]]:
    """One dictionary, its random control and its wrong pairing; and the signals of its best feature."""
    heard = _heard(material, dictionary, encoder)
    rng = np.random.default_rng(config.null.seed)
    activations = encode_all(dictionary.features, heard)
    chosen, n_alive = choose_features(activations, config.n_features, rng)
    if not len(chosen):
        raise EegError(f"no feature of {dictionary.name} fires on 0.1 % of these stimuli")
    source = FeatureEnvelopes(activations, heard, chosen, material.pieces)
    tested = score_features(config.trf, config.null, material.listeners, source, label=dictionary.hook_point)
    ids = [dictionary.ids[i] for i in chosen]
    row = _row(config, tested, ids)
    shown = [int(i) for i in np.argsort(-tested.r, kind="stable")[:N_SHOWN]]
    row["response_functions"] = _functions(config, material, source, tested, shown, [ids[i] for i in shown])
    wrong = _wrong_pairing(config, material, source, dictionary.hook_point)
    if wrong is not None:
        for feature, also in zip(row["features"], wrong.pop("features"), strict=True):
            feature["p_holm_wrong_pairing"] = also["p_holm"]
        row["significant_with_wrong_pairing_too"] = sum(
            max(one["p_holm"], one["p_holm_wrong_pairing"]) < config.null.alpha for one in row["features"]
        )
    at_random = encode_all(random_features(heard, activations, dictionary.features, rng), heard)
    picked, n_random = choose_features(at_random, len(chosen), rng)
    random = None
    if len(picked):
        envelopes = FeatureEnvelopes(at_random, heard, picked, material.pieces)
        label = f"random SAE {dictionary.hook_point}"
        random = _row(
            config, score_features(config.trf, config.null, material.listeners, envelopes, label=label), picked
        )
    report = {
        "dictionary": dictionary.name,
        "hook_point": dictionary.hook_point,
        "features_that_fire": n_alive,
        "random_features_that_fire": n_random,
        "sae": row,
        "random_sae": random,
        "wrong_pairing": wrong,
    }
    return report, [x[:, 0] for x in source.signals(slice(shown[0], shown[0] + 1))]


def _heard(material: Material, dictionary: Dictionary, encoder: AudioEncoder) -> list[Heard]:
    heard: list[Heard] = []
    with Progress(total=len(material.waves), unit="stimulus", label=f"listen {dictionary.hook_point}") as progress:
        for wave in material.waves:
            heard.append(listen(encoder, wave, dictionary.hook_point))
            progress.advance()
    if (width := heard[0].frames.shape[1]) != dictionary.features.d_in:
        raise PackMismatchError(f"{dictionary.name} is {dictionary.features.d_in} wide, {encoder.name!r} is {width}")
    return heard


def _wrong_pairing(config: StudyConfig, material: Material, source: Source, label: str) -> dict[str, Any] | None:
    """The same features with the EEG of the next stimulus; None where there is no other, or a far shorter one.

    What is significant here is tied to the time since the window or the trial began, and not to the sound.
    """
    partners = _partners(material.pieces)
    sizes = [piece.stop - piece.start for piece in material.pieces]
    shorter = [min(sizes[i], sizes[partner]) for i, partner in enumerate(partners)]
    if len(partners) < 2 or min(shorter) < max(sizes) / 2:
        return None
    listeners = [
        Listener(one.name, [eeg[: shorter[s]] for eeg, s in zip(one.eeg, one.stimuli, strict=True)], one.stimuli)
        for one in material.listeners
    ]
    swapped = _Swapped(source, partners, shorter)
    tested = score_features(config.trf, config.null, listeners, swapped, label=f"wrong pairing {label}")
    return _row(config, tested, range(source.n_features))


def _partners(pieces: Sequence[Piece]) -> list[int]:
    """For every piece one of the next stimulus, from about the same time; of the same stimulus where it is alone."""
    stimuli = sorted({piece.stimulus for piece in pieces})
    if len(stimuli) == 1:
        return [(i + 1) % len(pieces) for i in range(len(pieces))]
    following = dict(zip(stimuli, [*stimuli[1:], stimuli[0]], strict=True))
    return [
        min(
            (j for j, other in enumerate(pieces) if other.stimulus == following[piece.stimulus]),
            key=lambda j, start=piece.start: abs(pieces[j].start - start),
        )
        for piece in pieces
    ]


class _Swapped:
    """For every piece the signals of its partner."""

    def __init__(self, source: Source, partners: Sequence[int], sizes: Sequence[int]) -> None:
        self.source, self.partners, self.sizes, self.n_features = source, partners, sizes, source.n_features

    def signals(self, columns: slice) -> list[np.ndarray]:
        found = self.source.signals(columns)
        return [found[partner][:size] for partner, size in zip(self.partners, self.sizes, strict=True)]


def _row(config: StudyConfig, tested: Tested, ids: Sequence[int] | np.ndarray) -> dict[str, Any]:
    """One row of the report's table, and its features."""
    adjusted = holm(tested.p)
    significant = adjusted < config.null.alpha
    p_t, adjusted_t = tested.p_t, None
    if p_t is not None:
        adjusted_t = holm(p_t)
    return {
        "features_tested": len(tested.r),
        "significant": int(significant.sum()),
        "significant_share": float(significant.mean()),
        "significant_by_t_test": None if adjusted_t is None else int((adjusted_t < config.null.alpha).sum()),
        "mean_r": float(tested.r.mean()),
        "max_r": float(tested.r.max()),
        "null_mean_r": float(tested.null_mean.mean()),
        "null_p95_r": float(tested.null_p95.mean()),
        "smallest_p": float(tested.p.min()),
        "features": [
            {
                "feature": int(ids[i]),
                "r": float(tested.r[i]),
                "r_by_listener": [float(r) for r in tested.by_listener[:, i]],
                "null_mean": float(tested.null_mean[i]),
                "null_sd": float(tested.null_sd[i]),
                "null_p95": float(tested.null_p95[i]),
                "p": float(tested.p[i]),
                "p_holm": float(adjusted[i]),
                "draws": int(tested.n_draws[i]),
                "p_t": None if p_t is None else float(p_t[i]),
                "p_t_holm": None if adjusted_t is None else float(adjusted_t[i]),
            }
            for i in range(len(tested.r))
        ],
    }


def _functions(
    config: StudyConfig, material: Material, source: Source, tested: Tested, shown: Sequence[int], ids: Sequence[int]
) -> list[dict[str, Any]]:
    """Response functions and scores per channel of some features, averaged over listeners."""
    functions = []
    for i, name in zip(shown, ids, strict=True):
        stimuli = [x[:, 0] for x in source.signals(slice(i, i + 1))]
        weights, by_channel = [], []
        lags = np.zeros(0)
        for listener in material.listeners:
            heard = [stimuli[s] for s in listener.stimuli]
            with one_blas_thread():
                fits = Fits(config.trf, listener, heard)
                by_channel.append(fits.scores()[0])
                lags, found = response_function(config.trf, listener, heard, fits.best_lambda())
            weights.append(found.mean(axis=1))
        mean = np.mean(weights, axis=0)
        functions.append(
            {
                "feature": int(name),
                "r": float(tested.r[i]),
                "lags_s": [float(lag) for lag in lags],
                "weights": [float(w) for w in mean],
                "peak_s": float(lags[int(np.abs(mean).argmax())]),
                "r_by_channel": [float(r) for r in np.mean(by_channel, axis=0)],
            }
        )
    return functions


def _check(dictionary: Dictionary, encoder: AudioEncoder) -> None:
    if dictionary.model_sha256 and dictionary.model_sha256 != encoder.sha256:
        raise PackMismatchError(
            f"{dictionary.name} belongs to a model with weights {dictionary.model_sha256[:12]}..., "
            f"{encoder.name!r} has {encoder.sha256[:12]}..."
        )
    if dictionary.hook_point not in encoder.hook_points():
        raise HookPointError(
            f"{encoder.name}: {unknown_name('hook point', dictionary.hook_point, encoder.hook_points())}"
        )
