"""`steer-asr-train evaluate --model`: what Whisper writes when the reconstruction stands in for the activations.

    report = splice(windows, features, find_model("base"), n_windows=64)
    report["plain"]["sae"]["changed_words"]

The counterpart of "loss recovered" for speech recognition: a dictionary may explain most of the variance and still lose
what the decoder needs. Both texts come from the same greedy CTranslate2 decoder, with an empty answer allowed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import jiwer
import numpy as np
import torch

from steer_asr._progress import Progress
from steer_asr.errors import SteerOptionError, unknown_name
from steer_asr.models import ModelFiles
from steer_asr.sae import SaeFeatures
from steer_asr_training.analysis.activations import blocks
from steer_asr_training.analysis.inputs import StoredWindows, check_model
from steer_asr_training.analysis.whisper_rest import EncoderRest
from steer_asr_training.answers import BATCH, MODES, GreedyDecoder

SpliceFrames = Literal["all", "real"]
TRANSCRIBED = ("plain", "noisy", "placed")
"""Treatments that leave the words as the transcript has them."""
NO_SPACES = ("zh", "yue", "ja", "th", "lo", "my", "km")
"""Languages written without spaces: words cannot be counted."""


@dataclass(frozen=True)
class _Text:
    """What one window became in one mode, under one name."""

    window: int
    mode: str
    arm: str
    text: str


def splice(
    windows: StoredWindows,
    arms: Mapping[str, SaeFeatures],
    model: ModelFiles,
    *,
    n_windows: int = 64,
    frames: str = "all",
    seed: int = 0,
) -> dict[str, Any]:
    """Texts of `n_windows` windows, half speech and half non-speech where there are enough of both.

    `arms` are dictionaries by name; each one's reconstruction replaces the activations of all frames, or of those
    that hear audio. `stock` stands beside them: the stored activations themselves. Per mode and arm, JSON values.

    Raises `PackMismatchError` when the store comes from another model, `SteerOptionError` for other values.
    """
    check_splice(windows, model, n_windows, frames)
    chosen = _choose(windows, n_windows, np.random.default_rng(seed))
    texts = _decode(windows, arms, model, chosen, frames)
    names = ["stock", *arms]
    report: dict[str, Any] = {"windows": len(chosen), "frames": frames}
    for mode in MODES:
        stock = {t.window: t.text for t in texts if (t.mode, t.arm) == (mode, "stock")}
        by_arm = {name: {t.window: t.text for t in texts if (t.mode, t.arm) == (mode, name)} for name in names}
        report[mode] = {name: _scores(windows, found, stock) for name, found in by_arm.items()}
    return report


def check_splice(windows: StoredWindows, model: ModelFiles, n_windows: int, frames: str) -> None:
    """Raises what `splice` would, before any work."""
    if frames not in get_args(SpliceFrames):
        raise SteerOptionError(unknown_name("frames", frames, get_args(SpliceFrames)))
    if n_windows < 2:
        raise SteerOptionError(f"{n_windows} windows: splicing needs at least 2, one of each sort")
    check_model(windows, model)


def reconstruct(features: SaeFeatures, x: np.ndarray) -> np.ndarray:
    """float32 [frame, d_in] -> the same shape."""
    return np.concatenate(
        [features.encode(block) @ features.W_dec + features.b_dec for block in blocks(x, features.n_features)]
    )


def _choose(windows: StoredWindows, n: int, rng: np.random.Generator) -> list[int]:
    kinds = np.array([labels.kind == "speech" for labels in windows.labels])
    speech, quiet = (rng.permutation(np.flatnonzero(kinds == sort)) for sort in (True, False))
    n_speech = min(len(speech), max(n // 2, n - len(quiet)))
    return sorted([*map(int, speech[:n_speech]), *map(int, quiet[: n - n_speech])])


def _decode(
    windows: StoredWindows,
    arms: Mapping[str, SaeFeatures],
    model: ModelFiles,
    chosen: Sequence[int],
    frames: str,
) -> list[_Text]:
    decoder = GreedyDecoder(model.path, suppress_blank=False)
    rest = EncoderRest(model.path, windows.hook_point)

    def replaced(i: int, x: np.ndarray, features: SaeFeatures) -> np.ndarray:
        n = len(x) if frames == "all" else max(1, windows.store.n_real_frames(i))
        return np.concatenate([reconstruct(features, x[:n]), x[n:]])

    texts: list[_Text] = []
    with Progress(total=len(chosen), unit="window", label="splice") as progress, torch.inference_mode():
        for start in range(0, len(chosen), BATCH):
            chunk = list(chosen[start : start + BATCH])
            plain = [windows.padded(i) for i in chunk]
            langs = [windows.store.windows[i].get("lang") or "en" for i in chunk]
            inputs = {"stock": plain} | {
                name: [replaced(i, x, features) for i, x in zip(chunk, plain, strict=True)]
                for name, features in arms.items()
            }
            for arm, batch in inputs.items():
                memory = rest(torch.from_numpy(np.stack(batch))).numpy()
                for mode, timestamps in MODES.items():
                    answers = decoder(memory, langs, timestamps=timestamps)
                    texts += [
                        _Text(i, mode, arm, decoder.text(tokens)) for i, tokens in zip(chunk, answers, strict=True)
                    ]
            progress.advance(len(chunk))
    return texts


def _scores(windows: StoredWindows, found: Mapping[int, str], stock: Mapping[int, str]) -> dict[str, Any]:
    about = {i: windows.store.windows[i] for i in found}
    quiet = [text for i, text in found.items() if windows.labels[i].kind == "nonspeech"]
    spoken = [i for i in found if windows.labels[i].kind == "speech" and stock[i]]
    spaced = [i for i in spoken if about[i].get("lang", "") not in NO_SPACES]
    told = [
        i
        for i in found
        if windows.labels[i].kind == "speech"
        and about[i].get("treatment") in TRANSCRIBED
        and about[i].get("lang", "") not in NO_SPACES
        and words(about[i].get("text", ""))
    ]
    return {
        "nonspeech_windows": len(quiet),
        "nonspeech_with_text": _share(quiet, lambda text: bool(words(text))),
        "speech_windows": len(spoken),
        "newly_empty": _share(spoken, lambda i: not words(found[i])),
        "changed_words": _distance([stock[i] for i in spaced], [found[i] for i in spaced]),
        "transcribed_windows": len(told),
        "wer": _distance([about[i]["text"] for i in told], [found[i] for i in told]),
    }


def words(text: str) -> str:
    """Lower case, letters, digits and apostrophes only."""
    return " ".join(re.findall(r"[^\W_]+(?:'[^\W_]+)*", text.lower()))


def _distance(references: Sequence[str], texts: Sequence[str]) -> float | None:
    """Word errors over reference words, pooled; None without a reference word."""
    pairs = [(words(a), words(b)) for a, b in zip(references, texts, strict=True) if words(a)]
    return jiwer.process_words([a for a, _ in pairs], [b for _, b in pairs]).wer if pairs else None


def _share(items: Sequence[Any], true: Callable[[Any], bool]) -> float | None:
    return sum(map(true, items)) / len(items) if items else None
