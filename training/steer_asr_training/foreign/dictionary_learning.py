"""saprmarks/dictionary_learning: `ae.pt` (a state_dict) and `config.json`.

Read off `dictionary_learning/dictionary.py`, `trainers/top_k.py`, `batch_top_k.py`, `matryoshka_batch_top_k.py` and
`training.py` (commits 60ec6bf, 5ebe376, 088e587). By the keys of the state_dict:

| class | keys | encode |
| --- | --- | --- |
| `BatchTopKSAE`, `AutoEncoderTopK` | `encoder.weight [F, d]`, `encoder.bias`, `decoder.weight [d, F]`, `b_dec`, `k`, `threshold` | `relu(encoder(x - b_dec))`, then the largest |
| `MatryoshkaBatchTopKSAE` | `W_enc [d, F]`, `b_enc`, `W_dec [F, d]`, `b_dec`, `k`, scalar `threshold`, `group_sizes` | the same |
| `JumpReluAutoEncoder` | `W_enc`, `b_enc`, `W_dec`, `b_dec`, `threshold [F]` | input as it is; `f` times the decoder norms |
| `AutoEncoder` | `encoder.*`, `decoder.weight`, `bias` | `relu(encoder(x - bias))` |
| `AutoEncoderNew` | `encoder.*`, `decoder.weight`, `decoder.bias` | `relu(encoder(x))` |

`threshold` is -1 while unset: used as it is, every positive activation would fire. In a TopK it is a moving average of
the smallest activation that *any* frame of a batch keeps, far below what k per frame need. Both are left open here.
`normalize_activations` is folded into the biases after training (`scale_biases`), so inputs should be raw; that is
checked by reconstruction, not believed.
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from steer_asr._files import sha256_of
from steer_asr.errors import WeightsError
from steer_asr_training.foreign.files import integer, need, read_json, read_pt
from steer_asr_training.foreign.sae import ForeignSae, Kind, fold_decoder_norms, subtract_from_input

WEIGHTS_FILE, CONFIG_FILE = "ae.pt", "config.json"
FOREIGN_KEYS = {"r_mag": "gated", "gate_bias": "gated"}


def load(folder: Path) -> ForeignSae:
    """Raises `WeightsError` for broken files and for gated dictionaries."""
    path = folder / WEIGHTS_FILE
    tensors = read_pt(path)
    trainer = _trainer(folder)
    origin = {"path": str(path), "file": path.name, "sha256": sha256_of(path), "class": trainer.get("dict_class")}
    return from_tensors(tensors, path, trainer, format="dictionary_learning", origin=origin)


def from_tensors(
    tensors: Mapping[str, np.ndarray],
    path: Path,
    trainer: Mapping[str, Any],
    *,
    format: str,
    origin: Mapping[str, Any],
    hook_point: str | None = None,
) -> ForeignSae:
    """The dictionary of a state_dict; `trainer` is what `config.json` says of it."""
    for key, gated in FOREIGN_KEYS.items():
        if key in tensors:
            raise WeightsError(f"{path}: a {gated} dictionary, which a JumpReLU cannot stand for")
    known: dict[str, Any] = {"format": format, "hook_point": hook_point, "origin": dict(origin)}
    if "W_enc" in tensors:
        W_enc, b_enc, W_dec, b_dec, threshold = need(tensors, path, "W_enc", "b_enc", "W_dec", "b_dec", "threshold")
        if threshold.ndim == 1:
            return fold_decoder_norms(ForeignSae(kind="jumprelu", W_enc=W_enc, b_enc=b_enc, W_dec=W_dec, b_dec=b_dec,
                                                 threshold=threshold, **known))  # fmt: skip
    else:
        weight, b_enc, decoder = need(tensors, path, "encoder.weight", "encoder.bias", "decoder.weight")
        W_enc, W_dec = weight.T, decoder.T
        if "decoder.bias" in tensors:
            return ForeignSae(kind="relu", W_enc=W_enc, b_enc=b_enc, W_dec=W_dec, b_dec=tensors["decoder.bias"],
                              threshold=np.zeros_like(b_enc), **known)  # fmt: skip
        if "b_dec" not in tensors and "bias" in tensors:
            bias = tensors["bias"]
            return ForeignSae(kind="relu", W_enc=W_enc, b_enc=subtract_from_input(W_enc, b_enc, bias), W_dec=W_dec,
                              b_dec=bias, threshold=np.zeros_like(b_enc), **known)  # fmt: skip
        [b_dec] = need(tensors, path, "b_dec")
    k = tensors.get("k", trainer.get("k"))
    kind: Kind = "topk" if trainer.get("dict_class") == "AutoEncoderTopK" else "batch_topk"
    return ForeignSae(
        kind=kind,
        W_enc=W_enc,
        b_enc=subtract_from_input(W_enc, b_enc, b_dec),
        W_dec=W_dec,
        b_dec=b_dec,
        threshold=_threshold(tensors, len(b_enc), path) if kind == "batch_topk" else None,
        k=None if k is None else integer(k, "k", path),
        **known,
    )


def _threshold(tensors: Mapping[str, np.ndarray], n: int, path: Path) -> np.ndarray | None:
    """None where there is none, or where it was never set."""
    stored = tensors.get("threshold")
    if stored is None:
        return None
    if stored.size != 1:
        raise WeightsError(f"{path}: threshold has shape {stored.shape}; a number is expected")
    value = float(stored.reshape(()))
    return np.full(n, value, np.float32) if value >= 0 else None


def _trainer(folder: Path) -> Mapping[str, Any]:
    """The `trainer` part of `config.json`; nothing where there is no such file."""
    if not (folder / CONFIG_FILE).is_file():
        return {}
    trainer = read_json(folder / CONFIG_FILE).get("trainer", {})
    return trainer if isinstance(trainer, Mapping) else {}
