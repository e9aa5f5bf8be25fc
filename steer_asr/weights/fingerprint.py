"""By what a transformers Whisper is recognised: the SHA-256 that its CTranslate2 `model.bin` has, or would have.

CTranslate2's converter writes a Whisper in one way only: every variable sorted by name, and a few fixed switches. So
the file can be hashed without being there, and a pack, bound to that hash, checked against a model from the hub.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from steer_asr.errors import WeightsError
from steer_asr.weights.convert import stack
from steer_asr.weights.ct2_format import ModelBin, serialized, stored_as
from steer_asr.weights.names import Entry, entries

DTYPES = ("float16", "float32", "bfloat16")
"""Types on disk, the usual one first."""
SWITCHES = {
    "decoder/activation": np.int8(3),  # GELU
    "decoder/alibi": np.int8(0),
    "decoder/alignment_heads": np.int16(1),
    "decoder/alignment_layer": np.int16(-1),
    "decoder/pre_norm": np.int8(1),
    "decoder/scale_embeddings": np.int8(0),
    "decoder/start_from_zero_embedding": np.int8(0),
}
ALIASES = {"decoder/projection/weight": "decoder/embeddings/weight"}

FILE = "file"

_KNOWN: WeakKeyDictionary[Any, tuple[int, dict[str, str]]] = WeakKeyDictionary()


def fingerprints(model: Any) -> Iterator[str]:
    """SHA-256 of the `model.bin` of `model`, a WhisperModel or WhisperForConditionalGeneration, in each type on disk.

    Computed when asked for, and remembered for as long as no weight changes. Types that cannot hold the weights are
    left out. Raises `WeightsError` when a tensor of a Whisper is missing.
    """
    version = _version(model)
    known_version, known = _KNOWN.get(model, (None, {}))
    if known_version != version:
        known = {}
        _KNOWN[model] = (version, known)
    if FILE in known:
        yield known[FILE]
    for dtype in DTYPES:
        if dtype not in known:
            known[dtype] = _sha256(model, dtype)
        if known[dtype]:
            yield known[dtype]


def remember(model: Any, sha256: str) -> None:
    """Notes that the weights of `model` were just read from a `model.bin` with this hash; nothing is computed then."""
    _KNOWN[model] = (_version(model), {FILE: sha256})


def _version(model: Any) -> int:
    """Another number once a weight was changed in place, moved or replaced."""
    return hash(tuple((p.data_ptr(), 0 if p.is_inference() else p._version) for p in model.parameters()))


def _sha256(model: Any, dtype: str) -> str:
    """Empty when the weights do not fit `dtype`."""
    digest = hashlib.sha256()
    try:
        for block in serialized(ModelBin(_Converted(model, dtype), ALIASES)):
            digest.update(block)
    except _DoNotFitError:
        return ""
    return digest.hexdigest()


class _DoNotFitError(Exception):
    """A weight is not finite in this type."""


class _Converted(Mapping[str, np.ndarray]):
    """A model's CTranslate2 variables, sorted by name, each converted when it is looked up."""

    def __init__(self, model: Any, dtype: str) -> None:
        config = model.config
        state = model.state_dict()
        if "encoder.conv1.weight" in state:  # a WhisperModel, without the language-model head
            state = {f"model.{name}": value for name, value in state.items()}
        made: dict[str, Callable[[], np.ndarray]] = {
            entry.ct2: partial(_stored, entry, state, dtype)
            for entry in entries(config.encoder_layers, config.decoder_layers)
        }
        heads = {
            f"{side}/num_heads": np.int16(getattr(config, f"{side}_attention_heads")) for side in ("encoder", "decoder")
        }
        made |= {name: partial(np.asarray, value) for name, value in (SWITCHES | heads).items()}
        self._made = dict(sorted(made.items()))

    def __getitem__(self, name: str) -> np.ndarray:
        return self._made[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)


def _stored(entry: Entry, state: dict[str, Any], dtype: str) -> np.ndarray:
    values = stack(entry, state)
    try:
        return stored_as(values, dtype)
    except WeightsError as error:
        raise _DoNotFitError from error
