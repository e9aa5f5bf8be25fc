"""The silent memory: one frame that, as the whole of what the decoder hears, makes it say nothing.

It starts as what a pack makes of windows in which nobody speaks, averaged, and moves along the pack's decoder
directions, as steering does, until the decoder ends its text at once: with timestamps and without, after earlier text
and without, and with a high probability of `<|nospeech|>`. The same frame repeated is to cross-attention the same as
one frame, so the search costs a few seconds of decoder time and no audio. Needs the `[torch]` extra.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

EARLIER_TEXTS = ("", " And so we went home.", " Thank you. Thank you.", " 1 2 3")
LANGUAGES = ("en", "de", "es", "zh")
STEPS = 80
LEARNING_RATE = 0.1
ENOUGH_SILENCE, ENOUGH_NO_SPEECH = 0.95, 0.6
NO_SPEECH_WEIGHT, TIMESTAMP_WEIGHT, SIZE_WEIGHT = 0.2, 0.1, 1e-3


@dataclass(frozen=True)
class SilentMemory:
    """The frame, and how silent the decoder is on it."""

    frame: np.ndarray
    """float32 [d], in the scale of the encoder's output."""
    silence: float
    """Lowest probability of the end of the text as the first thing said, over all prompts."""
    no_speech: float
    """Lowest probability of `<|nospeech|>`."""


@dataclass(frozen=True)
class _Prompts:
    ids: torch.Tensor
    """int64 [prompt, token], padded behind."""
    last: torch.Tensor
    """Where the first spoken token is predicted."""
    start: torch.Tensor
    """Where `<|startoftranscript|>` stands."""
    stamped: torch.Tensor
    """Those with timestamps: there, `last` - 1 predicts the first timestamp."""
    eot: int
    no_speech: int
    first_timestamp: int


def find_silent_memory(
    model: Any, tokens: dict[str, int], encode_text: Any, start: np.ndarray, directions: np.ndarray, norm: Any
) -> SilentMemory:
    """`model` is a transformers Whisper, `tokens` its special tokens, `encode_text` gives the ids of a text.

    `start` is float [d], `directions` float [n, d], `norm` the (gamma, beta) of the encoder's last LayerNorm: the frame
    stays one that this LayerNorm can put out.
    """
    prompts = _prompts(tokens, encode_text)
    gamma, beta, origin, basis = (torch.tensor(a, dtype=torch.float32) for a in (*norm, start, directions))
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    amounts = torch.zeros(len(basis), requires_grad=True)
    optimiser = torch.optim.Adam([amounts], LEARNING_RATE)
    for _ in range(STEPS):
        frame = _renormalised(origin + amounts @ basis, gamma, beta)
        silence, no_speech, stamp = _log_probabilities(model, frame, prompts)
        if float(silence.detach().min().exp()) > ENOUGH_SILENCE and float(no_speech.detach().min().exp()) > (
            ENOUGH_NO_SPEECH
        ):
            break
        loss = -silence.mean() - NO_SPEECH_WEIGHT * no_speech.mean() - TIMESTAMP_WEIGHT * stamp.mean()
        loss = loss + SIZE_WEIGHT * amounts.abs().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        frame = _renormalised(origin + amounts @ basis, gamma, beta)
        silence, no_speech, _ = _log_probabilities(model, frame, prompts)
    return SilentMemory(frame.numpy(), float(silence.min().exp()), float(no_speech.min().exp()))


def _renormalised(frame: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor) -> torch.Tensor:
    plain = (frame - beta) / gamma
    plain = plain - plain.mean()
    return plain / plain.std(unbiased=False) * gamma + beta


def _log_probabilities(
    model: Any, frame: torch.Tensor, prompts: _Prompts
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rows = torch.arange(len(prompts.ids))
    memory = frame.expand(len(rows), 1, -1)
    hidden = model.model.decoder(input_ids=prompts.ids, encoder_hidden_states=memory).last_hidden_state

    def at(positions: torch.Tensor, token: int) -> torch.Tensor:
        return model.proj_out(hidden[rows, positions]).log_softmax(-1)[:, token]

    stamps = at(prompts.last - 1, prompts.first_timestamp)[prompts.stamped]
    return at(prompts.last, prompts.eot), at(prompts.start, prompts.no_speech), stamps


def _prompts(tokens: dict[str, int], encode_text: Any) -> _Prompts:
    """Every earlier text, in every mode, in every language (one, where the model knows one)."""
    languages = [[tokens[f"<|{c}|>"], tokens["<|transcribe|>"]] for c in LANGUAGES if f"<|{c}|>" in tokens]
    multilingual = tokens["<|endoftext|>"] == 50257  # English-only models have the tokens too, and never use them
    rows, starts, stamped = [], [], []
    for number, text in enumerate(EARLIER_TEXTS):
        earlier = [tokens["<|startofprev|>"], *encode_text(text)] if text else []
        language = languages[number % len(languages)] if multilingual and languages else []
        for ending in ([tokens["<|notimestamps|>"]], [tokens["<|notimestamps|>"] + 1]):
            rows.append([*earlier, tokens["<|startoftranscript|>"], *language, *ending])
            starts.append(len(earlier))
            stamped.append(ending[0] > tokens["<|notimestamps|>"])
    ids = torch.full((len(rows), max(map(len, rows))), tokens["<|endoftext|>"])
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
    no_speech = tokens.get("<|nospeech|>", tokens.get("<|nocaptions|>", tokens["<|notimestamps|>"] - 1))
    return _Prompts(
        ids,
        torch.tensor([len(row) - 1 for row in rows]),
        torch.tensor(starts),
        torch.tensor(stamped),
        tokens["<|endoftext|>"],
        no_speech,
        tokens["<|notimestamps|>"] + 1,
    )
