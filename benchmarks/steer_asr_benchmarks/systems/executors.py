"""`...+hybrid`, `...+hf` and `compiled:DIR`: the other ways to run a steered Whisper, and transformers' own.

Only what is asked for is imported: the first two need the `[torch]` extra.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from steer_asr.audio import SAMPLE_RATE_HZ
from steer_asr.ct2 import executor_class
from steer_asr.errors import SteerOptionError
from steer_asr.models import ModelFiles, find_model
from steer_asr.pack import load_pack
from steer_asr.steering import Steering
from steer_asr_benchmarks.systems.base import Decoding, PredictedSegment, Prediction
from steer_asr_benchmarks.systems.batched import WINDOW_S, RecordingPipeline
from steer_asr_benchmarks.systems.steered import RecordingSteeredModel, describe_pack
from steer_asr_benchmarks.systems.stock import RecordingWhisperModel, WhisperSystem, make_stock

if TYPE_CHECKING:
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

MAX_TOKENS = 444
"""What Whisper's 448 positions leave behind the longest prompt; transformers stops at 20 tokens without a bound."""


def hybrid_model(files: ModelFiles, **options: Any) -> RecordingSteeredModel:
    """A torch encoder before CTranslate2's decoder, recording as the other systems do."""
    recording: type[RecordingSteeredModel] = type(
        "RecordingHybridModel", (RecordingSteeredModel, executor_class("hybrid")), {}
    )
    return recording(files, **options)


def make_compiled(
    name: str, directory: str, loading: Mapping[str, Any], arguments: Mapping[str, Any], *, batched: bool = False
) -> WhisperSystem:
    """Plain faster-whisper on a directory that `steer-asr compile` wrote. Raises `SteerOptionError`, `ModelError`."""
    if not directory:
        raise SteerOptionError(f"system {name!r}: behind 'compiled:' stands the directory that steer-asr compile wrote")
    files = find_model(Path(directory))
    model = RecordingWhisperModel(files.path, **loading)
    whisper = RecordingPipeline(model) if batched else model
    return make_stock(name, whisper, model.model.is_multilingual, arguments, kind="compiled", sha256=files.sha256)


class TransformersModel:
    """transformers' Whisper with the weights of the run, loaded when first needed, and faster-whisper's front-end."""

    def __init__(self, files: ModelFiles, device: str) -> None:
        self.files, self.device = files, device

    @cached_property
    def loaded(self) -> tuple[WhisperForConditionalGeneration, WhisperProcessor]:
        try:
            import torch

            from steer_asr import hf
        except ImportError as error:
            raise SteerOptionError(
                f"+hf needs torch and transformers ({error}): pip install 'steer-asr[torch]'"
            ) from error
        model, processor = hf.load(self.files.path)
        gpu = self.device == "cuda" or (self.device == "auto" and torch.cuda.is_available())
        model.to("cuda" if gpu else "cpu")  # pyright: ignore[reportArgumentType]
        return model, processor


@dataclass(frozen=True)
class TransformersSystem:
    """`generate` of transformers on windows of 30 s, one after the other; the scores of windows are not told."""

    name: str
    model: TransformersModel
    steering: Steering | None
    arguments: Mapping[str, Any]
    options: Mapping[str, Any]

    def transcribe(self, audio: np.ndarray, decoding: Decoding) -> Prediction:
        """Each window on its own, so that both modes cut alike: transformers' long form needs timestamps."""
        from steer_asr import hf

        model, processor = self.model.loaded
        multilingual = bool(getattr(model.generation_config, "is_multilingual", True))
        language = self.arguments.get("language", decoding.language) if multilingual else None
        options: dict[str, Any] = {
            "num_beams": self.arguments.get("beam_size", decoding.beam_size),
            "do_sample": False,
            "return_timestamps": decoding.mode == "timestamps",
            "max_new_tokens": MAX_TOKENS,
            **({"language": language, "task": "transcribe"} if multilingual else {}),
        }
        if not self.arguments.get("suppress_blank", self.steering is None):
            options["begin_suppress_tokens"] = []
        segments, silent, shares = [], [], []
        for start in range(0, max(1, len(audio)), round(WINDOW_S * SAMPLE_RATE_HZ)):
            piece = audio[start : start + round(WINDOW_S * SAMPLE_RATE_HZ)]
            text, report = hf.transcribe(piece, model, processor, steer=self.steering, **options)
            at, end = start / SAMPLE_RATE_HZ, (start + len(piece)) / SAMPLE_RATE_HZ
            segments += [PredictedSegment(at, end, f" {text}", None, None, None)] if text else []
            if report is not None:
                silent.append(report.nobody_speaks)
                shares.append(report.edited_share)
        known = [value for value in silent if not math.isnan(value)]
        return Prediction(
            language=language or "en",
            language_forced=language is not None or not multilingual,
            segments=tuple(segments),
            windows=None,
            nobody_speaks=min(known) if known else None,
            edited_share=float(np.mean(shares)) if shares else None,
        )


def make_transformers(
    name: str, model: TransformersModel, steering: Steering | None, arguments: Mapping[str, Any]
) -> TransformersSystem:
    """Stock when `steering` is None. Raises `PackError` when the pack does not fit the model."""
    stated: dict[str, Any] = {"kind": "stock" if steering is None else "steered", "executor": "hf", "vad_filter": False}
    stated["suppress_blank"] = steering is None
    if steering is not None:
        pack = steering.pack
        if isinstance(pack, str):
            pack = load_pack(pack, model_sha256=model.files.sha256, model_name=model.files.name)
        pack.check_fits(sha256=model.files.sha256, model_name=model.files.name, d_model=model.loaded[0].config.d_model)
        steering = replace(steering.for_pack(pack), pack=pack)
        stated |= {"pack": describe_pack(pack), "strength": steering.strength}
    return TransformersSystem(name, model, steering, arguments, stated | dict(arguments))
