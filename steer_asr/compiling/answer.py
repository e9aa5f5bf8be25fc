"""What a compiled decoder says where nobody speaks: one frame of its last residual that ends the text.

Behind the decoder's last LayerNorm every token is a direction, so the answer needs no audio and no search through the
layers: a vector on which the end of the text is all but certain, the first timestamp is the likeliest of its sort
(with timestamps on, one has to come first), and, where languages are told apart, English is the likeliest, without
much certainty. Needs the `[torch]` extra.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

EARLIER_TEXTS = ("", " And so we went home.", " Thank you. Thank you.", " 1 2 3")
LANGUAGES = ("en", "de", "es", "zh")
STEPS, LEARNING_RATE = 200, 0.05
STAMP_WEIGHT, LANGUAGE_WEIGHT = 0.3, 0.1
LANGUAGE_SURE = 0.3
"""English is made no likelier than this: it is a guess, and programs ask how sure it is."""


@dataclass(frozen=True)
class Answer:
    """The direction, and what the decoder's last matrix makes of it."""

    direction: np.ndarray
    """float32 [d_model], mean 0 and spread 1."""
    silence: float
    """Probability of the end of the text."""


def find_answer(model: Any, tokens: dict[str, int]) -> Answer:
    """`model` is a transformers Whisper, `tokens` its special tokens."""
    norm = model.model.decoder.layer_norm
    gamma, beta, matrix = (t.detach().float() for t in (norm.weight, norm.bias, model.proj_out.weight))
    end, first_stamp = tokens["<|endoftext|>"], tokens["<|notimestamps|>"] + 1
    english = tokens.get("<|en|>") if is_multilingual(tokens) else None
    languages = torch.arange(tokens["<|startoftranscript|>"] + 1, tokens["<|translate|>"])
    vector = (matrix[end] * gamma).clone().requires_grad_(True)
    optimiser = torch.optim.Adam([vector], LEARNING_RATE * float(vector.detach().std()))

    def logits() -> torch.Tensor:
        centred = vector - vector.mean()
        return matrix @ (centred / centred.std(unbiased=False) * gamma + beta)

    for _ in range(STEPS):
        found = logits()
        loss = -found.log_softmax(-1)[end] - STAMP_WEIGHT * found[first_stamp:].log_softmax(-1)[0]
        if english is not None:
            sure = found[languages].log_softmax(-1)[english - int(languages[0])]
            loss = loss - LANGUAGE_WEIGHT * sure.clamp(max=float(np.log(LANGUAGE_SURE)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        centred = (vector - vector.mean()).double()
        direction = (centred / centred.std(unbiased=False)).float()
        return Answer(direction.numpy(), float(logits().softmax(-1)[end]))


def is_multilingual(tokens: dict[str, int]) -> bool:
    """English-only models have the languages' tokens too, and never use them."""
    return tokens["<|endoftext|>"] == 50257


def prompts(tokens: dict[str, int], encode_text: Any) -> list[list[int]]:
    """Prompts with earlier text and without, in both modes, in several languages where the model knows them."""
    languages = [[tokens[f"<|{c}|>"], tokens["<|transcribe|>"]] for c in LANGUAGES if f"<|{c}|>" in tokens]
    found = []
    for number, text in enumerate(EARLIER_TEXTS):
        earlier = [tokens["<|startofprev|>"], *encode_text(text)] if text else []
        language = languages[number % len(languages)] if is_multilingual(tokens) and languages else []
        for ending in (tokens["<|notimestamps|>"], tokens["<|notimestamps|>"] + 1):
            found.append([*earlier, tokens["<|startoftranscript|>"], *language, ending])
    return found
