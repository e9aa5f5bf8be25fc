"""One encoder pass for all systems and modes of a clip.

All systems here run the same weights, and the encoder is most of the work: with two systems in two modes, sharing it
makes a run about three times as fast and changes no text. It does make latencies meaningless, so the report says so.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Any

import ctranslate2
import numpy as np

KEPT_WINDOWS = 24
"""A window of base takes 3 MB; a clip of twelve minutes still fits."""


class EncoderMemory:
    """The plain encoder outputs of the windows seen last, by a digest of their mel features."""

    def __init__(self) -> None:
        self._outputs: OrderedDict[bytes, np.ndarray] = OrderedDict()

    def get(self, features: ctranslate2.StorageView, encode: Any) -> ctranslate2.StorageView:
        """The output for `features`: remembered, or made by `encode`. Always a copy: steering edits in place."""
        key = hashlib.sha256(np.asarray(features).tobytes()).digest()
        if key not in self._outputs:
            self._outputs[key] = np.array(encode(), dtype=np.float32)
            while len(self._outputs) > 1 and sum(map(len, self._outputs.values())) > KEPT_WINDOWS:
                self._outputs.popitem(last=False)  # the batched pipeline has eight windows in one output
        return ctranslate2.StorageView.from_array(self._outputs[key].copy())


class SharedEncoder:
    """A CTranslate2 Whisper that does not encode a window again which another system has had encoded. CPU only."""

    def __init__(self, model: Any, memory: EncoderMemory) -> None:
        self._wrapped, self._memory = model, memory

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapped, name)

    def encode(self, features: ctranslate2.StorageView, to_cpu: bool = False) -> ctranslate2.StorageView:
        return self._memory.get(features, lambda: self._wrapped.encode(features, to_cpu=to_cpu))
