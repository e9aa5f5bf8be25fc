"""steer_asr: Whisper that stays silent when nobody speaks.

    segments, info = steer_asr.load_model("base").transcribe("call.wav", steer=True)

Names load on first use, so that `import steer_asr` stays fast and free of torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steer_asr.ct2 import SteeredBatchedInferencePipeline as SteeredBatchedInferencePipeline
    from steer_asr.ct2 import SteeredWhisperModel as SteeredWhisperModel
    from steer_asr.ct2 import load_model as load_model
    from steer_asr.ct2 import transcribe as transcribe
    from steer_asr.errors import SteerASRError as SteerASRError
    from steer_asr.models import list_models as list_models
    from steer_asr.pack import SteerPack as SteerPack
    from steer_asr.pack import list_packs as list_packs
    from steer_asr.pack import load_pack as load_pack
    from steer_asr.publish import push_pack as push_pack
    from steer_asr.steering import Steering as Steering
    from steer_asr.steering import parse_steer as parse_steer
    from steer_asr.transcription import Transcription as Transcription

__version__ = "0.1.0"

_HOME = {
    "SteerASRError": "errors",
    "SteerPack": "pack",
    "SteeredBatchedInferencePipeline": "ct2",
    "SteeredWhisperModel": "ct2",
    "Steering": "steering",
    "Transcription": "transcription",
    "list_models": "models",
    "list_packs": "pack",
    "load_model": "ct2",
    "load_pack": "pack",
    "parse_steer": "steering",
    "push_pack": "publish",
    "transcribe": "ct2",
}

__all__ = [*_HOME, "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'steer_asr' has no attribute {name!r}; it offers {', '.join(sorted(_HOME))}")
    value = getattr(import_module(f"steer_asr.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
