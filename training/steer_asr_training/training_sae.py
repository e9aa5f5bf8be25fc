"""The sparse autoencoder while it is trained: BatchTopK with AuxK, exported as JumpReLU.

Training and inference are two shapes on purpose: a BatchTopK picks the k * n largest activations of a batch, so what a
frame shows depends on its neighbours; the exported JumpReLU has a fixed threshold and depends on the frame alone
(Bussmann et al., arXiv 2412.06410). Inputs are centred and scaled by measured numbers, which `export` folds away.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from steer_asr.errors import SteerOptionError
from steer_asr.sae import SaeFeatures


@dataclass(frozen=True)
class SaeConfig:
    """Size and sparsity of the dictionary."""

    d_in: int
    d_sae: int
    """Number of features."""
    k: float = 32
    """Mean number of active features per frame."""
    aux_k_coefficient: float = 1 / 32
    """Weight of the loss that revives dead features (Gao et al., arXiv 2406.04093)."""
    dead_after_frames: int = 200_000
    """A feature that fired on none of the last so many frames counts as dead."""


@dataclass(frozen=True, eq=False)
class StepOutput:
    """Losses and statistics of one batch."""

    loss: torch.Tensor
    fvu: torch.Tensor
    """Fraction of variance unexplained in this batch."""
    n_dead: int


class BatchTopKSae(nn.Module):
    """Shapes: W_enc [d_in, d_sae], W_dec [d_sae, d_in] with unit rows, in centred and scaled units."""

    input_mean: torch.Tensor
    input_scale: torch.Tensor
    threshold: torch.Tensor
    frames_since_fired: torch.Tensor

    def __init__(self, config: SaeConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        directions = torch.randn(config.d_sae, config.d_in, generator=generator)
        directions /= directions.norm(dim=1, keepdim=True)
        self.W_dec = nn.Parameter(directions)
        self.W_enc = nn.Parameter(directions.T.clone())
        self.b_enc = nn.Parameter(torch.zeros(config.d_sae))
        self.b_dec = nn.Parameter(torch.zeros(config.d_in))
        self.register_buffer("input_mean", torch.zeros(config.d_in))
        self.register_buffer("input_scale", torch.ones(()))
        self.register_buffer("threshold", torch.full((), -1.0, dtype=torch.float64))
        self.register_buffer("frames_since_fired", torch.zeros(config.d_sae, dtype=torch.int64))

    @torch.no_grad()
    def measure_input(self, x: torch.Tensor) -> None:
        """Takes centre and scale from a sample, [frame, d_in]: afterwards the mean norm is sqrt(d_in)."""
        self.input_mean.copy_(x.mean(dim=0))
        self.input_scale.copy_(self.config.d_in**0.5 / (x - self.input_mean).norm(dim=1).mean())

    def forward(self, x: torch.Tensor, k: float) -> StepOutput:
        """One training step's losses on `x`, [frame, d_in], keeping `k` features per frame on average."""
        x = (x - self.input_mean) * self.input_scale
        hidden = torch.relu((x - self.b_dec) @ self.W_enc + self.b_enc)
        z = self._batch_top_k(hidden, k)
        self._count_dead(z)
        residual = x - (z @ self.W_dec + self.b_dec)
        mse = residual.square().sum(dim=1).mean()
        variance = (x - x.mean(dim=0)).square().sum(dim=1).mean()
        dead = self.frames_since_fired > self.config.dead_after_frames
        loss = mse / variance + self.config.aux_k_coefficient * self._aux_loss(hidden, residual.detach(), dead)
        return StepOutput(loss, (mse / variance).detach(), int(dead.sum()))

    def _batch_top_k(self, hidden: torch.Tensor, k: float) -> torch.Tensor:
        kept = hidden.flatten().topk(int(k * len(hidden)), sorted=False)
        smallest = kept.values.detach().min()
        if self.training and k == self.config.k:
            self._track_threshold(float(smallest))
        return hidden * (hidden >= smallest)

    def _track_threshold(self, smallest: float) -> None:
        """Moving average of the smallest kept activation; in float64, since steps are small (arXiv 2412.06410)."""
        before = float(self.threshold)
        self.threshold.fill_(smallest if before < 0 else before + 0.02 * (smallest - before))

    @torch.no_grad()
    def _count_dead(self, z: torch.Tensor) -> None:
        self.frames_since_fired += len(z)
        self.frames_since_fired[(z > 0).any(dim=0)] = 0

    def _aux_loss(self, hidden: torch.Tensor, residual: torch.Tensor, dead: torch.Tensor) -> torch.Tensor:
        """Asks dead features to explain what the living ones leave over, relative to its variance."""
        n = min(int(dead.sum()), self.config.d_in // 2)
        if n == 0:
            return residual.new_zeros(())
        top = hidden[:, dead].topk(n, dim=1)
        revived = torch.zeros(len(hidden), int(dead.sum())).scatter(1, top.indices, top.values) @ self.W_dec[dead]
        error = (residual - revived).square().sum(dim=1).mean()
        return error / residual.square().sum(dim=1).mean().clamp_min(1e-9)

    @torch.no_grad()
    def project_gradients(self) -> None:
        """Removes the part of the decoder's gradient along its rows: their length is fixed, only turns count."""
        if self.W_dec.grad is not None:
            along = (self.W_dec.grad * self.W_dec).sum(dim=1, keepdim=True)
            self.W_dec.grad -= along * self.W_dec

    @torch.no_grad()
    def normalize_decoder(self) -> None:
        self.W_dec /= self.W_dec.norm(dim=1, keepdim=True).clamp_min(1e-8)

    @torch.no_grad()
    def export(self) -> SaeFeatures:
        """The whole dictionary as a JumpReLU on raw activations, in the model's own units, with unit decoder rows.

        Raises `SteerOptionError` while the threshold is unset: every positive pre-activation would fire.
        """
        if float(self.threshold) < 0:
            raise SteerOptionError("the SAE has no threshold yet; train it for some steps at its final k first")
        scale = float(self.input_scale)
        bias = (self.b_enc - self.b_dec @ self.W_enc) / scale - self.input_mean @ self.W_enc
        return SaeFeatures(
            W_enc=self.W_enc.detach().numpy().copy(),
            b_enc=bias.numpy(),
            threshold=torch.full_like(self.b_enc, float(self.threshold) / scale).numpy(),
            W_dec=self.W_dec.detach().numpy().copy(),
            b_dec=(self.b_dec / scale + self.input_mean).numpy(),
        )
