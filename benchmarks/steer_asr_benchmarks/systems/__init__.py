"""The systems a run compares, by name: `KIND[:ARGUMENT][+MODIFIER...]`.

| name | what it is |
| --- | --- |
| `stock` | plain faster-whisper |
| `steered`, `steered:0.5`, `steered:PACK@0.5` | with the pack and strength given, else the run's `--steer` |
| `...+vad` | the same behind faster-whisper's Silero filter (`vad_filter=True`) |
| `...+empty` | the same allowed to answer nothing (`suppress_blank=False`; always so for `steered`) |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from faster_whisper import WhisperModel

from steer_asr.errors import ModelError, SteerOptionError, unknown_name
from steer_asr.models import ModelFiles, find_model
from steer_asr_benchmarks.systems.base import System
from steer_asr_benchmarks.systems.shared import EncoderMemory, SharedEncoder
from steer_asr_benchmarks.systems.steered import RecordingSteeredModel, make_steered
from steer_asr_benchmarks.systems.stock import RecordingWhisperModel, make_stock

AnyWhisper = TypeVar("AnyWhisper", bound=WhisperModel)
KINDS = ("stock", "steered")
MODIFIERS: dict[str, dict[str, Any]] = {"vad": {"vad_filter": True}, "empty": {"suppress_blank": False}}


@dataclass(frozen=True)
class SystemName:
    """A parsed system name."""

    text: str
    kind: str
    argument: str | None
    modifiers: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> SystemName:
        """Raises `SteerOptionError` for an unknown kind or modifier, with the nearest names."""
        head, *modifiers = text.strip().split("+")
        kind, colon, argument = head.partition(":")
        if kind not in KINDS:
            raise SteerOptionError(unknown_name("system", kind, KINDS))
        for modifier in modifiers:
            if modifier not in MODIFIERS:
                raise SteerOptionError(f"system {text!r}: " + unknown_name("modifier", modifier, MODIFIERS))
        if colon and (kind == "stock" or not argument):
            raise SteerOptionError(f"system {text!r}: only 'steered' takes an argument, for example steered:0.5")
        return cls(text.strip(), kind, argument or None, tuple(modifiers))


@dataclass(frozen=True)
class ModelOptions:
    """Which weights all systems of a run use, and how they are run."""

    name: str = "base"
    device: str = "auto"
    compute_type: str = "float32"
    cpu_threads: int = 0
    """0: CTranslate2's choice."""
    share_encoder: bool = False
    """Encode each window once for all systems; see `shared`. Texts are the same, latencies are not measured then."""


class Models:
    """The model of a run, loaded once per kind of system, when first needed. Raises `ModelError`."""

    def __init__(self, options: ModelOptions) -> None:
        self.options = options
        self.files: ModelFiles = find_model(options.name)
        self._memory = EncoderMemory()

    @cached_property
    def stock(self) -> RecordingWhisperModel:
        return self._shared(RecordingWhisperModel(self.files.path, **self._loading()))

    @cached_property
    def steered(self) -> RecordingSteeredModel:
        return self._shared(RecordingSteeredModel(self.files, **self._loading()))

    def _shared(self, whisper: AnyWhisper) -> AnyWhisper:
        if self.options.share_encoder:
            if whisper.model.device != "cpu" or whisper.model.compute_type == "bfloat16":
                raise SteerOptionError("--share-encoder works on the CPU only")
            whisper.model = SharedEncoder(whisper.model, self._memory)
        return whisper

    @property
    def loaded(self) -> WhisperModel:
        """One that a system has made use of already, if any has."""
        return self.stock if "stock" in self.__dict__ else self.steered

    def describe(self) -> dict[str, Any]:
        """The model for the report."""
        model = self.loaded.model
        return {
            "name": self.files.name,
            "sha256": self.files.sha256,
            "origin": self.files.origin,
            "multilingual": model.is_multilingual,
            "device": model.device,
            "compute_type": model.compute_type,
            "cpu_threads": self.options.cpu_threads,
            "shared_encoder": self.options.share_encoder,
        }

    def _loading(self) -> dict[str, Any]:
        options = self.options
        return {"device": options.device, "compute_type": options.compute_type, "cpu_threads": options.cpu_threads}


def make_systems(names: Sequence[str], models: Models, steer: str = "default") -> list[System]:
    """Builds the systems in the order named.

    Raises `SteerOptionError` (unknown or repeated name), `PackError`, or `ModelError` (device or compute type that
    this machine cannot run).
    """
    parsed = [SystemName.parse(name) for name in names]
    if not parsed:
        raise SteerOptionError(f"no system given; there are {', '.join(KINDS)}")
    if len({name.text for name in parsed}) < len(parsed):
        raise SteerOptionError(f"a system is named twice: {', '.join(names)}")
    try:
        return [_make(name, models, steer) for name in parsed]
    except ValueError as error:
        if isinstance(error, SteerOptionError):
            raise
        raise ModelError(f"{models.options.name!r} cannot be loaded: {error}") from error


def _make(name: SystemName, models: Models, steer: str) -> System:
    arguments = {key: value for modifier in name.modifiers for key, value in MODIFIERS[modifier].items()}
    if name.kind == "stock":
        return make_stock(name.text, models.stock, arguments)
    return make_steered(name.text, models.steered, name.argument or steer, arguments)
