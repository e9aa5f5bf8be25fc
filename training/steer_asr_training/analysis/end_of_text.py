"""How far each decoder direction moves Whisper towards ending its text where nobody speaks, to first order.

    effect = end_of_text_effect(windows, features.W_dec, find_model("base"))
    effect.mean[40]                     # d log p(end of text) / d alpha, alpha times row 40 being added to every frame

One backward pass per window serves all features: the gradient of the log-probability at the hook point, summed over the
window's frames, times the decoder rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from steer_asr._progress import Progress
from steer_asr.models import ModelFiles
from steer_asr_training.analysis.inputs import StoredWindows, check_model
from steer_asr_training.analysis.whisper_rest import EncoderRest
from steer_asr_training.decoder import FrozenDecoder
from steer_asr_training.objective import ObjectiveConfig, silence_loss
from steer_asr_training.store import ActivationStore

END_OF_TEXT_ALONE = ObjectiveConfig(no_speech_token=0.0)


@dataclass(frozen=True, eq=False)
class EndOfText:
    """Effects of decoder rows: float64 [n_features] each, in nats per unit of alpha."""

    mean: np.ndarray
    standard_error: np.ndarray
    """Of the mean, over windows; 0 for a single one."""
    n_windows: int


def end_of_text_effect(
    windows: StoredWindows, w_dec: np.ndarray, model: ModelFiles, *, n_windows: int = 16, seed: int = 0
) -> EndOfText | None:
    """Averaged over `n_windows` windows of non-speech and both decoding modes; None when there is no non-speech.

    The end of the text is the first thing said, with timestamps after a first timestamp drawn as in learning
    (`silence_loss`). `w_dec` is [n_features, d_in]; added to all frames of the window, padding included.
    Raises `PackMismatchError` when the store comes from another model.
    """
    check_model(windows, model)
    quiet = [i for i, labels in enumerate(windows.labels) if labels.kind == "nonspeech"]
    if not quiet or n_windows < 1:
        return None
    chosen = np.sort(np.random.default_rng(seed).permutation(quiet)[:n_windows])
    decoder, rest = FrozenDecoder(model.path, torch.float32, "cpu"), EncoderRest(model.path, windows.hook_point)
    effects = np.empty((len(chosen), len(w_dec)))
    with Progress(total=len(chosen), unit="window", label="end of text") as progress:
        for row, i in enumerate(map(int, chosen)):
            gradient = gradient_at(decoder, rest, windows.padded(i), language(windows.store, i), seed)
            effects[row] = w_dec.astype(np.float64) @ gradient
            progress.advance()
    error = effects.std(axis=0, ddof=1) / len(chosen) ** 0.5 if len(chosen) > 1 else np.zeros(len(w_dec))
    return EndOfText(effects.mean(axis=0), error, len(chosen))


def gradient_at(decoder: FrozenDecoder, rest: EncoderRest, x: np.ndarray, lang: str, seed: int) -> np.ndarray:
    """Gradient of log p(end of text), for a vector that is added to every frame of `x`: float64 [d_in]."""
    added = torch.zeros(x.shape[1], requires_grad=True)
    memory = rest(torch.from_numpy(x)[None] + added)
    silence_loss(decoder, memory, END_OF_TEXT_ALONE, np.random.default_rng(seed), [lang]).backward()
    assert added.grad is not None
    return -added.grad.numpy().astype(np.float64)


def language(store: ActivationStore, i: int) -> str:
    """The window's language; English where it has none."""
    return store.windows[i].get("lang") or "en"
