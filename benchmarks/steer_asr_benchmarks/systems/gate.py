"""`gate`: the pack's gate alone. No feature is edited; a window where it hears nobody is not decoded.

What is left after this system is what editing is worth: if the two tie, the edit does nothing that the gate does not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from steer_asr.edits import Edit
from steer_asr.errors import SteerOptionError
from steer_asr.gate import WINDOW_FRAMES, Gate
from steer_asr.pack import SteerPack, load_pack
from steer_asr.steering import Steering
from steer_asr_benchmarks.systems.batched import RecordingSteeredPipeline
from steer_asr_benchmarks.systems.names import number
from steer_asr_benchmarks.systems.steered import RecordingSteeredModel, describe_pack
from steer_asr_benchmarks.systems.stock import WhisperSystem

DEFAULT = 0.5
SURE = 1e4
"""Steepness that makes the gate say yes or no and nothing between."""


def make_gate(
    name: str,
    model: RecordingSteeredModel,
    argument: str | None,
    pack: str | SteerPack,
    arguments: Mapping[str, Any],
    pipeline: RecordingSteeredPipeline | None = None,
) -> WhisperSystem:
    """`argument` is PROBABILITY[@PACK]: silent from that calibrated probability on that nobody speaks.

    Text elsewhere is stock's, with `suppress_blank` as stock has it. Raises `SteerOptionError` or `PackError`.
    """
    probability, at, other = (argument or "").partition("@")
    threshold = number(name, probability or None, DEFAULT, 0.0, 1.0)
    if at:
        pack = other
    if not isinstance(pack, SteerPack):
        pack = load_pack(pack, model_sha256=model.files.sha256, model_name=model.files.name)
    if pack.gate is None:
        raise SteerOptionError(f"system {name!r}: pack {pack.name!r} has no gate")
    unedited = (Edit(pack.feature_ids[0], "scale", 1.0),)  # a pack has to have one; times one is the identity
    steering = Steering(replace(pack, edits=unedited, gate=deciding(pack.gate, threshold)), early_exit=True)
    model.steered(steering)  # checks that the pack fits, before anything runs
    stated = {
        "kind": "gate",
        "suppress_blank": True,
        "vad_filter": False,
        "silent_from": threshold,
        "gate_of": describe_pack(pack),
    }
    always = {"suppress_blank": True, **arguments, "steer": steering}
    return WhisperSystem(name, pipeline or model, model.model.is_multilingual, always, stated | dict(arguments))


def deciding(gate: Gate, threshold: float) -> Gate:
    """The gate that silences a whole window when its calibrated clip probability is at least `threshold`."""
    slope, offset = gate.clip_calibration
    # nobody_speaks = sigmoid(-(slope * evidence + offset)) >= threshold, as the sign of a log-odds
    odds = min(max(threshold, 1e-9), 1 - 1e-9)
    turn = offset + math.log(odds / (1 - odds))
    return replace(gate, reach_frames=WINDOW_FRAMES, frame_calibration=(SURE * slope, SURE * turn))
