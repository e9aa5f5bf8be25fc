"""What a server serves, found and checked once before anything starts.

    served = ServedModel.find(Settings(model="base", steer="0.8"))
    served.steering(None)                  # the server's default
    served.steering("off")                 # what a request asks for

Requests can only name the packs in `served.packs`.
"""

from __future__ import annotations

from dataclasses import dataclass

from steer_asr.errors import ModelError, PackError, SteerOptionError, unknown_name
from steer_asr.models import ModelFiles, find_model
from steer_asr.pack import list_packs, load_pack
from steer_asr.steering import Steering, parse_steer
from steer_asr_serving.settings import Settings

MODEL_ALIAS = "whisper-1"
"""OpenAI's name for a Whisper model; clients written for OpenAI send it."""


@dataclass(frozen=True)
class ServedModel:
    """The one model of a server, and the steering it offers."""

    name: str
    packs: tuple[str, ...]
    """Packs made for the model's weights, by the names a request may use besides "default"."""
    default_steering: Steering | None

    @classmethod
    def find(cls, settings: Settings) -> ServedModel:
        """Raises `ModelError`, `PackError` or `SteerOptionError` when the settings cannot be served."""
        _check_compute_type(settings.compute_type)
        files = find_model(settings.model)
        default = parse_steer(settings.steer)
        if default is not None:
            _check_pack(default, files)
        return cls(
            name=files.name,
            packs=tuple(info.name for info in list_packs() if info.base_sha256 == files.sha256),
            default_steering=default,
        )

    def answers_to(self, model: str) -> bool:
        """Whether a request for `model` is a request for this one."""
        return model in (self.name, MODEL_ALIAS)

    def steering(self, wanted: object) -> Steering | None:
        """What a request's `steer` means; `None`, that is nothing asked, is the server's default.

        Means what it means in Python, except that a pack has to be one of `packs`: a client's word is never a path.
        Raises `SteerOptionError`.
        """
        if wanted is None:
            return self.default_steering
        steering = parse_steer(wanted)
        if steering is not None and steering.pack not in ("default", *self.packs):
            raise SteerOptionError(unknown_name("pack", str(steering.pack), ("default", *self.packs)))
        return steering


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
