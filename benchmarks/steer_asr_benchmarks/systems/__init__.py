"""The systems a run compares, made from their names; `names` has the grammar, and what there is.

models = Models(ModelOptions("base"))
stock, steered = make_systems(["stock", "steered:0.5+vad"], models)
steered.transcribe(audio, decoding).text
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

from faster_whisper import WhisperModel

from steer_asr.errors import ModelError, SteerOptionError
from steer_asr.models import ModelFiles, find_model
from steer_asr.steering import parse_steer
from steer_asr_benchmarks.systems.base import System
from steer_asr_benchmarks.systems.batched import RecordingPipeline, RecordingSteeredPipeline
from steer_asr_benchmarks.systems.executors import (
    TransformersModel,
    hybrid_model,
    make_compiled,
    make_transformers,
)
from steer_asr_benchmarks.systems.filters import make_boh, make_nospeech
from steer_asr_benchmarks.systems.gate import make_gate
from steer_asr_benchmarks.systems.names import KINDS, SERVER, SystemName, number
from steer_asr_benchmarks.systems.server import make_server
from steer_asr_benchmarks.systems.shared import EncoderMemory, SharedEncoder
from steer_asr_benchmarks.systems.steered import RecordingSteeredModel, make_steered, wanted_steering
from steer_asr_benchmarks.systems.stock import RecordingWhisperModel, WhisperSystem, make_stock
from steer_asr_benchmarks.systems.webrtc import make_webrtc

__all__ = ["ModelOptions", "Models", "SystemName", "make_systems"]

AnyWhisper = TypeVar("AnyWhisper", bound=WhisperModel)
NOT_BATCHED = {"rule", "hst", "webrtcvad", "fallback", "defaults"}
"""What faster-whisper's batched pipeline has no such thing as."""
EXECUTORS: Mapping[str, tuple[str, ...]] = {"hybrid": ("steered", "gate"), "hf": ("stock", "steered")}
"""The kinds of systems that run on executors other than ct2."""
NOT_IN_TRANSFORMERS = {"vad", "fallback", "defaults", "batched", "int8"}


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
        self._memory = EncoderMemory()
        self._others: dict[str, Models] = {}

    @cached_property
    def files(self) -> ModelFiles:
        return find_model(self.options.name)

    @cached_property
    def stock(self) -> RecordingWhisperModel:
        return self._shared(RecordingWhisperModel(self.files.path, **self.loading()))

    @cached_property
    def steered(self) -> RecordingSteeredModel:
        return self._shared(RecordingSteeredModel(self.files, **self.loading()))

    @cached_property
    def hybrid(self) -> RecordingSteeredModel:
        return hybrid_model(self.files, **self.loading())

    @cached_property
    def transformers(self) -> TransformersModel:
        return TransformersModel(self.files, self.options.device)

    def at(self, compute_type: str | None) -> Models:
        """The same model in another compute type, loaded once; None: these."""
        if compute_type in (None, self.options.compute_type):
            return self
        if compute_type not in self._others:
            self._others[compute_type] = Models(replace(self.options, compute_type=compute_type))
        return self._others[compute_type]

    def steered_by(self, executor: str) -> RecordingSteeredModel:
        return self.hybrid if executor == "hybrid" else self.steered

    def loading(self) -> dict[str, Any]:
        """How models are loaded, as arguments of faster-whisper."""
        options = self.options
        return {"device": options.device, "compute_type": options.compute_type, "cpu_threads": options.cpu_threads}

    def _shared(self, whisper: AnyWhisper) -> AnyWhisper:
        if self.options.share_encoder:
            if whisper.model.device != "cpu" or whisper.model.compute_type == "bfloat16":
                raise SteerOptionError("--share-encoder works on the CPU only")
            whisper.model = SharedEncoder(whisper.model, self._memory)
        return whisper

    @property
    def used(self) -> bool:
        """Whether any system runs here; servers under test do not."""
        here = not {"stock", "steered", "hybrid", "transformers"}.isdisjoint(self.__dict__)
        return here or any(models.used for models in self._others.values())

    @property
    def loaded(self) -> WhisperModel:
        """One that a system has made use of already, if any has."""
        return next((self.__dict__[name] for name in ("stock", "hybrid") if name in self.__dict__), self.steered)

    def describe(self) -> dict[str, Any] | None:
        """The model for the report; None where none was used."""
        if not self.used:
            return None
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


def make_systems(names: Sequence[str], models: Models, steer: str = "default") -> list[System]:
    """Builds the systems in the order named.

    Raises `SteerOptionError` (unknown or repeated name), `PackError`, or `ModelError` (device or compute type that
    this machine cannot run).
    """
    parsed = [SystemName.parse(name) for name in names]
    if not parsed:
        raise SteerOptionError(f"no system given; there are {', '.join(KINDS)}")
    if len({name.text for name in parsed}) < len(parsed):
        raise SteerOptionError(f"a system is named twice: {', '.join(names)}; ALIAS=SYSTEM tells them apart")
    try:
        return [_make(name, models, steer) for name in parsed]
    except ValueError as error:
        if isinstance(error, SteerOptionError):
            raise
        raise ModelError(f"{models.options.name!r} cannot be loaded: {error}") from error


def _make(name: SystemName, models: Models, steer: str) -> System:
    """One system; `_MAKERS` says how, by kind."""
    if name.kind == SERVER:
        return make_server(name.text, name.argument or "")
    if name.executor != "ct2" and name.kind not in EXECUTORS[name.executor]:
        kinds = " and ".join(EXECUTORS[name.executor])
        raise SteerOptionError(f"system {name.text!r}: +{name.executor} goes with {kinds}")
    if name.executor == "hf" and (refused := NOT_IN_TRANSFORMERS & set(name.modifiers)):
        raise SteerOptionError(f"system {name.text!r}: +hf does not go with +{sorted(refused)[0]}")
    if name.batched and (refused := NOT_BATCHED & {name.kind, *name.modifiers}):
        raise SteerOptionError(f"system {name.text!r}: the batched pipeline knows no {sorted(refused)[0]}")
    return _MAKERS[name.kind](name, models.at(name.compute_type), steer)


def _plain(name: SystemName, models: Models, _steer: str) -> System:
    if name.executor == "hf":
        return make_transformers(name.text, models.transformers, None, name.arguments())
    return _stock(name, models)


def _stock(
    name: SystemName, models: Models, *, say: Mapping[str, Any] | None = None, **arguments: Any
) -> WhisperSystem:
    model = RecordingPipeline(models.stock) if name.batched else models.stock
    multilingual = models.stock.model.is_multilingual
    stated = {**(say or {}), **_compute_type(name)}
    return make_stock(name.text, model, multilingual, {**arguments, **name.arguments()}, **stated)


def _compute_type(name: SystemName) -> dict[str, Any]:
    """For the report, where it is not the run's."""
    return {"compute_type": name.compute_type} if name.compute_type else {}


def _steered(name: SystemName, models: Models, steer: str) -> System:
    asked = name.argument or steer
    if name.executor == "hf":
        steering = wanted_steering(name.text, asked)
        return make_transformers(name.text, models.transformers, steering, name.arguments())
    model = models.steered_by(name.executor)
    pipeline = RecordingSteeredPipeline(model) if name.batched else None
    made = make_steered(name.text, model, asked, name.arguments(), pipeline)
    return replace(made, options={**made.options, **_compute_type(name)})


def _gate(name: SystemName, models: Models, steer: str) -> System:
    steering = parse_steer(steer)
    model = models.steered_by(name.executor)
    pipeline = RecordingSteeredPipeline(model) if name.batched else None
    pack = "default" if steering is None else steering.pack
    made = make_gate(name.text, model, name.argument, pack, name.arguments(), pipeline)
    return replace(made, options={**made.options, **_compute_type(name)})


def _rule(name: SystemName, models: Models, _steer: str) -> System:
    no_speech, slash, logprob = (name.argument or "").partition("/")
    threshold = number(name.text, no_speech or None, 0.6, 0.0, 1.0)
    lowest = number(name.text, logprob if slash else None, -1.0, -100.0, 0.0)
    return _stock(
        name, models, say={"kind": "rule"}, no_speech_threshold=threshold, log_prob_threshold=lowest, temperature=[0.0]
    )


def _hst(name: SystemName, models: Models, _steer: str) -> System:
    seconds = name.number(2.0, 0.0, 3600.0)
    return _stock(name, models, say={"kind": "hst"}, word_timestamps=True, hallucination_silence_threshold=seconds)


def _webrtc(name: SystemName, models: Models, _steer: str) -> System:
    if name.argument not in (None, "0", "1", "2", "3"):
        raise SteerOptionError(f"system {name.text!r}: {name.argument!r} is not 0, 1, 2 or 3")
    return make_webrtc(name.text, _stock(name, models), int(name.argument or 2))


_MAKERS: Mapping[str, Callable[[SystemName, Models, str], System]] = {
    "stock": _plain,
    "steered": _steered,
    "gate": _gate,
    "rule": _rule,
    "nospeech": lambda name, models, _: make_nospeech(name.text, _stock(name, models), name.number(0.6, 0.0, 1.0)),
    "hst": _hst,
    "webrtcvad": _webrtc,
    "compiled": lambda name, models, _: make_compiled(
        name.text, name.argument or "", models.loading(), name.arguments(), batched=name.batched
    ),
    "boh": lambda name, models, _: make_boh(name.text, _stock(name, models), name.argument),
}
