"""How CTranslate2 and Hugging Face name the same Whisper tensors. One table, read in both directions.

CTranslate2 stores attention inputs fused: `self_attention/linear_0` is query, key and value stacked, and
`attention/linear_1` (cross-attention) is key and value. Whisper's key projection has no bias; CTranslate2 keeps zeros
in its place. Weights are `[out, in]` on both sides, so nothing is transposed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One CTranslate2 variable and the Hugging Face tensors it holds, stacked along dimension 0.

    `None` among `hf` stands for a block of zeros: the key bias that Whisper does not have.
    """

    ct2: str
    hf: tuple[str | None, ...]


def entries(encoder_layers: int, decoder_layers: int) -> Iterator[Entry]:
    """All tensors of a Whisper model with the given depths, in CTranslate2's order of use."""
    for name in ("conv1", "conv2"):
        yield from _linear(f"encoder/{name}", f"model.encoder.{name}")
    yield Entry("encoder/position_encodings/encodings", ("model.encoder.embed_positions.weight",))
    for i in range(encoder_layers):
        yield from _block(f"encoder/layer_{i}", f"model.encoder.layers.{i}", cross_attention=False)
    yield from _norm("encoder/layer_norm", "model.encoder.layer_norm")

    yield Entry("decoder/embeddings/weight", ("model.decoder.embed_tokens.weight",))
    yield Entry("decoder/position_encodings/encodings", ("model.decoder.embed_positions.weight",))
    for i in range(decoder_layers):
        yield from _block(f"decoder/layer_{i}", f"model.decoder.layers.{i}", cross_attention=True)
    yield from _norm("decoder/layer_norm", "model.decoder.layer_norm")


def _block(ct2: str, hf: str, *, cross_attention: bool) -> Iterator[Entry]:
    yield from _norm(f"{ct2}/self_attention/layer_norm", f"{hf}.self_attn_layer_norm")
    yield from _fused(f"{ct2}/self_attention/linear_0", f"{hf}.self_attn", "qkv")
    yield from _linear(f"{ct2}/self_attention/linear_1", f"{hf}.self_attn.out_proj")
    if cross_attention:
        yield from _norm(f"{ct2}/attention/layer_norm", f"{hf}.encoder_attn_layer_norm")
        yield from _fused(f"{ct2}/attention/linear_0", f"{hf}.encoder_attn", "q")
        yield from _fused(f"{ct2}/attention/linear_1", f"{hf}.encoder_attn", "kv")
        yield from _linear(f"{ct2}/attention/linear_2", f"{hf}.encoder_attn.out_proj")
    yield from _norm(f"{ct2}/ffn/layer_norm", f"{hf}.final_layer_norm")
    yield from _linear(f"{ct2}/ffn/linear_0", f"{hf}.fc1")
    yield from _linear(f"{ct2}/ffn/linear_1", f"{hf}.fc2")


def _fused(ct2: str, hf: str, parts: str) -> Iterator[Entry]:
    yield Entry(f"{ct2}/weight", tuple(f"{hf}.{part}_proj.weight" for part in parts))
    yield Entry(f"{ct2}/bias", tuple(None if part == "k" else f"{hf}.{part}_proj.bias" for part in parts))


def _linear(ct2: str, hf: str) -> Iterator[Entry]:
    yield Entry(f"{ct2}/weight", (f"{hf}.weight",))
    yield Entry(f"{ct2}/bias", (f"{hf}.bias",))


def _norm(ct2: str, hf: str) -> Iterator[Entry]:
    yield Entry(f"{ct2}/gamma", (f"{hf}.weight",))
    yield Entry(f"{ct2}/beta", (f"{hf}.bias",))
