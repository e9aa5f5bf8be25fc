"""What a server serves, found and checked once before anything starts.

    catalogue = Catalogue.find(Settings(models=["base", "tiny.en"], steer="0.8"))
    served = catalogue.get("base")
    served.steering(None)                  # the server's default
    served.steering("off")                 # what a request asks for

Requests can only name the models and packs in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from steer_asr.calibration import strength_within
from steer_asr.errors import ModelError, PackError, SteerOptionError, unknown_name
from steer_asr.hub import Reference, is_reference
from steer_asr.models import ModelFiles, find_model
from steer_asr.pack import list_packs, load_pack, pinned
from steer_asr.steering import Steering, parse_steer
from steer_asr_serving.settings import Settings

CHANGEABLE = ("steer", "max_steer")
MODEL_ALIAS = "whisper-1"
"""OpenAI's name for a Whisper model; clients written for OpenAI send it."""


@dataclass(frozen=True)
class ServedModel:
    """One model of a server, and the steering it offers."""

    name: str
    source: str
    """What `load_model` takes."""
    packs: Mapping[str, str]
    """{name in requests: name or folder} of the packs for this model, the default one first."""
    default_pack: str | None
    """Name or folder of the pack that "default" stands for in a request; None when it stands for none."""
    default_steering: Steering | None
    max_steer: float = 1.0
    curves: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """{name or folder of a pack: its strength curve}, which `max_wer_increase` is read off."""

    @classmethod
    def find(cls, source: str, settings: Settings) -> ServedModel:
        """Raises `ModelError`, `PackError` or `SteerOptionError` when the settings cannot be served."""
        files = find_model(source)
        packs = _offered(files, settings.allowed_packs)
        default_pack = next(iter(packs.values()), None)
        steering = parse_steer(settings.steer)
        if steering is not None:
            if steering.pack == "default" and default_pack:
                steering = replace(steering, pack=default_pack)
            steering = replace(steering, pack=pinned(str(steering.pack)))
            _check_pack(steering, files)
            default_pack = default_pack or str(steering.pack)
        sources = {*packs.values(), *(() if steering is None else [str(steering.pack)])}
        curves = {name: load_pack(name, model_sha256=files.sha256).calibration for name in sources}
        served = cls(files.name, source, packs, default_pack, None, settings.max_steer, curves)
        if steering is None:
            return served
        if steering.max_wer_increase is None and steering.strength > settings.max_steer:
            raise SteerOptionError(f"steer {settings.steer!r} is above max_steer ({settings.max_steer:g})")
        return replace(served, default_steering=served._settled(steering))

    def steering(self, wanted: object) -> Steering | None:
        """What a request's `steer` means; `None`, that is nothing asked, is the server's default.

        Means what it means in Python, except that a pack has to be one of `packs`, since a client's word is never a
        path and nothing to download, and a strength at most `max_steer`, which also caps what `max_wer_increase` would
        choose. The strength of the answer is settled. Raises `SteerOptionError`.
        """
        if wanted is None:
            return self.default_steering
        steering = parse_steer(wanted)
        if steering is None:
            return None
        if steering.max_wer_increase is None and steering.strength > self.max_steer:
            raise SteerOptionError(
                f"strength {steering.strength:g} is above this server's maximum; send steer={self.max_steer:g} or less"
            )
        known = {**self.packs, **({"default": self.default_pack} if self.default_pack else {})}
        if steering.pack not in known:
            raise SteerOptionError(unknown_name("pack", str(steering.pack), known))
        return self._settled(replace(steering, pack=known[str(steering.pack)]))

    def _settled(self, steering: Steering) -> Steering:
        """With a strength in the place of `max_wer_increase`: at most this server's maximum."""
        if steering.max_wer_increase is None:
            return steering
        source = str(steering.pack)
        strength = strength_within(self.curves[source], steering.max_wer_increase, self.pack_name(steering))
        if self.max_steer == 0:
            raise SteerOptionError("this server's maximum strength is 0; send steer=off")
        return replace(steering, strength=min(strength, self.max_steer), max_wer_increase=None)

    def pack_name(self, steering: Steering) -> str:
        """The name of the pack that a steering of this model uses."""
        source = str(steering.pack)
        names = {source: name for name, source in self.packs.items()}
        return names.get(source) or (Reference.parse(source).repo if is_reference(source) else Path(source).name)


@dataclass
class Catalogue:
    """The models of a server, by name; the first one also answers to `MODEL_ALIAS`."""

    models: Mapping[str, ServedModel]
    """Replaced as a whole by `change`, never changed in place: a request sees the old ones or the new ones."""

    @classmethod
    def find(cls, settings: Settings) -> Catalogue:
        """Raises `ModelError`, `PackError` or `SteerOptionError` when the settings cannot be served.

        Packs on the Hugging Face Hub that the settings name are fetched now, and stay at the commit that was found.
        """
        _check_compute_type(settings.compute_type)
        if settings.allowed_packs is not None:
            settings = settings.model_copy(update={"allowed_packs": tuple(map(pinned, settings.allowed_packs))})
        found = [ServedModel.find(source, settings) for source in settings.models]
        models = {served.name: served for served in found}
        if len(models) < len(found):
            raise ModelError(f"two of the models have the same name: {', '.join(served.name for served in found)}")
        offered = {name for served in found for name in served.packs.values()}
        if unused := [pack for pack in settings.allowed_packs or () if pack not in offered]:
            raise PackError(f"pack {unused[0]!r} was made for none of the served models: {', '.join(models)}")
        return cls(models)

    def change(self, settings: Settings, changes: Mapping[str, Any]) -> None:
        """Other defaults for the requests to come, without a restart: `settings`, but for some of `CHANGEABLE`.

        Raises `SteerOptionError`, `PackError` or pydantic's `ValidationError` when they cannot be served; then nothing
        changes.
        """
        if unknown := sorted(set(changes) - set(CHANGEABLE)):
            raise SteerOptionError(unknown_name("setting that can change while serving", unknown[0], CHANGEABLE))
        changed = Settings(**settings.model_dump(exclude={"config"}) | dict(changes))
        self.models = Catalogue.find(changed).models

    def get(self, name: str) -> ServedModel | None:
        """The model a request means by `name`."""
        return next(iter(self.models.values())) if name == MODEL_ALIAS else self.models.get(name)


def _offered(files: ModelFiles, configured: tuple[str, ...] | None) -> dict[str, str]:
    """Those of the configured packs that were made for the model's weights."""
    if configured is None:
        return {info.name: info.name for info in list_packs() if info.base_sha256 == files.sha256}
    loaded = {name: load_pack(name) for name in configured}
    return {pack.name: name for name, pack in loaded.items() if pack.base_sha256 == files.sha256}


def _check_pack(steering: Steering, files: ModelFiles) -> None:
    """Raises `PackError` unless the replicas will be able to use the steering's pack with the model."""
    try:
        pack = steering.pack
        if isinstance(pack, str):
            pack = load_pack(pack, model_sha256=files.sha256, model_name=files.name)
        pack.check_fits(sha256=files.sha256, model_name=files.name, d_model=pack.features.d_in)
        pack.check_output_hook()
    except PackError as error:
        raise type(error)(f"{error}; or serve without steering: --steer off") from error


def _check_compute_type(compute_type: str) -> None:
    import ctranslate2

    known = {"default", "auto", *ctranslate2.get_supported_compute_types("cpu")}
    if compute_type not in known:
        raise ModelError(unknown_name("compute type", compute_type, known))
