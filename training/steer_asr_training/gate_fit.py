"""The gate, fitted: which features say that somebody speaks, and how sure that makes one.

    statistics = pooled_activations(store, features)          # [window, n_features]
    ids = discriminative_features(statistics, labels, 64)
    gate = fit_gate(z, labels, weights)

Labels are needed per window only ("somebody speaks in here"): a window is speech if its best moment is, so a frame's
evidence is learned through the maximum over the window (multiple-instance learning).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from steer_asr._progress import Progress
from steer_asr.gate import Gate, moving_average
from steer_asr.sae import SaeFeatures
from steer_asr_training.store import ActivationStore

SMOOTH_FRAMES = 25
"""Half a second: a creak that sounds like half a syllable is outvoted by what is around it, a short word is not."""
FOLDS = 4


@dataclass(frozen=True)
class GateConfig:
    """How the gate's evidence is fitted."""

    epochs: int = 30
    lr: float = 0.05
    l2: float = 1e-3
    dropout: float = 0.3
    """Share of the features that are left out of each step, so that no voice is known by a few of them alone."""
    seed: int = 0


def pooled_activations(store: ActivationStore, features: SaeFeatures, point: str) -> np.ndarray:
    """Highest smoothed activation of every feature in every window: float32 [window, n_features]."""
    pooled = np.empty((len(store), features.n_features), np.float32)
    w_enc, b_enc = torch.from_numpy(features.W_enc), torch.from_numpy(features.b_enc)
    threshold = torch.from_numpy(features.threshold)
    with Progress(total=len(store), unit="window", label="feature statistics") as progress, torch.inference_mode():
        for i in range(len(store)):
            x = torch.from_numpy(store.window(i, point).astype(np.float32))
            hidden = x @ w_enc + b_enc
            z = hidden * (hidden > threshold)
            smooth = nn.functional.avg_pool1d(z.T[None], SMOOTH_FRAMES, stride=SMOOTH_FRAMES // 2)
            pooled[i] = smooth[0].max(dim=1).values.numpy()
            progress.advance()
    return pooled


def source_weights(sources: Sequence[str], labels: np.ndarray) -> np.ndarray:
    """Sample weights, float32 [window]: speech and non-speech weigh the same, and sources by the root of their size."""
    keys = [f"{label}/{source}" for label, source in zip(labels, sources, strict=True)]
    counts = {key: keys.count(key) for key in set(keys)}
    weights = np.array([counts[key] ** -0.5 for key in keys], np.float32)
    for label in (0, 1):
        weights[labels == label] /= weights[labels == label].sum()
    return weights * len(labels) / 2


def discriminative_features(pooled: np.ndarray, labels: np.ndarray, weights: np.ndarray, n: int) -> list[int]:
    """The `n` features that an L1-penalised logistic regression on pooled activations uses most."""
    spread = pooled.std(axis=0)
    alive = np.flatnonzero(spread > 1e-4)
    scaled = pooled[:, alive] / spread[alive]
    model = LogisticRegression(l1_ratio=1.0, solver="liblinear", C=0.05, max_iter=200, random_state=0)
    model.fit(scaled, labels, sample_weight=weights)
    ranked = np.argsort(-np.abs(model.coef_[0]))
    return [int(alive[i]) for i in ranked[:n]]


def further_features(
    pooled: np.ndarray, labels: np.ndarray, weights: np.ndarray, n: int, taken: Sequence[int]
) -> list[int]:
    """The `n` features besides `taken` that a ridge-penalised logistic regression on pooled activations weighs most.

    Of features that say the same, the L1 penalty of `discriminative_features` takes one; this one shares the weight
    between all. A gate that reads them all is not misled when a strange sound sets off one.
    """
    spread = pooled.std(axis=0)
    alive = np.flatnonzero(spread > 1e-4)
    model = LogisticRegression(C=0.01, max_iter=300).fit(
        pooled[:, alive] / spread[alive], labels, sample_weight=weights
    )
    left = [int(alive[i]) for i in np.argsort(-np.abs(model.coef_[0]), kind="stable") if alive[i] not in set(taken)]
    return left[: max(0, n)]


def fit_gate(
    z: Sequence[np.ndarray],
    labels: np.ndarray,
    weights: np.ndarray,
    *,
    reach_frames: int,
    sources: Sequence[str] | None = None,
    config: GateConfig | None = None,
) -> Gate:
    """Fits frame evidence by multiple-instance learning, then calibrates it by Platt scaling.

    `z` holds one array [frame, n_features] per window, `labels` is 1 where somebody speaks, `weights` weighs windows.
    With `sources`, one per window, probabilities are calibrated on windows from sources that the evidence was not
    fitted on: a gate is surest of the speakers and rooms that it knows, and will be used on others.
    """
    config = config or GateConfig()
    smoothed = torch.from_numpy(np.stack([_thin(window) for window in z]))
    coefficients, bias = _fit_evidence(smoothed, labels, weights, config)
    best = _best_evidence(z, coefficients, bias)
    fold = None if sources is None else source_folds(labels, sources)
    if fold is not None:
        held_out = np.empty_like(best)
        for k in range(FOLDS):
            inside, outside = np.flatnonzero(fold == k), np.flatnonzero(fold != k)
            fitted = _fit_evidence(smoothed[outside], labels[outside], weights[outside], config)
            held_out[inside] = _best_evidence([z[int(i)] for i in inside], *fitted)
        best = held_out
    calibration = platt(best, labels, weights)
    return Gate(coefficients, bias, SMOOTH_FRAMES, reach_frames, calibration, calibration)


def source_folds(labels: np.ndarray, sources: Sequence[str]) -> np.ndarray | None:
    """Fold of every window, int [window]: whole sources, dealt out by size, speech and non-speech each.

    None when there are too few sources for every fold to lack some of both.
    """
    fold = np.zeros(len(labels), int)
    for label in (0, 1):
        windows = np.flatnonzero(labels == label)
        names, at, counts = np.unique(np.array(sources)[windows], return_inverse=True, return_counts=True)
        if len(names) < FOLDS:
            return None
        rank = np.empty(len(names), int)
        rank[np.argsort(-counts, kind="stable")] = np.arange(len(names))
        fold[windows] = rank[at] % FOLDS
    return fold


def _fit_evidence(
    smoothed: torch.Tensor, labels: np.ndarray, weights: np.ndarray, config: GateConfig
) -> tuple[np.ndarray, float]:
    """(coefficients per unit of activation, bias) of a frame's log-odds of speech."""
    spread = smoothed.flatten(0, 1).float().std(dim=0).clamp_min(1e-4)
    target, weight = torch.from_numpy(labels.astype(np.float32)), torch.from_numpy(weights)
    coefficients = nn.Parameter(torch.zeros(smoothed.shape[2]))
    bias = nn.Parameter(torch.tensor(-2.0))
    optimizer = torch.optim.Adam([coefficients, bias], lr=config.lr)
    generator = torch.Generator().manual_seed(config.seed)
    keep = 1 - config.dropout
    for epoch in range(config.epochs):
        for group in optimizer.param_groups:
            group["lr"] = config.lr * (1 - epoch / config.epochs)
        for chosen in torch.randperm(len(target), generator=generator).split(256):
            kept = (torch.rand(len(coefficients), generator=generator) < keep) / keep
            evidence = smoothed[chosen].float() @ (coefficients * kept / spread) + bias
            clip = evidence.logsumexp(dim=1) - np.log(5)  # a soft maximum: about five neighbouring points share a word
            losses = nn.functional.binary_cross_entropy_with_logits(clip, target[chosen], reduction="none")
            loss = (losses * weight[chosen]).mean() + config.l2 * coefficients.square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return (coefficients / spread).detach().numpy(), bias.item()


def _best_evidence(z: Sequence[np.ndarray], coefficients: np.ndarray, bias: float) -> np.ndarray:
    """The highest smoothed evidence in each window: float [window]."""
    return np.array([moving_average(window @ coefficients + bias, SMOOTH_FRAMES).max() for window in z])


def platt(evidence: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """(slope, offset) such that sigmoid(slope * evidence + offset) is the probability of speech."""
    model = LogisticRegression(C=1.0).fit(evidence[:, None], labels, sample_weight=weights)
    return float(model.coef_[0, 0]), float(model.intercept_[0])


def _thin(window: np.ndarray) -> np.ndarray:
    """Smoothed activations at every fifth frame: float16 [frame / 5, n_features]."""
    tensor = torch.from_numpy(window.astype(np.float32)).T[None]
    return nn.functional.avg_pool1d(tensor, SMOOTH_FRAMES, stride=5)[0].T.half().numpy()
