"""`steered`: faster-whisper with a steer pack at work on the encoder's output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from steer_asr.ct2 import SteeredWhisperModel
from steer_asr.errors import SteerOptionError
from steer_asr.models import ModelFiles
from steer_asr.pack import SteerPack, load_pack
from steer_asr.steering import Steering, parse_steer
from steer_asr_benchmarks.systems.base import Window
from steer_asr_benchmarks.systems.batched import RecordingSteeredPipeline
from steer_asr_benchmarks.systems.stock import WhisperSystem, record_window


class RecordingSteeredModel(SteeredWhisperModel):
    """A `SteeredWhisperModel` that keeps the scores of every window; the copy made for each call shares the list."""

    def __init__(self, files: ModelFiles, **options: Any) -> None:
        super().__init__(files, **options)
        self.windows: list[Window] = []

    def generate_with_fallback(self, *args: Any, **kwargs: Any) -> Any:
        return record_window(self.windows, super().generate_with_fallback(*args, **kwargs))


def make_steered(
    name: str,
    model: RecordingSteeredModel,
    steer: Any,
    arguments: Mapping[str, Any],
    pipeline: RecordingSteeredPipeline | None = None,
) -> WhisperSystem:
    """Steered as `steer` says (see `steer_asr.parse_steer`); `suppress_blank` is off unless `arguments` say so.

    Raises `SteerOptionError` when `steer` asks for no steering, and `PackError` when the pack does not fit the model.
    """
    steering = wanted_steering(name, steer)
    pack = steering.pack
    if not isinstance(pack, SteerPack):
        pack = load_pack(pack, model_sha256=model.files.sha256, model_name=model.files.name)
    steering = replace(steering.for_pack(pack), pack=pack)
    model.steered(steering)  # checks that the pack fits, before anything runs
    stated = {
        "kind": "steered",
        "executor": model.executor,
        "suppress_blank": False,
        "vad_filter": False,
        "pack": describe_pack(pack),
        "strength": steering.strength,
    }
    multilingual = model.model.is_multilingual
    return WhisperSystem(
        name, pipeline or model, multilingual, {**arguments, "steer": steering}, stated | dict(arguments)
    )


def wanted_steering(name: str, steer: Any) -> Steering:
    """What `steer` asks for. Raises `SteerOptionError` when that is nothing."""
    steering = parse_steer(steer)
    if steering is None:
        raise SteerOptionError(f"system {name!r}: steer={steer!r} asks for no steering; use the system 'stock'")
    return steering


def describe_pack(pack: SteerPack) -> dict[str, Any]:
    """A pack for the report: its name, and a SHA-256 over all of its files but the card and its picture."""
    return {
        "name": pack.name,
        "sha256": pack.sha256,
        "base_sha256": pack.base_sha256,
        "hook_point": pack.hook_point,
        "features": len(pack.feature_ids),
        "gate": pack.gate is not None,
        "compute_types": list(pack.compute_types),
    }
