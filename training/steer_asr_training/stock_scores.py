"""How stock Whisper judges the windows of a store, and the labels that published methods derive from it.

    windows, labels = window_labels("no_speech_prob", store, find_model("base"))     # int [n], int [n]

Label 1 is what an edit is to lead away from: speech, or non-speech that Whisper would have transcribed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import ctranslate2
import numpy as np
from faster_whisper.transcribe import get_suppressed_tokens

from steer_asr._files import atomic_path
from steer_asr._progress import Progress
from steer_asr.errors import SteerOptionError, unknown_name
from steer_asr.hooks import OUTPUT_HOOK_POINT
from steer_asr.models import ModelFiles
from steer_asr_training.answers import BATCH, MAX_TOKENS, GreedyDecoder
from steer_asr_training.store import ActivationStore

Labels = Literal["speech", "no_speech_prob", "whisper_rule"]


class StockScores(NamedTuple):
    """What stock Whisper says of each window; float64 [window] each."""

    no_speech_prob: np.ndarray
    """Probability of `<|nospeech|>` at the start-of-transcript position."""
    avg_logprob: np.ndarray
    """Mean log-probability of the answer's tokens, end of text included, as faster-whisper computes it."""


class Rule(NamedTuple):
    """When a window of non-speech counts as hallucinated."""

    hallucinated: Callable[[StockScores], np.ndarray]
    max_tokens: int
    """How much of the answer has to be decoded to tell."""


RULES: dict[str, Rule] = {
    "no_speech_prob": Rule(lambda scores: scores.no_speech_prob < 0.5, max_tokens=1),
    "whisper_rule": Rule(lambda s: (s.no_speech_prob < 0.6) | (s.avg_logprob > -1.0), max_tokens=MAX_TOKENS),
}
"""AudioSAE's (arXiv 2602.05027, section 3.4), and Whisper's own, which arXiv 2606.07473 uses."""


def window_labels(labels: Labels, store: ActivationStore, model: ModelFiles) -> tuple[np.ndarray, np.ndarray]:
    """(window indices, labels), int [n] each.

    "speech": every window, 1 where somebody speaks. The others: windows of non-speech only, 1 where stock Whisper
    takes them for speech (`RULES`); its scores are computed once and kept beside the activations.

    Raises `SteerOptionError` when the windows are all of one sort.
    """
    if labels not in get_args(Labels):
        raise SteerOptionError(unknown_name("labels", labels, get_args(Labels)))
    spoken = np.array([window["kind"] == "speech" for window in store.windows])
    if labels == "speech":
        if spoken.all() or not spoken.any():
            raise SteerOptionError(
                f"{store.folder} holds {'nothing but' if spoken.any() else 'no'} speech; labels 'speech' need both "
                "sorts: collect from a speech and a non-speech manifest"
            )
        return np.arange(len(store)), spoken.astype(int)
    windows = np.flatnonzero(~spoken)
    if not len(windows):
        raise SteerOptionError(f"{store.folder} holds no non-speech; labels {labels!r} are about nothing else")
    hallucinated = RULES[labels].hallucinated(_kept_scores(labels, store, windows, model)).astype(int)
    if len(set(hallucinated)) < 2:
        every = "every" if hallucinated[0] else "no"
        raise SteerOptionError(
            f"labels {labels!r}: stock {model.name!r} takes {every} one of {len(windows)} non-speech windows for "
            "speech, so there is nothing to tell apart; use labels 'speech', or collect more non-speech"
        )
    return windows, hallucinated


def stock_scores(store: ActivationStore, windows: Sequence[int], folder: Path, max_tokens: int) -> StockScores:
    """Scores of the unsteered model on the given windows: greedy, English, no timestamps, blank suppressed.

    At most `max_tokens` are decoded; `no_speech_prob` does not depend on it.
    """
    decoder = GreedyDecoder(folder, suppress_blank=True)
    tokens = decoder.tokenizer("en")
    prompt = [*tokens.sot_sequence, tokens.no_timestamps]
    rows = []
    with Progress(total=len(windows), unit="window", label="stock scores") as progress:
        for start in range(0, len(windows), BATCH):
            chunk = [int(i) for i in windows[start : start + BATCH]]
            x = np.stack([store.window(i, OUTPUT_HOOK_POINT) for i in chunk]).astype(np.float32)
            results = decoder.model.generate(
                ctranslate2.StorageView.from_array(x),
                [prompt] * len(chunk),
                beam_size=1,
                max_length=len(prompt) + max_tokens,
                return_scores=True,
                return_no_speech_prob=True,
                suppress_blank=True,
                suppress_tokens=list(get_suppressed_tokens(tokens, (-1,)) or ()),
            )
            for result in results:
                n = len(result.sequences_ids[0])
                # A score is a mean over the tokens without the end of text; over none it is not a number.
                rows.append((result.no_speech_prob, result.scores[0] * n / (n + 1) if n else -np.inf))
            progress.advance(len(chunk))
    return StockScores(*np.array(rows, np.float64).T)


def _kept_scores(labels: Labels, store: ActivationStore, windows: np.ndarray, model: ModelFiles) -> StockScores:
    path = store.folder / f"stock_{labels}.npz"
    made_for = json.dumps([model.sha256, store.header.get("windows_sha256"), windows.tolist()])
    if path.is_file():
        with np.load(path) as kept:
            if str(kept["made_for"]) == made_for:
                return StockScores(kept["no_speech_prob"], kept["avg_logprob"])
    scores = stock_scores(store, windows.tolist(), model.path, RULES[labels].max_tokens)
    with atomic_path(path) as temporary:
        np.savez(temporary, made_for=np.array(made_for), **scores._asdict())
    return scores
