"""Steering for transformers: the `hf` executor.

    model = WhisperForConditionalGeneration.from_pretrained("openai/whisper-base")
    with steer_asr.hf.steer(model) as report:
        model.generate(features)                         # or a pipeline with this model, or model(...)
    report.windows[0].nobody_speaks

A forward hook edits what the pack names, in this thread and this block only. The encoder runs once for each row, before
beams multiply the rows, in short form and long form alike. `load` gives model and processor without a hub; its
processor pads as faster-whisper does, which packs are made for. Needs the `[torch]` extra.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from transformers import WhisperForConditionalGeneration, WhisperModel, WhisperProcessor, WhisperTokenizer

from steer_asr._hf_front_end import FasterWhisperFeatureExtractor
from steer_asr._hf_run import HfReport, SteeredCalls
from steer_asr._torch_edit import resolve_in_encoder
from steer_asr.errors import PackError, PackMismatchError, SteerOptionError, unknown_name
from steer_asr.hooks import hooked, resolve
from steer_asr.models import find_model
from steer_asr.pack import SteerPack, load_pack
from steer_asr.steering import Steering, parse_steer
from steer_asr.weights.convert import hf_from_ct2
from steer_asr.weights.fingerprint import fingerprints, remember

CHECKS = ("weights", "dimensions")

_IN_FORCE: ContextVar[Mapping[int, SteeredCalls | None]] = ContextVar("steer_asr.hf", default={})  # noqa: B039
"""What steers each encoder (by its id) in this context. Never changed in place."""
_OPEN: WeakKeyDictionary[torch.nn.Module, int] = WeakKeyDictionary()
"""How many blocks steer a model at the moment."""
_LOCK = threading.Lock()


@contextmanager
def steer(
    model: WhisperForConditionalGeneration | WhisperModel,
    pack: str | os.PathLike[str] | SteerPack = "default",
    strength: float | Sequence[float] = 1.0,
    *,
    check: str = "weights",
    allow_empty: bool = True,
    steer_language_detection: bool = False,
    allow_overdrive: bool = False,
) -> Iterator[HfReport]:
    """Steers `model` while the block lasts, for calls from this thread (this context, to be exact) and no other.

    `strength` is one number, or one for each row of the batches that the model will get: then a batch of another size
    raises `SteerOptionError`. Inside another block on the same model, the inner one counts; in one block, one call at a
    time. `check` says by what the
    pack must fit: "weights" hashes the model's weights as CTranslate2 would store them; "dimensions", for a
    fine-tuned copy, only compares widths. Unless `allow_empty` is off, `generate` may end at once
    (`begin_suppress_tokens=[]`, if the caller gives none): Whisper forbids an empty answer otherwise. Language is
    detected on the plain encoder output unless `steer_language_detection`.

    Raises, before anything runs, `PackMismatchError`, `PackError`, `HookPointError` or `SteerOptionError`; and at the
    end of a block in which the encoder never ran, `NotSteeredError`.
    """
    strengths = _strengths(pack, strength, allow_overdrive)
    if not isinstance(model, WhisperForConditionalGeneration | WhisperModel):
        raise SteerOptionError(f"hf.steer needs a transformers Whisper model, not a {type(model).__name__}")
    fitting = _fitting_pack(model, pack, check)
    resolve_in_encoder(model, fitting)
    encoder = resolve(model, "encoder")
    report = HfReport(fitting.name, max(strengths), "hf", strengths=strengths, check=check)
    calls = SteeredCalls(fitting, strengths, report)
    calls.allow_empty, calls.steer_language_detection = allow_empty, steer_language_detection

    def in_force() -> bool:
        return _IN_FORCE.get().get(id(encoder)) is calls

    def watch(_encoder: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if in_force():
            calls.begin(args[0] if args else kwargs["input_features"])

    def edit(x: torch.Tensor) -> torch.Tensor | None:
        return calls.edit(x) if in_force() else None

    watcher = encoder.register_forward_pre_hook(watch, with_kwargs=True)
    try:
        with hooked(model, {fitting.hook_point: edit}), _doors(model, encoder), _put_in_force(encoder, calls):
            yield report
    finally:
        watcher.remove()
    calls.check_something_was_steered()


class HfTranscription(NamedTuple):
    """What `transcribe` returns."""

    text: str
    steer: HfReport | None


def load(
    name_or_path: str | os.PathLike[str] = "base", *, local_files_only: bool = False
) -> tuple[WhisperForConditionalGeneration, WhisperProcessor]:
    """A transformers Whisper in float32 with the weights of a CTranslate2 directory, and a processor for it.

    Found as `load_model` finds them. The processor's feature extractor is faster-whisper's front-end. Raises
    `ModelError` when there is no such model, `WeightsError` when its weights are int8.
    """
    files = find_model(name_or_path, local_files_only=local_files_only)
    model = hf_from_ct2(files.path)
    remember(model, files.sha256)
    model.config._name_or_path = files.name
    extractor = FasterWhisperFeatureExtractor(feature_size=model.config.num_mel_bins)
    tokenizer = WhisperTokenizer(tokenizer_file=os.fspath(files.path / "tokenizer.json"))
    return model, WhisperProcessor(extractor, tokenizer)


def transcribe(
    audio: Any,
    model: WhisperForConditionalGeneration,
    processor: WhisperProcessor,
    *,
    steer: Any = True,
    **options: Any,
) -> HfTranscription:
    """Transcribes one recording, float32 mono at 16 kHz, with `generate`: what other executors are compared with.

    `steer` is as everywhere in this package (see `parse_steer`); `early_exit` is not offered here. `options` are
    `generate`'s. For a pipeline, batches or timestamps use `steer` itself. Raises as the function `steer` does.
    """
    steering = parse_steer(steer)
    if steering is not None and steering.early_exit:
        raise SteerOptionError("early_exit is not offered by the hf executor, whose decoder is transformers' own")
    inputs = processor.feature_extractor(
        audio, sampling_rate=16000, return_tensors="pt", truncation=False, return_attention_mask=True
    )
    inputs = inputs.to(model.device, model.dtype)

    def write() -> str:
        tokens = model.generate(inputs.input_features, attention_mask=inputs.attention_mask, **options)
        return processor.batch_decode(tokens, skip_special_tokens=True)[0].strip()

    if steering is None:
        return HfTranscription(write(), None)
    if steering.max_wer_increase is not None:
        pack = _fitting_pack(model, steering.pack, CHECKS[0])
        steering = replace(steering.for_pack(pack), pack=pack)
    with _steer(
        model,
        steering.pack,
        steering.strength,
        steer_language_detection=steering.steer_language_detection,
        allow_overdrive=steering.allow_overdrive,
    ) as report:
        return HfTranscription(write(), report)


_steer = steer  # `transcribe` has an option of that name


def _strengths(pack: Any, strength: float | Sequence[float], allow_overdrive: bool) -> tuple[float, ...]:
    """One for all rows, or one for each; validated as `steer=` is."""
    if isinstance(strength, str) or (isinstance(strength, Sequence) and not strength):
        raise SteerOptionError(f"strength {strength!r} is not a number, and not a list with one number for each row")
    rows = tuple(strength) if isinstance(strength, Sequence) else (strength,)
    return tuple(float(Steering(pack, row, allow_overdrive=allow_overdrive).strength) for row in rows)


def _fitting_pack(model: Any, pack: str | os.PathLike[str] | SteerPack, check: str) -> SteerPack:
    """The pack that was asked for. Raises `PackMismatchError` when it is not for this model."""
    if check not in CHECKS:
        raise SteerOptionError(unknown_name("check", check, CHECKS))
    name = getattr(model.config, "_name_or_path", "") or type(model).__name__
    by_weights = check == "weights"
    if not isinstance(pack, SteerPack):
        if os.fspath(pack) == "default":
            return _default_pack(model, name, by_weights)
        pack = load_pack(pack)
    sha256 = pack.base_sha256
    if by_weights and sha256 not in (found := list(_until(fingerprints(model), sha256))):
        raise PackMismatchError(
            f"pack {pack.name!r} was made for {pack.base_model!r} (weights {sha256[:12]}...), the model is {name!r} "
            f"(weights {', '.join(f'{f[:12]}...' for f in found)}, by type on disk); check='dimensions' steers a "
            "fine-tuned copy of what a pack was made for"
        )
    pack.check_fits(sha256=sha256, model_name=name, d_model=model.config.d_model)
    return pack


def _default_pack(model: Any, name: str, by_weights: bool) -> SteerPack:
    """The pack that was made for these weights, whichever type they are stored in."""
    if not by_weights:
        raise PackError("with check='dimensions' a pack must be named: nothing else says which one is meant")
    error = PackError(f"no default pack for {name!r}")
    for sha256 in fingerprints(model):
        try:
            pack = load_pack("default", model_sha256=sha256, model_name=name)
        except PackError as reason:
            error = reason
        else:
            pack.check_fits(sha256=sha256, model_name=name, d_model=model.config.d_model)
            return pack
    raise error


def _until(found: Iterator[str], wanted: str) -> Iterator[str]:
    """Hashes up to the wanted one: each costs a pass over all weights."""
    for sha256 in found:
        yield sha256
        if sha256 == wanted:
            return


@contextmanager
def _put_in_force(encoder: torch.nn.Module, calls: SteeredCalls | None) -> Iterator[None]:
    token = _IN_FORCE.set({**_IN_FORCE.get(), id(encoder): calls})
    try:
        yield
    finally:
        _IN_FORCE.reset(token)


@contextmanager
def _doors(model: torch.nn.Module, encoder: torch.nn.Module) -> Iterator[None]:
    """Stands before `generate` and `detect_language` of the model while any block steers it.

    Calls that no block steers pass through unchanged, so it does not matter which thread opened the doors.
    """
    doors: dict[str, Callable[..., Any]] = {"generate": _generate, "detect_language": _detect_language}
    doors = {name: door for name, door in doors.items() if hasattr(model, name)}
    with _LOCK:
        _OPEN[model] = _OPEN.get(model, 0) + 1
        if _OPEN[model] == 1:
            for name, door in doors.items():
                original = getattr(model, name)
                wrapped = functools.wraps(original)(functools.partial(door, encoder, original))
                setattr(model, name, wrapped)
    try:
        yield
    finally:
        with _LOCK:
            _OPEN[model] -= 1
            if _OPEN[model] == 0:
                for name in doors:
                    _restore(model, name)


def _restore(model: torch.nn.Module, name: str) -> None:
    """Takes our door away. Somebody else's that was put before it in the meantime stays, and leads through ours."""
    ours = vars(model).get(name)
    if isinstance(ours, functools.partial) and ours.func in (_generate, _detect_language):
        delattr(model, name)
        original = ours.args[1]
        if getattr(model, name) != original:  # it was an attribute of this one model already
            setattr(model, name, original)


def _generate(encoder: torch.nn.Module, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    calls = _IN_FORCE.get().get(id(encoder))
    if calls is None:
        return original(*args, **kwargs)
    if calls.allow_empty:
        kwargs.setdefault("begin_suppress_tokens", [])
    config = kwargs.get("generation_config") or getattr(getattr(original, "__self__", None), "generation_config", None)
    copies = kwargs.get("num_return_sequences") or getattr(config, "num_return_sequences", None) or 1
    with calls.generating(copies, kwargs.get("monitor_progress")) as progress:
        return original(*args, **kwargs | {"monitor_progress": progress})


def _detect_language(encoder: torch.nn.Module, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    calls = _IN_FORCE.get().get(id(encoder))
    if calls is None or calls.steer_language_detection:
        return original(*args, **kwargs)
    with _put_in_force(encoder, None):
        return original(*args, **kwargs)
