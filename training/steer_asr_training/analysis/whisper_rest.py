"""From a hook point to the encoder's final output: the layers that are left, in torch, without gradients of their own.

rest = EncoderRest(folder, "encoder.layers.3")
rest(x)                      # [batch, 1500, d_model] -> the same shape; the identity at "encoder.output"
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from steer_asr.errors import HookPointError, unknown_name
from steer_asr.hooks import OUTPUT_HOOK_POINT
from steer_asr.weights.convert import hf_from_ct2


class EncoderRest:
    """What a Whisper encoder does to the output of one of its layers. Raises `HookPointError` for an unknown one."""

    def __init__(self, folder: Path, hook_point: str) -> None:
        self.layers: list[nn.Module] = []
        if hook_point == OUTPUT_HOOK_POINT:
            return
        encoder = hf_from_ct2(folder).model.encoder.requires_grad_(False)
        points = [f"encoder.layers.{i}" for i in range(len(encoder.layers))]
        if hook_point not in points:
            raise HookPointError(unknown_name("hook point", hook_point, [*points, OUTPUT_HOOK_POINT]))
        self.layers = [*encoder.layers[points.index(hook_point) + 1 :], encoder.layer_norm]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers[:-1]:
            output = layer(x, None)
            x = output[0] if isinstance(output, tuple) else output  # transformers 4 returns a tuple
        return self.layers[-1](x) if self.layers else x
