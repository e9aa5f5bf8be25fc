"""SAELens: `cfg.json` and `sae_weights.safetensors`, also as written before its version 6.

Read off `sae_lens/saes/*.py` and `loading/pretrained_sae_loaders.py` (commit 91ca16c, release 6.54.12). Keys:
`W_enc [d, F]`, `b_enc [F]`, `W_dec [F, d]`, `b_dec [d]`, for `jumprelu` also `threshold [F]`. `cfg.json`:

| field | |
| --- | --- |
| `architecture` | `standard` (ReLU), `jumprelu`, `topk`; BatchTopK and Matryoshka are saved as `jumprelu` |
| `apply_b_dec_to_input` | subtracted before encoding; true where the field is missing |
| `normalize_activations` | `none` (or null); `expected_average_only_in`: scaled so that the mean norm is the root of d. Others work frame by frame and cannot be folded |
| `k`, or `activation_fn_kwargs.k` | of `topk` |
| `rescale_acts_by_decoder_norm` | `topk` compares activations times decoder norms |
| `metadata.hook_name`, or `hook_name` | hook point |
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from steer_asr._files import sha256_of
from steer_asr.errors import WeightsError
from steer_asr.sae import CFG_FILE, WEIGHTS_FILE
from steer_asr_training.foreign.files import integer, need, read_json, read_safetensors
from steer_asr_training.foreign.sae import ForeignSae, fold_decoder_norms, subtract_from_input

ARCHITECTURES = {"standard": "relu", "jumprelu": "jumprelu", "topk": "topk"}


def load(folder: Path) -> ForeignSae:
    """Raises `WeightsError` for broken files, other architectures, and inputs that are normalised frame by frame."""
    path, config = folder / WEIGHTS_FILE, _todays_form(read_json(folder / CFG_FILE))
    kind = ARCHITECTURES.get(str(config["architecture"]))
    if kind is None:
        raise WeightsError(f"{folder}: architecture {config['architecture']!r}; {', '.join(ARCHITECTURES)} can be read")
    normalization = config["normalize_activations"]
    if normalization not in ("none", "expected_average_only_in"):
        raise WeightsError(
            f"{folder}: inputs are normalised frame by frame ({normalization!r}), which a JumpReLU on raw activations "
            "cannot express"
        )
    if config.get("reshape_activations", "none") != "none":
        raise WeightsError(
            f"{folder}: reshapes activations ({config['reshape_activations']!r}); encoders have none such"
        )
    if kind == "relu" and config.get("activation_fn", "relu") != "relu":
        raise WeightsError(f"{folder}: activation {config['activation_fn']!r}; relu can be read")
    tensors = read_safetensors(path)
    for name in ("scaling_factor", "finetuning_scaling_factor"):
        if name in tensors and not np.allclose(tensors[name], 1):
            raise WeightsError(f"{path}: {name} is not 1 everywhere; fold it with SAELens first")
    W_enc, b_enc, W_dec, b_dec = need(tensors, path, "W_enc", "b_enc", "W_dec", "b_dec")
    threshold = np.zeros_like(b_enc) if kind == "relu" else None
    if kind == "jumprelu":
        [threshold] = need(tensors, path, "threshold")
    sae = ForeignSae(
        format="saelens",
        kind=kind,  # pyright: ignore[reportArgumentType]
        W_enc=W_enc,
        b_enc=subtract_from_input(W_enc, b_enc, b_dec) if config["apply_b_dec_to_input"] else b_enc,
        W_dec=W_dec,
        b_dec=b_dec,
        threshold=threshold,
        k=integer(config.get("k"), "k", folder / CFG_FILE) if kind == "topk" else None,
        normalization=normalization,
        hook_point=_hook_point(config),
        origin={
            "path": str(path),
            "file": path.name,
            "sha256": sha256_of(path),
            "model_name": config.get("model_name"),
        },
    )
    return fold_decoder_norms(sae) if kind == "topk" and config.get("rescale_acts_by_decoder_norm") else sae


def _todays_form(config: Mapping[str, Any]) -> dict[str, Any]:
    """Older field names and defaults in today's words, with what stands in `metadata` beside them."""
    metadata = config.get("metadata")
    found = dict(metadata) if isinstance(metadata, Mapping) else {}
    found |= {name: value for name, value in config.items() if name != "metadata"}
    for old, new in (("hook_point", "hook_name"), ("activation_fn_str", "activation_fn")):
        if old in found and new not in found:
            found[new] = found[old]
    kwargs = found.get("activation_fn_kwargs")
    if found.get("activation_fn") == "topk" and isinstance(kwargs, Mapping):
        found |= {"architecture": "topk", "k": kwargs.get("k")}
    if isinstance(found.get("normalize_activations"), bool):
        found["normalize_activations"] = "expected_average_only_in" if found["normalize_activations"] else "none"
    defaults = {"architecture": "standard", "apply_b_dec_to_input": True}
    return defaults | found | {"normalize_activations": found.get("normalize_activations") or "none"}


def _hook_point(config: Mapping[str, Any]) -> str | None:
    """Module paths of an encoder are ours already; names of language models' hooks mean nothing here."""
    name = config.get("hook_name")
    return name if isinstance(name, str) and name.startswith("encoder.") else None
