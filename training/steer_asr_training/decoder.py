"""The frozen decoder, asked what it would write next: differentiable in the encoder output, and nothing else.

    memory = decoder.attend(x)                       # x [batch, frame, d_model]; keys and values of every layer, once
    log_probs = decoder.log_probs(memory, tokens, rows, positions)     # [i, vocab]; any number of times

Whisper's cost on a short text lies almost entirely in projecting 1500 frames to cross-attention keys and values, so
that is done once per window and shared by all decoding modes.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import get_suppressed_tokens
from tokenizers import Tokenizer as HfTokenizer
from torch import nn
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.models.whisper.modeling_whisper import WhisperDecoder

from steer_asr.weights.convert import FULL_VOCABULARY, hf_from_ct2

CACHE_ARGUMENT = "cache" if "cache" in inspect.signature(WhisperDecoder.forward).parameters else "past_key_values"
"""transformers 5.24 renamed it."""


@dataclass(frozen=True)
class Mode:
    """A way of decoding that a pack is made for."""

    timestamps: bool
    lang: str = "en"

    @property
    def name(self) -> str:
        return "timestamps" if self.timestamps else "plain"


class FrozenDecoder:
    """A Whisper decoder without gradients of its own."""

    def __init__(self, folder: Path, dtype: torch.dtype, device: str) -> None:
        whisper = hf_from_ct2(folder)
        whisper.requires_grad_(False)
        nn.Module.to(whisper, device)
        self.decoder, self.embedding = whisper.model.decoder, whisper.model.decoder.embed_tokens.weight
        self.config, self.dtype, self.device = whisper.config, dtype, device
        self.multilingual = whisper.config.vocab_size >= FULL_VOCABULARY
        self._tokenizer = HfTokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokens = self.tokenizer("en")
        suppressed = torch.zeros(whisper.config.vocab_size)
        suppressed[list(get_suppressed_tokens(self.tokens, (-1,)) or ())] = float("-inf")
        self._suppressed = suppressed.to(device)

    def tokenizer(self, lang: str) -> Tokenizer:
        lang = lang if self.multilingual else "en"
        return Tokenizer(self._tokenizer, self.multilingual, task="transcribe", language=lang)

    def prompt(self, mode: Mode) -> list[int]:
        """Tokens that the decoder is started with in a mode."""
        tokens = self.tokenizer(mode.lang)
        return tokens.sot_sequence + ([] if mode.timestamps else [tokens.no_timestamps])

    def attend(self, x: torch.Tensor) -> EncoderDecoderCache:
        """Cross-attention keys and values of `x`, [batch, frame, d_model], for every layer."""
        cross = DynamicCache()
        with self._autocast():
            for i, layer in enumerate(self.decoder.layers):
                attention: Any = layer.encoder_attn
                cross.update(_heads(attention, attention.k_proj(x)), _heads(attention, attention.v_proj(x)), i)
        return EncoderDecoderCache(DynamicCache(), cross)

    def log_probs(
        self, memory: EncoderDecoderCache, tokens: torch.Tensor, rows: torch.Tensor, positions: torch.Tensor
    ) -> torch.Tensor:
        """Log-probabilities of the token after position `positions[i]` of row `rows[i]` of `tokens`: [i, vocab].

        `tokens` is [batch, position], one row per window of `memory`. Nothing is suppressed here; see `masked`.
        Only the wanted positions are projected to the vocabulary, which costs more than the rest of a short text.
        """
        cache = EncoderDecoderCache(DynamicCache(), memory.cross_attention_cache)
        cache.is_updated = dict.fromkeys(range(len(self.decoder.layers)), True)
        unused = torch.empty(len(tokens), 1, self.config.d_model, device=self.device)  # its keys are in the cache
        with self._autocast():
            hidden = self.decoder(
                input_ids=tokens, encoder_hidden_states=unused, use_cache=True, **{CACHE_ARGUMENT: cache}
            ).last_hidden_state
            logits = nn.functional.linear(hidden[rows, positions], self.embedding)
        return logits.float().log_softmax(dim=-1)

    def masked(self, log_probs: torch.Tensor, *, text_only: bool = False) -> torch.Tensor:
        """Renormalises over the tokens that decoding allows; `text_only` also forbids timestamps."""
        allowed = log_probs + self._suppressed
        if text_only:
            allowed[..., self.tokens.timestamp_begin :] = float("-inf")
        return allowed.log_softmax(dim=-1)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device, dtype=self.dtype, enabled=self.dtype != torch.float32)


def _heads(attention: Any, projected: torch.Tensor) -> torch.Tensor:
    batch, frames, _ = projected.shape
    return projected.view(batch, frames, attention.num_heads, attention.head_dim).transpose(1, 2)


def pad_tokens(rows: Sequence[Sequence[int]], pad: int) -> torch.Tensor:
    """Right-padded int64 [row, position]; attention is causal, so what follows a row's end cannot reach it."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows])
