"""What `steer=` means, and the edit itself.

    parse_steer(0.5)                        # Steering(pack="default", strength=0.5)
    parse_steer("my-pack@0.8")              # Steering(pack="my-pack", strength=0.8)
    parse_steer("max_wer=0.05")             # Steering(max_wer_increase=0.05): the pack's curve says how strong
    report = steer_frames(x, pack, 1.0)     # edits one window's encoder output in place, says what it did

`steer=` means the same in Python, on the command line and over HTTP.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from steer_asr.calibration import strength_within
from steer_asr.errors import SteerOptionError
from steer_asr.gate import FRAME_S
from steer_asr.pack import SteerPack
from steer_asr.transcription import FeatureActivity, WindowReport

TOP_FEATURES = 5
SILENT_WEIGHT = 0.5
"""A window in which every frame gets this much of the edit is one where nobody speaks, as far as decoding goes."""
HOW = (
    "use None or 'off', True or 'default', a strength from 0 to 1, a pack name or path, 'PACK@STRENGTH', "
    "{'pack': ..., 'strength': ...}, 'max_wer=0.05', {'max_wer_increase': 0.05}, or a Steering"
)
MAX_WER = ("max_wer=", "max_wer_increase=")
OPTIONS = ("pack", "strength", "max_wer_increase", "steer_language_detection", "early_exit")


@dataclass(frozen=True)
class Steering:
    """One steering request."""

    pack: str | SteerPack = "default"
    """A pack's name or path, a loaded pack, or "default": the one made for the model."""
    strength: float = 1.0
    """0 is the identity (bit-exact), 1 the calibrated default."""
    steer_language_detection: bool = False
    """Let language detection see the steered encoder output. Normally it sees the plain one."""
    allow_overdrive: bool = False
    """Permit a strength above 1, which no pack is calibrated for."""
    early_exit: bool = False
    """Do not decode windows in which the gate gives every frame at least half of the edit: the answer is empty, and
    such a window costs its encoder pass only. Needs a strength of at least 0.5, and a pack with a gate."""
    max_wer_increase: float | None = None
    """Instead of a strength: the most that the word error rate may rise, 0.05 being five points. The largest strength
    that keeps to it on the pack's calibration curve is used (see `steer_asr.calibration`)."""

    def __post_init__(self) -> None:
        if isinstance(self.strength, bool) or not isinstance(self.strength, int | float):
            raise SteerOptionError(f"strength {self.strength!r} is not a number; {HOW}")
        for flag in ("steer_language_detection", "allow_overdrive", "early_exit"):
            if not isinstance(getattr(self, flag), bool):
                raise SteerOptionError(f"{flag} {getattr(self, flag)!r} is not true or false; {HOW}")
        if not 0.0 <= self.strength <= 1.0 and not (self.allow_overdrive and 1.0 < self.strength < float("inf")):
            raise SteerOptionError(
                f"strength {self.strength} is outside 0 to 1 (0 is the identity, 1 the default)"
                + (". Above 1 is uncalibrated; Steering(strength=..., allow_overdrive=True) permits it"
                   if self.strength > 1 else "")
            )  # fmt: skip
        if self.early_exit and self.strength < SILENT_WEIGHT:
            raise SteerOptionError(
                f"early_exit needs windows that get at least half of the edit; a strength of {self.strength} gives less"
            )
        if self.max_wer_increase is not None:
            self._check_max_wer_increase(self.max_wer_increase)

    def _check_max_wer_increase(self, bound: float) -> None:
        if isinstance(bound, bool) or not isinstance(bound, int | float) or not 0.0 <= bound <= 1.0:
            raise SteerOptionError(f"max_wer_increase {bound!r} is no share from 0 to 1; 0.05 is five points of WER")
        if self.strength != 1.0:
            raise SteerOptionError(
                f"strength {self.strength} and max_wer_increase {bound} both say how strong; give one of them"
            )

    def for_pack(self, pack: SteerPack) -> Steering:
        """The same with its strength settled: `max_wer_increase` is read off the curve of `pack`.

        Raises `SteerOptionError` when the pack has no curve, when the bound leaves no strength, or when it leaves less
        than `early_exit` needs.
        """
        if self.max_wer_increase is None:
            return self
        strength = strength_within(pack.calibration, self.max_wer_increase, pack.name)
        return replace(self, strength=strength, max_wer_increase=None)


def parse_steer(value: object) -> Steering | None:
    """The `Steering` that a value of `steer=` asks for, or `None` for no steering.

    Raises `SteerOptionError` for anything it does not know. A strength written as text ("0.5") is a strength.
    """
    if value is None or value is False:
        return None
    if value is True:
        return Steering()
    if isinstance(value, Steering):
        return value
    if isinstance(value, SteerPack):
        return Steering(pack=value)
    if isinstance(value, int | float):
        return Steering(strength=float(value))
    if isinstance(value, Mapping):
        return _parse_mapping(value)
    if isinstance(value, os.PathLike):
        return Steering(pack=os.fspath(value))
    if isinstance(value, str):
        return _parse_text(value.strip())
    raise SteerOptionError(f"steer={value!r} is not understood; {HOW}")


def _parse_mapping(value: Mapping[Any, Any]) -> Steering:
    if unknown := sorted(set(map(str, value)) - set(OPTIONS)):
        raise SteerOptionError(f"steer has no option {unknown[0]!r}; {HOW}")
    if not isinstance(value.get("pack", "default"), str | SteerPack):
        raise SteerOptionError(f"pack {value['pack']!r} is not a name; {HOW}")
    if value.get("max_wer_increase") is not None and "strength" in value:
        raise SteerOptionError("strength and max_wer_increase both say how strong; give one of them")
    return Steering(**dict(value))


def _parse_text(text: str) -> Steering | None:
    if text.lower() in ("off", "none", "false"):
        return None
    if text.lower() in ("on", "true", "default"):
        return Steering()
    if (strength := _number(text)) is not None:
        return Steering(strength=strength)
    name, at, tail = text.rpartition("@")
    if tail.startswith(MAX_WER) and bool(name) == bool(at):
        if (bound := _number(tail.partition("=")[2])) is None:
            raise SteerOptionError(f"steer={text!r}: write the bound as a share, for example max_wer=0.05")
        return Steering(pack=name or "default", max_wer_increase=bound)
    if at and (strength := _number(tail)) is not None and name:
        return Steering(pack=name, strength=strength)
    if not text or at and not tail:
        raise SteerOptionError(f"steer={text!r} is not understood; {HOW}")
    return Steering(pack=text)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


class FrameReport(NamedTuple):
    """What `steer_frames` did to one window."""

    weights: np.ndarray
    """float32 [frame]: edit weight times strength."""
    nobody_speaks: float
    """The gate's probability; NaN without a gate."""
    contribution: np.ndarray
    """float32 [frame, n_features]: size of each feature's part of the change, in the model's units."""
    activations: np.ndarray
    """float32 [frame, n_features]: the features as they were."""
    nobody_speaks_now: np.ndarray | None = None
    """float32 [frame]: the gate's probability for each moment; None without a gate."""

    @property
    def silent(self) -> bool:
        """True when the gate gives every frame at least half of the edit. Without a gate nobody can tell."""
        return not np.isnan(self.nobody_speaks) and bool(self.weights.min() >= SILENT_WEIGHT)


def audio_frames(mel: np.ndarray) -> list[int]:
    """Encoder frames that hear audio, for each window of `mel`; the others are padding.

    `mel` is one window, [n_mels, mel frame], or a batch of them. faster-whisper pads the spectrogram with 0.0, which no
    sound and no silence looks like.
    """
    heard: np.ndarray = (mel.reshape(-1, *mel.shape[-2:]) != 0).max(axis=1)
    last = mel.shape[-1] - np.argmax(heard[:, ::-1], axis=1)
    return [-(-int(n) // 2) if some else 0 for n, some in zip(last, heard.max(axis=1), strict=True)]


def steer_frames(x: np.ndarray, pack: SteerPack, strength: float, audio_frames: int | None = None) -> FrameReport:
    """Edits one window in place: `x += strength * weight * (z' - z) @ W_dec`, for x float32 [frame, d_in].

    The first `audio_frames` frames hear audio, the rest is padding (see `Gate`); None: there is none. The SAE's error
    term is kept, so frames of weight 0, and all frames at strength 0, stay bit-identical.
    """
    z = pack.features.encode(x)
    weights, nobody_speaks, now = np.ones(len(x), np.float32), float("nan"), None
    if pack.gate is not None:
        weights, nobody_speaks, now = pack.gate(z, audio_frames)
    weights = weights * np.float32(strength)
    change = pack.edit_plan(z)
    change -= z
    change *= weights[:, None]
    edited = weights > 0
    if edited.any():
        x[edited] += change[edited] @ pack.features.W_dec
    return FrameReport(weights, nobody_speaks, np.abs(change), z, now)


def window_report(frames: FrameReport, pack: SteerPack, start_s: float, duration_s: float) -> WindowReport:
    """What was done in a window that begins at `start_s`; frames after `duration_s` are padding and do not count."""
    n = max(1, min(len(frames.weights), round(duration_s / FRAME_S)))
    weights = frames.weights[:n]
    return WindowReport(
        start_s=start_s,
        end_s=start_s + duration_s,
        nobody_speaks=frames.nobody_speaks,
        edited_share=float(weights.mean()),
        frame_weights=weights,
        features=top_features(frames, pack, 0, n, start_s),
        frame_nobody_speaks=None if frames.nobody_speaks_now is None else frames.nobody_speaks_now[:n],
    )


def top_features(
    report: FrameReport, pack: SteerPack, start: int, end: int, offset_s: float
) -> tuple[FeatureActivity, ...]:
    """The features that fired between two frames and were edited most, with when they fired around their peak."""
    contribution, activations = report.contribution[start:end], report.activations[start:end]
    totals = contribution.sum(axis=0) * (activations > 0).any(axis=0)
    ranked = [i for i in np.argsort(-totals)[:TOP_FEATURES] if totals[i] > 0]
    return tuple(_activity(pack.feature_ids[i], activations[:, i], offset_s + start * FRAME_S) for i in ranked)


def _activity(feature: int, activation: np.ndarray, offset_s: float) -> FeatureActivity:
    peak = int(activation.argmax())
    silent = np.flatnonzero(activation == 0)
    before, after = silent[silent < peak], silent[silent > peak]
    first = int(before[-1]) + 1 if len(before) else 0
    last = int(after[0]) if len(after) else len(activation)
    return FeatureActivity(
        feature, float(activation[peak]), round(offset_s + first * FRAME_S, 2), round(offset_s + last * FRAME_S, 2)
    )
