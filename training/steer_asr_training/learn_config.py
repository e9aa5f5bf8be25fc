"""What `learn` can be told, and what a pack has room for."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from steer_asr.pack import most_features
from steer_asr_training.objective import ObjectiveConfig


@dataclass(frozen=True)
class LearnConfig:
    """Schedule and size of the edit."""

    n_features: int = 128
    """How many features the pack edits, at most: a wide model's pack has room for fewer."""
    n_gate_features: int = 64
    """How many of them are chosen for telling speech from non-speech; the others for moving the decoder."""
    n_heard: int = 256
    """How many features the gate reads, as far as the pack has room for them: those that are edited, and the next best
    at telling speech from non-speech, which the pack holds without an edit."""
    reach_frames: int = 75
    """While learning, the gate protects frames within this distance of speech, so that the edit also meets the pauses
    and the padding of speech, and has to leave the words beside them alone."""
    served_reach_frames: int = 300
    """The same in the finished pack, 6 s. Less silences shorter pauses, and begins to cost words at their edges."""
    protect_log_odds: float = 1.0
    """The finished gate edits where "nobody speaks" exceeds even odds by this much: losing a word counts as e, nearly
    three, phantom phrases."""
    steepness: float = 4.0
    """The finished gate's log-odds times this are those of the edit's weight: half an edit is rarely of use, since it
    neither silences nor leaves words alone."""
    rank_steps: int = 50
    """Steps of the run over the whole dictionary that ranks features by effect."""
    steps: int = 300
    windows_per_step: int = 6
    """Speech windows per step, and as many of non-speech."""
    speech_windows: int = 700
    """Speech windows used; each costs one decoding of stock Whisper in each mode."""
    lr: float = 0.05
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    rank_objective: ObjectiveConfig = field(default_factory=lambda: ObjectiveConfig(speech=4.0))
    """While ranking: bolder, to see what silences at all."""
    seed: int = 0


def within_room(config: LearnConfig, d_in: int) -> LearnConfig:
    """The config with no more features than a pack for a model of this width holds."""
    room = most_features(d_in)
    names = ("n_features", "n_gate_features", "n_heard")
    return replace(config, **{name: min(getattr(config, name), room) for name in names})
