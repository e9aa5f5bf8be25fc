"""What `fit` is told: `FitConfig`, its schedules, and the presets.

config = replace(PRESETS["paper"], hook_point="encoder.layers.5")
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from steer_asr.errors import SteerOptionError, unknown_name
from steer_asr.hooks import OUTPUT_HOOK_POINT
from steer_asr_training.sae_kinds import KINDS
from steer_asr_training.training_sae import SaeConfig

DEVICES = ("auto", "cpu", "cuda")
DECODES = ("auto", "dense", "sparse")


@dataclass(frozen=True)
class FitConfig:
    """How the dictionary is trained. The defaults suit a laptop; the paper's settings are `PRESETS["paper"]`.

    Raises `SteerOptionError` for settings that cannot be.
    """

    hook_point: str = OUTPUT_HOOK_POINT
    d_sae: int = 2048
    """Number of features."""
    k: float = 32
    """Mean number of active features per frame, at the end."""
    k_start: float = 96
    """The same at the start; it falls linearly over the first `k_anneal_share` of the steps."""
    k_anneal_share: float = 0.3
    steps: int = 1000
    batch_frames: int = 2048
    lr: float = 1e-3
    warmup_share: float = 0.05
    """Share of the steps over which the learning rate rises."""
    decay_share: float = 0.3
    """Share of the steps, at the end, over which it falls to zero."""
    seed: int = 0
    checkpoint_every: int = 200
    kind: str = "batch_topk"
    """batch_topk, topk, matryoshka or jumprelu."""
    expansion_factor: float = 0
    """If positive, `d_sae` is this many times the width of the activations instead."""
    aux_k_coefficient: float = 1 / 32
    """Weight of the loss that revives dead features; 0 turns it off."""
    dead_after_frames: int = 200_000
    """A feature that fired on none of the last so many frames counts as dead; 50 frames are a second."""
    prefix_shares: tuple[float, ...] = SaeConfig.prefix_shares
    """matryoshka: sizes of the nested dictionaries, as shares of the whole."""
    l0_penalty: str = "target"
    """jumprelu: "target" drives L0 to `k`, "linear" is the paper's penalty, set by `l0_coefficient` alone."""
    l0_coefficient: float = 1.0
    penalty_warmup_share: float = 0.0
    """jumprelu: share of the steps over which the penalty rises to its full weight."""
    bandwidth: float = SaeConfig.bandwidth
    """jumprelu: width of the straight-through gradient around a threshold, where the mean input norm is sqrt(d_in)."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """How often windows are drawn, by tag: {"domain:music": 2, "source:musan": 0.5}. The rest has weight 1."""
    windows_in_buffer: int = 256
    """So many windows are held in memory, and their frames shuffled together."""
    device: str = "auto"
    """auto (a GPU where there is one), cpu or cuda."""
    decode: str = "auto"
    """sparse: gradients and reconstruction from the kept activations alone; dense: from the whole matrix. The results
    differ by rounding. auto is sparse on a CPU where at most 1 of 16 activations is kept."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SteerOptionError(f"fit: {unknown_name('kind of SAE', self.kind, KINDS)}")
        if self.device not in DEVICES:
            raise SteerOptionError(f"fit: {unknown_name('device', self.device, DEVICES)}")
        if self.decode not in DECODES:
            raise SteerOptionError(f"fit: {unknown_name('decode', self.decode, DECODES)}")
        positive = ("k_start", "steps", "batch_frames", "lr", "checkpoint_every", "windows_in_buffer", "bandwidth")
        for name in positive:
            if not getattr(self, name) > 0:
                raise SteerOptionError(f"fit: {name} must be positive, got {getattr(self, name)}")
        for name in ("k_anneal_share", "warmup_share", "decay_share", "penalty_warmup_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise SteerOptionError(f"fit: {name} is a share of the steps, 0 to 1; got {getattr(self, name)}")
        if not self.k > 0 or self.expansion_factor < 0 or (not self.expansion_factor and self.k > self.d_sae):
            raise SteerOptionError("fit: k must lie in (0, d_sae], and expansion_factor cannot be negative")
        if k_at(self, self.steps - 1) != self.k:
            raise SteerOptionError(
                "fit: k is still above its final value at the last step, so no threshold could be measured; "
                "lower k_anneal_share, or set k_start to k"
            )
        if self.kind == "topk" and self.k != int(self.k):
            raise SteerOptionError(f"fit: topk keeps a whole number of features per frame; k is {self.k}")
        if any(not weight >= 0 for weight in self.weights.values()):
            raise SteerOptionError(f"fit: weights cannot be negative; got {dict(self.weights)}")

    def sae(self, d_in: int) -> SaeConfig:
        """Size and sparsity of the dictionary for activations of width `d_in`."""
        d_sae = round(self.expansion_factor * d_in) or self.d_sae
        if self.k > d_sae:
            raise SteerOptionError(f"fit: k is {self.k:g}, more than the {d_sae} features that there are")
        return SaeConfig(
            d_in=d_in,
            d_sae=d_sae,
            k=self.k,
            aux_k_coefficient=self.aux_k_coefficient,
            dead_after_frames=self.dead_after_frames,
            prefix_shares=tuple(self.prefix_shares),
            l0_penalty=self.l0_penalty,  # pyright: ignore[reportArgumentType]  (checked by the kind that uses it)
            l0_coefficient=self.l0_coefficient,
            bandwidth=self.bandwidth,
            decode=self.decode,  # pyright: ignore[reportArgumentType]  (checked above)
        )


def lr_factor(config: FitConfig, step: int) -> float:
    """Learning rate relative to `lr`: up over the warm-up, flat, down to zero over the decay."""
    warmup, decay = config.warmup_share * config.steps, config.decay_share * config.steps
    return min(1.0, (step + 1) / max(1.0, warmup), (config.steps - step) / max(1.0, decay))


def k_at(config: FitConfig, step: int) -> float:
    """Features per frame at a step; exactly `k` once annealing is over."""
    share = step / max(1.0, config.k_anneal_share * config.steps)
    return config.k if share >= 1 else config.k_start + (config.k - config.k_start) * share


def penalty_at(config: FitConfig, step: int) -> float:
    """Share of the full sparsity penalty at a step."""
    return min(1.0, (step + 1) / max(1.0, config.penalty_warmup_share * config.steps))


PRESETS: dict[str, FitConfig] = {
    # Aparin et al., arXiv 2602.05027: no AuxK, no annealing of k; the learning rate falls
    # from step 160,000 on. They give no warm-up of it; 1000 steps are the default of the class that theirs derives
    # from (dictionary_learning). Their warm-up of the sparsity coefficient concerns JumpReLU alone.
    "paper": FitConfig(
        expansion_factor=8,
        k=50,
        k_start=50,
        k_anneal_share=0,
        steps=200_000,
        batch_frames=2500,
        lr=2e-4,
        warmup_share=0.005,
        decay_share=0.2,
        penalty_warmup_share=0.05,
        aux_k_coefficient=0,
        checkpoint_every=5000,
    ),
    # A few minutes on two cores.
    "laptop": FitConfig(),
}


def preset(name: str) -> FitConfig:
    """Raises `SteerOptionError` for an unknown name."""
    if name not in PRESETS:
        raise SteerOptionError(unknown_name("preset", name, PRESETS))
    return PRESETS[name]
