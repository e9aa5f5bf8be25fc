"""Sparse autoencoders while they are trained: what all kinds share, and BatchTopK. The other kinds: `sae_kinds.py`.

A kind is a `TrainingSae` that says which features are kept (`activate`) and from which thresholds on a feature fires
after export (`thresholds`); it may add a penalty (`sparsity_loss`) or change the error (`reconstruction_loss`).

What is kept is a matrix of zeros with a few entries. A step is computed over these alone (`select`, `sparse_code.py`),
or as if it were full (`activate`): the results are the same up to rounding, and `SaeConfig.decode` says which.

Training and inference are two shapes on purpose: a BatchTopK picks the k * n largest activations of a batch, so what a
frame shows depends on its neighbours; the exported JumpReLU has a fixed threshold and depends on the frame alone
(Bussmann et al., arXiv 2412.06410). Inputs are centred and scaled by measured numbers, which `export` folds away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import nn

from steer_asr.errors import SteerOptionError
from steer_asr.sae import SaeFeatures
from steer_asr_training.global_batch import LocalBatch
from steer_asr_training.sparse_code import Entries, SparseCode, encode, pre_activations
from steer_asr_training.top_k import largest_of_batch

SPARSE_BELOW = 1 / 16
"""Share of activations kept up to which it is faster, on a CPU, to go by entries."""


@dataclass(frozen=True)
class SaeConfig:
    """Size and sparsity of the dictionary. The last fields are for one kind each, which `sae_kinds.py` explains."""

    d_in: int
    d_sae: int
    """Number of features."""
    k: float = 32
    """Mean number of active features per frame."""
    aux_k_coefficient: float = 1 / 32
    """Weight of the loss that revives dead features (Gao et al., arXiv 2406.04093)."""
    dead_after_frames: int = 200_000
    """A feature that fired on none of the last so many frames counts as dead."""
    prefix_shares: tuple[float, ...] = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
    """Matryoshka: the nested dictionaries, as shares of `d_sae`; the last one is 1."""
    l0_penalty: Literal["target", "linear"] = "target"
    """JumpReLU: "target" is `(L0 / k - 1)^2`, "linear" is `L0` and leaves `k` aside."""
    l0_coefficient: float = 1.0
    """JumpReLU: weight of the penalty, relative to a reconstruction error that is 1 when nothing is explained."""
    bandwidth: float = 0.1
    """JumpReLU: width of the window around a threshold whose activations move it, in scaled units."""
    decode: Literal["auto", "dense", "sparse"] = "auto"
    """How a step is computed; "auto" is sparse on a CPU where at most 1 of 16 activations is kept, else dense."""


@dataclass(frozen=True, eq=False)
class StepOutput:
    """Losses and statistics of one batch."""

    loss: torch.Tensor
    fvu: torch.Tensor
    """Fraction of variance unexplained in this batch."""
    n_dead: int
    l0: torch.Tensor
    """Mean number of features kept per frame."""


class TrainingSae(nn.Module):
    """Shapes: W_enc [d_in, d_sae], W_dec [d_sae, d_in] with unit rows, in centred and scaled units."""

    input_mean: torch.Tensor
    input_scale: torch.Tensor
    frames_since_fired: torch.Tensor

    def __init__(self, config: SaeConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        self.batch = LocalBatch()
        directions = torch.randn(config.d_sae, config.d_in, generator=generator)
        directions /= directions.norm(dim=1, keepdim=True)
        self.W_dec = nn.Parameter(directions)
        self.W_enc = nn.Parameter(directions.T.clone())
        self.b_enc = nn.Parameter(torch.zeros(config.d_sae))
        self.b_dec = nn.Parameter(torch.zeros(config.d_in))
        self.register_buffer("input_mean", torch.zeros(config.d_in))
        self.register_buffer("input_scale", torch.ones(()))
        self.register_buffer("frames_since_fired", torch.zeros(config.d_sae, dtype=torch.int64))

    def activate(self, hidden: torch.Tensor, k: float) -> torch.Tensor:
        """`hidden`, non-negative [frame, d_sae], with all but the kept features set to 0: about `k` per frame."""
        raise NotImplementedError

    def select(self, pre: torch.Tensor, k: float) -> Entries | None:
        """Of pre-activations [frame, d_sae], those that `activate` keeps, or that get a gradient from it.

        None when these are too many, so that the full matrix is faster.
        """
        raise NotImplementedError

    def activate_selected(self, hidden: SparseCode) -> SparseCode:
        """What `activate` makes of the selected activations."""
        return hidden

    def thresholds(self) -> torch.Tensor:
        """float32 [d_sae], in scaled units: a feature of the exported dictionary fires above it.

        Raises `SteerOptionError` while there is none.
        """
        raise NotImplementedError

    def sparsity_loss(self, hidden: torch.Tensor | SparseCode, k: float) -> torch.Tensor:  # noqa: ARG002
        """What a kind that is not sparse by construction pays for its features."""
        return self.b_dec.new_zeros(())

    def reconstruction_loss(self, x: torch.Tensor, z: torch.Tensor | SparseCode, mse: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """What is minimised, in the units of `mse`, the mean squared error per frame of the whole dictionary."""
        return mse

    @torch.no_grad()
    def measure_input(self, x: torch.Tensor, k: float | None = None) -> None:  # noqa: ARG002  (for kinds to override)
        """Takes centre and scale from a sample, [frame, d_in]: afterwards the mean norm is sqrt(d_in).

        `k` is the number of features per frame that training starts with, `config.k` if not given.
        """
        self.input_mean.copy_(x.mean(dim=0))
        self.input_scale.copy_(self.config.d_in**0.5 / (x - self.input_mean).norm(dim=1).mean())

    def forward(self, x: torch.Tensor, k: float, penalty: float = 1.0) -> StepOutput:
        """One training step's losses on raw activations `x`, [frame, d_in], keeping `k` features per frame on average.

        `penalty` is the share of the full sparsity penalty. Dead features are counted in training mode only.
        """
        x = (x - self.input_mean) * self.input_scale
        hidden = self._encode_selected(x, k)
        if hidden is None:
            hidden = self.encode(x)
            z = self.activate(hidden, k)
            n_fired = (z.detach() > 0).sum(dim=0)
        else:
            z = self.activate_selected(hidden)
            n_fired = z.n_fired()
        n_fired, n_frames = self.batch.count(n_fired), self.batch.size(len(x))
        if self.training:
            self._count_dead(n_fired, n_frames)
        residual = x - (z @ self.W_dec + self.b_dec)
        mse = self.batch.mean(residual.square().sum(dim=1))
        variance = self.batch.mean((x - self.batch.mean(x)).square().sum(dim=1))
        dead = self.frames_since_fired > self.config.dead_after_frames
        loss = self.reconstruction_loss(x, z, mse) / variance
        loss = loss + self.config.aux_k_coefficient * self._aux_loss(x, hidden, residual.detach(), dead)
        loss = loss + penalty * self.sparsity_loss(hidden, k)
        return StepOutput(loss, (mse / variance).detach(), int(dead.sum()), n_fired.sum() / n_frames)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Activations before any are dropped, [frame, d_sae], of scaled `x`."""
        return torch.relu(torch.addmm(self.b_enc, x - self.b_dec, self.W_enc))

    def _encode_selected(self, x: torch.Tensor, k: float) -> SparseCode | None:
        """The activations of scaled `x` that matter; None where the whole matrix is to be computed with gradients."""
        decode = self.config.decode
        if decode == "dense" or (decode == "auto" and (x.is_cuda or k > SPARSE_BELOW * self.config.d_sae)):
            return None
        pre = pre_activations(x - self.b_dec, self.W_enc, self.b_enc)
        entries = self.select(pre, k)
        return None if entries is None else encode(entries, pre, x, self.b_dec, self.W_enc, self.b_enc)

    @torch.no_grad()
    def _count_dead(self, n_fired: torch.Tensor, n_frames: int) -> None:
        self.frames_since_fired += n_frames
        self.frames_since_fired[n_fired > 0] = 0

    def _aux_loss(
        self, x: torch.Tensor, hidden: torch.Tensor | SparseCode, residual: torch.Tensor, dead: torch.Tensor
    ) -> torch.Tensor:
        """Asks dead features to explain what the living ones leave over, relative to its variance."""
        n_dead = int(dead.sum())
        n = min(n_dead, self.config.d_in // 2)
        if n == 0 or self.config.aux_k_coefficient == 0:
            return residual.new_zeros(())
        if isinstance(hidden, SparseCode):  # it has none of the dead
            hidden_dead = torch.relu(torch.addmm(self.b_enc[dead], x - self.b_dec, self.W_enc.T[dead].T))
        else:
            hidden_dead = hidden[:, dead]
        top = hidden_dead.topk(n, dim=1)
        revived = torch.zeros_like(hidden_dead).scatter(1, top.indices, top.values) @ self.W_dec[dead]
        error = self.batch.mean((residual - revived).square().sum(dim=1))
        return error / self.batch.mean(residual.square().sum(dim=1)).clamp_min(1e-9)

    @torch.no_grad()
    def project_gradients(self) -> None:
        """Removes the part of the decoder's gradient along its rows: their length is fixed, only turns count."""
        if self.W_dec.grad is not None:
            along = torch.linalg.vecdot(self.W_dec.grad, self.W_dec)
            self.W_dec.grad.addcmul_(along[:, None], self.W_dec, value=-1)

    @torch.no_grad()
    def normalize_decoder(self) -> None:
        self.W_dec /= self.W_dec.norm(dim=1, keepdim=True).clamp_min(1e-8)

    @torch.no_grad()
    def export(self) -> SaeFeatures:
        """The whole dictionary as a JumpReLU on raw activations, in the model's own units, with unit decoder rows.

        Raises `SteerOptionError` while the thresholds are unset: every positive pre-activation would fire.
        """
        threshold = self.thresholds()
        scale = float(self.input_scale)
        bias = (self.b_enc - self.b_dec @ self.W_enc) / scale - self.input_mean @ self.W_enc
        return SaeFeatures(
            W_enc=_numpy(self.W_enc),
            b_enc=_numpy(bias),
            threshold=_numpy(threshold / scale),
            W_dec=_numpy(self.W_dec),
            b_dec=_numpy(self.b_dec / scale + self.input_mean),
        )


class BatchTopKSae(TrainingSae):
    """Keeps the k * n largest activations of a batch of n frames (Bussmann et al., arXiv 2412.06410)."""

    threshold: torch.Tensor

    def __init__(self, config: SaeConfig, generator: torch.Generator) -> None:
        super().__init__(config, generator)
        self.register_buffer("threshold", torch.full((), -1.0, dtype=torch.float64))

    def activate(self, hidden: torch.Tensor, k: float) -> torch.Tensor:
        smallest = self._smallest_kept(hidden, k)
        if self._tracks(k):
            self._track_threshold(smallest)
        return hidden * (hidden >= smallest)

    def select(self, pre: torch.Tensor, k: float) -> Entries:
        entries, smallest = self._largest(pre, k)
        if self._tracks(k):
            self._track_threshold(smallest)
        return entries

    def thresholds(self) -> torch.Tensor:
        if float(self.threshold) < 0:
            raise SteerOptionError("the SAE has no threshold yet; train it for some steps at its final k first")
        return torch.full_like(self.b_enc, float(self.threshold))

    def _n_kept(self, hidden: torch.Tensor, k: float) -> int:
        """Of the whole batch."""
        n_frames = self.batch.size(len(hidden))
        return max(1, min(int(k * n_frames), n_frames * hidden.shape[1]))

    def _largest(self, pre: torch.Tensor, k: float) -> tuple[Entries, torch.Tensor]:
        """The entries among the k * n largest of the whole batch, and the smallest of these."""
        n_kept = self._n_kept(pre, k)
        return self.batch.keep(pre, *largest_of_batch(pre, min(n_kept, pre.numel())), n_kept)

    def _smallest_kept(self, hidden: torch.Tensor, k: float) -> torch.Tensor:
        """Smallest of the k * n largest activations."""
        n_kept = self._n_kept(hidden, k)
        largest = hidden.detach().flatten().topk(min(n_kept, hidden.numel()), sorted=False).values
        return self.batch.nth_largest(largest, n_kept)

    def _tracks(self, k: float) -> bool:
        """At the final k, the moving average of the smallest kept activation becomes the threshold."""
        return self.training and k == self.config.k

    def _track_threshold(self, smallest: torch.Tensor) -> None:
        """In float64, since steps are small (arXiv 2412.06410)."""
        before, found = float(self.threshold), float(smallest)
        self.threshold.fill_(found if before < 0 else before + 0.02 * (found - before))


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().copy()
