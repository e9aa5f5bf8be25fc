"""Fits a `Readout` to a pack's gate. Needs the `[torch]` extra.

    examples = Examples(pack)
    for x in windows: examples.add(x)            # float [1500, d_model], the encoder's output
    readout = fit_readout(examples, heads=8)

The teacher is the gate, which gives every frame its log-odds, so no labels are needed, and a piece of a window is as
good an example as a whole one: what the gate says of it is the maximum over its frames. Training draws such pieces, and
two of them side by side, which teaches more than the windows alone could.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import numpy as np
import torch

from steer_asr._progress import Progress
from steer_asr.compiling.readout import Readout
from steer_asr.errors import PackMismatchError
from steer_asr.gate import moving_average
from steer_asr.pack import SteerPack

EVERY = 5
"""Frames kept: the gate averages over 11, so every fifth tells all."""
SURE = 4.0
"""Log-odds beyond this need not be reproduced."""
SHORTEST = 8
BATCH, LEARNING_RATE, PENALTY, RIDGE, START = 32, 4e-3, 3e-5, 0.05, 0.5
DROPOUT = 0.3
"""Share of the channels that are left out of each step: without, a few windows were learned by heart."""
AVERAGED = 0.99
"""What is kept is a moving average of the weights over about a hundred steps."""
HELD_OUT = 6
"""Every sixth window is not trained on; they say how often the gate is reproduced."""
SILENCED = 0.002
"""The threshold leans towards speech until at most this share of what the gate leaves alone is silenced."""
MAX_LEAN = 2.0
FEWEST = 40


@dataclass
class Examples:
    """What the gate of `pack` says about windows: thinned frames and their log-odds of speech."""

    pack: SteerPack
    frames: list[np.ndarray] = field(default_factory=list)
    """float16 [300, d_model] each."""
    log_odds: list[np.ndarray] = field(default_factory=list)
    """float32 [300] each."""
    best: list[float] = field(default_factory=list)
    """Highest log-odds of all frames of each window; the gate silences windows in which it is 0 or less."""

    def add(self, x: np.ndarray) -> None:
        """`x` is the encoder's output for one window, float [frame, d_model], padding included."""
        gate = self.pack.gate
        if gate is None:
            raise PackMismatchError(f"pack {self.pack.name!r} has no gate")
        z = self.pack.features.encode(np.asarray(x, np.float32))
        evidence = moving_average(z @ gate.coefficients + np.float32(gate.bias), gate.smooth_frames)
        slope, offset = gate.frame_calibration
        log_odds = slope * evidence + offset
        at = slice(len(self.best) % EVERY, None, EVERY)  # other frames of other windows
        self.frames.append(np.asarray(x[at], np.float16))
        self.log_odds.append(log_odds[at].astype(np.float32))
        self.best.append(float(log_odds.max()))


class _Pooled(torch.nn.Module):
    """The readout on standardised frames."""

    def __init__(self, direction: torch.Tensor, heads: int, generator: torch.Generator) -> None:
        super().__init__()
        noise = 0.02 * torch.randn(2, len(direction), heads, generator=generator)
        self.keys = torch.nn.Parameter(noise[0] + START * direction[:, None])
        self.values = torch.nn.Parameter(noise[1] + direction[:, None] / heads)
        self.bias = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`x` float32 [window, frame, d_model]; log-odds [window]."""
        heads = self.keys.shape[1]
        read = x @ torch.cat([self.keys, self.values], dim=1)
        return (read[..., :heads].softmax(dim=1) * read[..., heads:]).sum(dim=(1, 2)) + self.bias


def fit_readout(examples: Examples, heads: int, *, epochs: int = 10, seed: int = 0) -> Readout:
    """Raises `PackMismatchError` when there are too few windows, or none of one sort, for the gate to teach from."""
    best = torch.tensor(examples.best)
    if len(best) < FEWEST or not bool((best > 0).any()) or not bool((best <= 0).any()):
        raise PackMismatchError(
            f"pack {examples.pack.name!r}: its gate leaves {int((best > 0).sum())} windows alone and silences "
            f"{int((best <= 0).sum())}; compiling needs {FEWEST} windows or more, of both sorts"
        )
    generator = torch.Generator().manual_seed(seed)
    frames = torch.from_numpy(np.stack(examples.frames))
    log_odds = torch.from_numpy(np.stack(examples.log_odds))
    centre, spread = _scale(frames)
    order = torch.randperm(len(best), generator=generator)
    held_out, train = order[::HELD_OUT], order[torch.arange(len(order)) % HELD_OUT != 0]

    def scaled(windows: torch.Tensor) -> torch.Tensor:
        return (frames[windows].float() - centre) / spread

    model = _Pooled(_ridge(scaled(train[:300]), log_odds[train[:300]]), heads, generator)
    kept = copy.deepcopy(model)
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
    step = 0
    with Progress(total=epochs * len(train), unit="window", label="readout") as progress:
        for epoch in range(epochs):
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * (1 - epoch / epochs)
            for chosen in train[torch.randperm(len(train), generator=generator)].split(BATCH):
                x, target = _pieces(scaled(chosen), log_odds[chosen], best[chosen], generator)
                x *= (torch.rand(x.shape[-1], generator=generator) >= DROPOUT) / (1 - DROPOUT)
                wanted = target.clamp(-SURE, SURE).sigmoid()
                loss = torch.nn.functional.binary_cross_entropy_with_logits(model(x), wanted)
                loss = loss + PENALTY * (model.keys.square().sum() + model.values.square().sum())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
                _average(kept, model, min(AVERAGED, step / (step + 10)))
                progress.advance(len(chosen))
    with torch.no_grad():
        found = torch.cat([kept(scaled(part)) for part in order.split(BATCH)])
        lean = _lean(found[torch.isin(order, train)], best[order][torch.isin(order, train)])
        ours, gates = found[torch.isin(order, held_out)] + lean, best[order][torch.isin(order, held_out)]
        keys, values = (kept.keys / spread[:, None]).T, (kept.values / spread[:, None]).T
        bias = float(kept.bias) + lean - float((values @ centre).sum())
    return Readout(
        keys.numpy().copy(), values.numpy().copy(), bias, examples.pack.sha256, len(best),
        silenced=_share((ours <= 0) & (gates > 0), gates > 0), missed=_share((ours > 0) & (gates <= 0), gates <= 0),
    )  # fmt: skip


def _pieces(
    x: torch.Tensor, log_odds: torch.Tensor, best: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Half of the time the windows; else pieces of them, short ones beside a piece of another window."""
    frames = x.shape[1]
    if torch.rand((), generator=generator) < 0.5:
        return x, best
    length = min(frames, SHORTEST + int(frames * torch.rand((), generator=generator) ** 2))
    start = int(torch.randint(0, frames - length + 1, (), generator=generator))
    x, target = x[:, start : start + length], log_odds[:, start : start + length].max(dim=1).values
    if length < frames // 2:
        other = torch.randperm(len(x), generator=generator)
        x, target = torch.cat([x, x[other]], dim=1), torch.maximum(target, target[other])
    return x, target


def _average(kept: _Pooled, model: _Pooled, share: float) -> None:
    with torch.no_grad():
        for mean, now in zip(kept.parameters(), model.parameters(), strict=True):
            mean.mul_(share).add_(now, alpha=1 - share)


def _scale(frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of every channel, over at most 300 windows."""
    some = frames[:: max(1, len(frames) // 300)].float().flatten(0, 1)
    return some.mean(dim=0), some.std(dim=0).clamp_min(1e-3)


def _ridge(x: torch.Tensor, log_odds: torch.Tensor) -> torch.Tensor:
    """Direction along which a frame's log-odds grow: float32 [d_model]. Training starts from it."""
    x, y = x.flatten(0, 1), log_odds.flatten().clamp(-2 * SURE, 2 * SURE)
    gram = x.T @ x / len(x) + RIDGE * torch.eye(x.shape[1])
    return torch.linalg.solve(gram, x.T @ (y - y.mean()) / len(x))


def _lean(found: torch.Tensor, best: torch.Tensor) -> float:
    """What to add to the log-odds so that few windows are silenced that the gate leaves alone."""
    spoken = found[best > 0]
    return float((-torch.quantile(spoken, SILENCED)).clamp(0.0, MAX_LEAN))


def _share(of: torch.Tensor, among: torch.Tensor) -> float:
    return float(of.sum() / among.sum().clamp_min(1))
