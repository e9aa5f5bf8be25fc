"""The edit of `steer_asr.steering.steer_frames` for batches of torch tensors, on whatever device they lie.

    edited, reports = edit_for(pack, x.device)(x, strengths)      # x [batch, frame, d_in], one strength for each row

The same mathematics in the same order, so that both agree to rounding. What the `hybrid` and `hf` executors share.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch.nn import functional

from steer_asr.errors import HookPointError, PackMismatchError, unknown_name
from steer_asr.gate import NEGLIGIBLE_WEIGHT, Gate
from steer_asr.hooks import resolve
from steer_asr.pack import SteerPack
from steer_asr.steering import FrameReport

_EDITS: WeakKeyDictionary[SteerPack, dict[torch.device, TorchEdit]] = WeakKeyDictionary()


def edit_for(pack: SteerPack, device: torch.device) -> TorchEdit:
    """The edit of `pack` with its numbers on `device`; they are moved there once."""
    on_device = _EDITS.setdefault(pack, {})
    if device not in on_device:
        on_device[device] = TorchEdit(pack, device)
    return on_device[device]


def resolve_in_encoder(model: torch.nn.Module, pack: SteerPack) -> torch.nn.Module:
    """The module whose output `pack` edits. Raises `HookPointError` when there is none, or none in the encoder."""
    if not pack.hook_point.startswith("encoder."):
        known = [name.removeprefix("model.") for name, _ in model.named_modules()]
        raise HookPointError(
            f"pack {pack.name!r} edits outside the encoder: "
            + unknown_name("hook point", pack.hook_point, [n for n in known if n.startswith("encoder.layers.")][:64])
        )
    return resolve(model, pack.hook_point)


class TorchEdit:
    """A pack's edit; holds the pack's numbers as float32 tensors on one device."""

    def __init__(self, pack: SteerPack, device: torch.device) -> None:
        features, plan = pack.features, pack.edit_plan
        with torch.inference_mode(False):  # tensors made in inference mode could not be used outside of it
            self.W_enc, self.b_enc, self.threshold, self.W_dec, self.scale, self.add, self.cap, self.clamp = (
                torch.tensor(array, dtype=torch.float32, device=device)
                for array in (
                    features.W_enc, features.b_enc, features.threshold, features.W_dec,
                    plan.scale, plan.add, plan.cap, plan.clamp,
                )
            )  # fmt: skip
            self.gate = None if pack.gate is None else _TorchGate(pack.gate, device)
        self.name = pack.name

    def __call__(
        self, x: torch.Tensor, strengths: Sequence[float], audio_frames: Sequence[int] | None = None
    ) -> tuple[torch.Tensor, list[FrameReport]]:
        """`x + strength * weight * (z' - z) @ W_dec`, and for each row what was done to it.

        `audio_frames` says for each row where its padding begins (see `steer_asr.gate.Gate`); None: nowhere.
        `x` is [batch, frame, d_in] in any floating type, and is not changed; types narrower than float32 are edited in
        float32 and rounded back. Frames of weight 0, and rows of strength 0, are bit-identical in the result.
        Raises `PackMismatchError` when `x` has another shape.
        """
        if x.ndim != 3 or x.shape[-1] != len(self.W_enc):
            raise PackMismatchError(
                f"pack {self.name!r} edits activations of shape [batch, frame, {len(self.W_enc)}], "
                f"these are {list(x.shape)}"
            )
        with torch.autocast(x.device.type, enabled=False):  # autocast would multiply in half precision
            wide = x.float()
            z = wide @ self.W_enc + self.b_enc
            z = z * (z > self.threshold)
            if self.gate is None:
                weights, nobody_speaks, now = z.new_ones(z.shape[:2]), z.new_full(z.shape[:1], float("nan")), None
            else:
                weights, nobody_speaks, now = self.gate(z, audio_frames)
            weights = weights * torch.tensor(strengths, dtype=torch.float32, device=x.device)[:, None]
            change = (self._plan(z) - z) * weights[..., None]
            edited = torch.where(weights[..., None] > 0, (wide + change @ self.W_dec).to(x.dtype), x)
        return edited, _reports(weights, nobody_speaks, now, change, z)

    def _plan(self, z: torch.Tensor) -> torch.Tensor:
        """As `steer_asr.edits.EditPlan`."""
        edited = torch.minimum(z * self.scale + self.add, self.cap)
        return torch.where(self.clamp.isnan(), edited, self.clamp)


class _TorchGate:
    """As `steer_asr.gate.Gate`, for batches."""

    def __init__(self, gate: Gate, device: torch.device) -> None:
        self.gate = gate
        self.coefficients = torch.tensor(gate.coefficients, dtype=torch.float32, device=device)

    def __call__(
        self, z: torch.Tensor, audio_frames: Sequence[int] | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of `z` [batch, frame, n_features]: weights [batch, frame], and probabilities that nobody speaks, [batch] in
        the whole window and [batch, frame] at each moment."""
        gate = self.gate
        evidence = z @ self.coefficients + gate.bias
        if gate.smooth_frames > 1:  # over fewer frames at the edges
            evidence = functional.avg_pool1d(
                evidence[:, None], gate.smooth_frames, 1, gate.smooth_frames // 2, count_include_pad=False
            )[:, 0]
        reach, highest = gate.reach_frames, evidence.amax(dim=-1, keepdim=True)
        if reach >= evidence.shape[-1]:
            nearby = highest.expand_as(evidence)
        else:
            nearby = functional.max_pool1d(evidence[:, None], 2 * reach + 1, 1, reach)[:, 0]
        if audio_frames is not None:
            heard = torch.tensor(audio_frames, device=z.device)[:, None]
            nearby = torch.where(torch.arange(z.shape[1], device=z.device) < heard, nearby, highest)
        weights = _no(nearby, gate.frame_calibration)
        weights = weights.masked_fill(weights < NEGLIGIBLE_WEIGHT, 0.0)
        now = _no(evidence, gate.moment_calibration or gate.clip_calibration)
        return weights, _no(highest, gate.clip_calibration)[:, 0], now


def _no(log_odds: torch.Tensor, calibration: tuple[float, float]) -> torch.Tensor:
    slope, offset = calibration
    return 1 / (1 + torch.exp(torch.clamp(slope * log_odds + offset, -60, 60)))


def _reports(
    weights: torch.Tensor,
    nobody_speaks: torch.Tensor,
    now: torch.Tensor | None,
    change: torch.Tensor,
    z: torch.Tensor,
) -> list[FrameReport]:
    rows = [tensor.detach().cpu().numpy() for tensor in (weights, change.abs(), z)]
    moments = [None] * len(z) if now is None else now.detach().cpu().numpy()
    return [
        FrameReport(row_weights, probability, contribution, activations, moment)
        for probability, moment, row_weights, contribution, activations in zip(
            nobody_speaks.tolist(), moments, *rows, strict=True
        )
    ]
