"""What an edit does to held-out windows while it is learned, without decoding them.

    watch = Watch(decoder, store, features, gate)
    watch(edit)["text_rate"]            # share of non-speech on which text would come

Whether text comes is decided by the first token: it is text, or the end of it. That is read off one step of the
decoder, in both modes, and is a proxy: greedy decoding would write text just there, a beam may not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from steer_asr.errors import SteerOptionError
from steer_asr.gate import Gate
from steer_asr.hooks import OUTPUT_HOOK_POINT
from steer_asr.sae import SaeFeatures
from steer_asr_training.answers import MODES
from steer_asr_training.decoder import FrozenDecoder, Mode
from steer_asr_training.store import ActivationStore

WINDOWS = 24
"""Of speech, and as many of non-speech: spread over the store."""
STRENGTHS = (0.5, 1.0)
BATCH = 8


class Watch:
    """Held-out windows, edited as the finished pack would edit them. Raises `SteerOptionError` without either kind."""

    def __init__(
        self,
        decoder: FrozenDecoder,
        store: ActivationStore,
        features: SaeFeatures,
        gate: Gate,
        n_windows: int = WINDOWS,
    ) -> None:
        self.decoder, self.store, self.features, self.gate = decoder, store, features, gate
        kinds = np.array([window["kind"] for window in store.windows])
        pools = [np.flatnonzero(kinds == kind) for kind in ("nonspeech", "speech")]
        if not all(map(len, pools)):
            raise SteerOptionError(f"{store.folder}: watching a learning run needs held-out speech and non-speech")
        self.quiet, self.spoken = ([int(i) for i in _spread(pool, n_windows)] for pool in pools)

    @torch.no_grad()
    def __call__(self, edit: torch.Tensor) -> dict[str, float]:
        """`edit` is [2, n_features]: scale - 1, and what is added.

        `text_rate`: share of non-speech windows and modes on which the first token is text. `missed_rate`: share of
        speech windows on which it is the end. `..._at_half`: the same at half the strength.
        """
        found = {}
        for strength in STRENGTHS:
            name = "" if strength == 1.0 else "_at_half"
            found[f"text_rate{name}"] = 1 - self._ended(self.quiet, edit, strength)
            found[f"missed_rate{name}"] = self._ended(self.spoken, edit, strength)
        return found

    def _ended(self, windows: Sequence[int], edit: torch.Tensor, strength: float) -> float:
        """Share of windows and modes on which the decoder ends the text before it begins."""
        ended = []
        for start in range(0, len(windows), BATCH):
            chunk = windows[start : start + BATCH]
            x = torch.from_numpy(np.stack([self._edited(i, edit.numpy(), strength) for i in chunk]))
            langs = [self.store.windows[i]["lang"] or "en" for i in chunk]
            ended += [ends_at_once(self.decoder, x, langs, timestamps=timestamps) for timestamps in MODES.values()]
        return float(torch.cat(ended).float().mean())

    def _edited(self, window: int, edit: np.ndarray, strength: float) -> np.ndarray:
        x = self.store.window(window, OUTPUT_HOOK_POINT).astype(np.float32)
        z = self.features.encode(x)
        weights = self.gate(z, self.store.n_real_frames(window)).weights[:, None] * np.float32(strength)
        return x + ((z * edit[0] + edit[1]) * weights) @ self.features.W_dec


def ends_at_once(decoder: FrozenDecoder, x: torch.Tensor, langs: Sequence[str], *, timestamps: bool) -> torch.Tensor:
    """Whether the likeliest first token is the end of the text: bool [batch], for `x` [batch, frame, d_model].

    With timestamps, behind the first of them, 0.00.
    """
    prompts = [decoder.prompt(Mode(timestamps, lang)) for lang in langs]
    if timestamps:
        prompts = [[*prompt, decoder.tokens.timestamp_begin] for prompt in prompts]
    rows = torch.arange(len(x))
    last = torch.full_like(rows, len(prompts[0]) - 1)
    log_probs = decoder.log_probs(decoder.attend(x), torch.tensor(prompts), rows, last)
    return decoder.masked(log_probs, text_only=timestamps).argmax(dim=-1) == decoder.tokens.eot


def _spread(pool: np.ndarray, n: int) -> np.ndarray:
    n = min(n, len(pool))
    return pool[np.arange(n) * len(pool) // n]
