"""What a learned edit is rewarded for: silence on non-speech, and no change at all on speech.

On non-speech, cross-entropy to end-of-text as the first thing said, with and without timestamps, and to
`<|nospeech|>` at the start-of-transcript position. On speech, alone and over noise, Kullback-Leibler divergence from
the unsteered model along its own answer, in both modes. The idea of a silent target on noise and an unchanged one on
speech plus the same noise is Acoustic Abstention's; here nothing but a few feature scales moves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from steer_asr_training.answers import MODES
from steer_asr_training.decoder import FrozenDecoder, Mode, pad_tokens

MAX_POSITIONS = 40
FIRST_TOKEN_WEIGHT = 3.0
"""The first text token decides between silence and speech, so it counts this many times."""
MAX_INITIAL_TIMESTAMP = 50  # faster-whisper: 1.0 s in steps of 20 ms


@dataclass(frozen=True)
class ObjectiveConfig:
    """Weights of the parts of the loss."""

    speech: float = 8.0
    """Weight of the divergence on speech against the cross-entropy on non-speech."""
    no_speech_token: float = 0.1
    """Weight of `<|nospeech|>` at the start-of-transcript position."""
    sparsity: float = 0.02
    """Weight of the L1 penalty on what each feature's edit moves on average."""


def silence_loss(
    decoder: FrozenDecoder, x: torch.Tensor, config: ObjectiveConfig, rng: np.random.Generator, langs: Sequence[str]
) -> torch.Tensor:
    """Mean over windows and modes of -log p(end of text), plus the no-speech term. `x` is [batch, frame, d_model]."""
    memory, batch = decoder.attend(x), len(x)
    total = x.new_zeros(())
    every = torch.arange(batch)
    for timestamps in MODES.values():
        prompts = [decoder.prompt(Mode(timestamps, lang)) for lang in langs]
        first = len(prompts[0]) - 1
        if timestamps:  # a timestamp has to come first; mostly it is 0.00
            starts = np.where(rng.random(batch) < 0.7, 0, rng.integers(0, MAX_INITIAL_TIMESTAMP + 1, batch))
            prompts = [[*p, decoder.tokens.timestamp_begin + int(s)] for p, s in zip(prompts, starts, strict=True)]
            first += 1
        tokens = torch.tensor(prompts)
        log_probs = decoder.log_probs(
            memory, tokens, torch.cat([every, every]), torch.tensor([0] * batch + [first] * batch)
        )
        end_of_text = decoder.masked(log_probs[batch:], text_only=timestamps)[:, decoder.tokens.eot]
        no_speech = log_probs[:batch, decoder.tokens.no_speech]
        total = total - (end_of_text + config.no_speech_token * no_speech).mean()
    return total / len(MODES)


def speech_loss(
    decoder: FrozenDecoder,
    x: torch.Tensor,
    plain: torch.Tensor,
    answers: Sequence[Mapping[str, Sequence[int]]],
    langs: Sequence[str],
) -> torch.Tensor:
    """Mean over windows and modes of KL(unsteered || steered) along the unsteered answers.

    `x` is the steered and `plain` the unsteered encoder output, both [batch, frame, d_model].
    """
    memory = decoder.attend(x)
    with torch.no_grad():
        plain_memory = decoder.attend(plain)
    total = x.new_zeros(())
    for name, timestamps in MODES.items():
        prompts = [decoder.prompt(Mode(timestamps, lang)) for lang in langs]
        said = [list(answer[name])[:MAX_POSITIONS] for answer in answers]
        tokens = pad_tokens([p + a for p, a in zip(prompts, said, strict=True)], decoder.tokens.eot)
        rows, positions, weights = _wanted(len(prompts[0]), said, timestamps=timestamps)
        steered = decoder.masked(decoder.log_probs(memory, tokens, rows, positions))
        with torch.no_grad():
            target = decoder.masked(decoder.log_probs(plain_memory, tokens, rows, positions))
        terms = torch.where(target > -1e4, target.exp() * (target - steered), 0.0)
        total = total + (terms.sum(dim=1) * weights).sum() / len(answers)
    return total / len(MODES)


def _wanted(
    prompt_length: int, said: Sequence[Sequence[int]], *, timestamps: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(rows, positions, weights) of every token of the answers and of the end-of-text behind a complete one.

    Weights sum to 1 per row: long answers do not drown short ones.
    """
    rows, positions, weights = [], [], []
    first_text = 1 if timestamps else 0
    for row, answer in enumerate(said):
        n = len(answer) + (len(answer) < MAX_POSITIONS)
        raw = [FIRST_TOKEN_WEIGHT if i == first_text else 1.0 for i in range(n)]
        rows += [row] * n
        positions += range(prompt_length - 1, prompt_length - 1 + n)
        weights += [w / sum(raw) for w in raw]
    return torch.tensor(rows), torch.tensor(positions), torch.tensor(weights)
