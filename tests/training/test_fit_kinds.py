"""Every kind of SAE on planted data: found again, sparse, exported as the function that was trained, revived."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from steer_asr.errors import SteerOptionError
from steer_asr.sae import SaeFeatures, load_features
from steer_asr_training.fit import FitConfig, fit_stream
from steer_asr_training.sae_kinds import KINDS, JumpReluSae, MatryoshkaSae, TopKSae, build_sae
from steer_asr_training.training_sae import SaeConfig, TrainingSae

N_PLANTED, D_IN = 24, 16
CONFIG = FitConfig(
    d_sae=48, k=2, k_start=6, steps=260, batch_frames=128, lr=1e-2, dead_after_frames=3000, checkpoint_every=1000
)


def planted_directions() -> torch.Tensor:
    directions = torch.randn(N_PLANTED, D_IN, generator=torch.Generator().manual_seed(0))
    return directions / directions.norm(dim=1, keepdim=True)


def planted_frames(seed: int = 1, n: int = 128) -> Iterator[torch.Tensor]:
    """Sums of about two planted directions per frame, far from zero."""
    generator, directions = torch.Generator().manual_seed(seed), planted_directions()
    while True:
        z = (torch.rand(n, N_PLANTED, generator=generator) < 2 / N_PLANTED).float()
        yield (z * (1 + torch.rand(n, N_PLANTED, generator=generator))) @ directions + 3


def small_sae(kind: str, **settings: object) -> TrainingSae:
    sae = build_sae(kind, replace(SaeConfig(8, 32, k=4), **settings), torch.Generator().manual_seed(0))
    sae.measure_input(some_frames())
    return sae


def some_frames(n: int = 256, seed: int = 1) -> torch.Tensor:
    return torch.randn(n, 8, generator=torch.Generator().manual_seed(seed)) * 3 + 5


def mean_max_cosine(features: SaeFeatures) -> float:
    return float((planted_directions().numpy() @ features.W_dec.T).max(axis=1).mean())


@pytest.mark.parametrize("kind", KINDS)
def test_planted_features_are_recovered_and_survive_the_export(tmp_path: Path, kind: str) -> None:
    config = replace(CONFIG, kind=kind, prefix_shares=(0.5, 1.0))
    [folder] = fit_stream(config, planted_frames(), tmp_path).values()
    features = load_features(folder)
    random = torch.randn(48, D_IN, generator=torch.Generator().manual_seed(9))
    random /= random.norm(dim=1, keepdim=True)
    by_chance = float((planted_directions() @ random.T).max(dim=1).values.mean())
    assert by_chance < 0.65
    assert mean_max_cosine(features) > 0.92
    np.testing.assert_allclose(np.linalg.norm(features.W_dec, axis=1), 1, rtol=1e-5)

    statistics = json.loads((folder / "cfg.json").read_text())["metadata"]["statistics"]
    assert statistics["l0"] == pytest.approx(2, abs=0.35), "the exported thresholds keep k per frame on average"
    assert statistics["explained_variance"] > 0.75
    lost = statistics["explained_variance_before_export"] - statistics["explained_variance"]
    assert abs(lost) < {"jumprelu": 1e-4, "topk": 0.06}.get(kind, 0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_dead_features_are_revived_by_aux_k_and_by_nothing_else(kind: str) -> None:
    def n_dead(coefficient: float) -> int:
        sae = build_sae(
            kind,
            SaeConfig(D_IN, 48, 2, coefficient, dead_after_frames=500, prefix_shares=(0.5, 1.0)),
            torch.Generator().manual_seed(0),
        )
        frames = planted_frames()
        sample = torch.cat([next(frames) for _ in range(10)])
        sae.measure_input(sample)
        with torch.no_grad():  # all but 12, too few for what is planted, are too quiet to be kept, yet not silent
            loudest = sae.encode((sample - sae.input_mean) * sae.input_scale).max(dim=0).values
            sae.b_enc[12:] = -(0.8 if kind == "topk" else 0.6) * loudest[12:]
        optimizer = torch.optim.Adam(sae.parameters(), lr=5e-3)
        for _ in range(120):
            optimizer.zero_grad()
            sae(next(frames), 2).loss.backward()
            optimizer.step()
            sae.normalize_decoder()
        return int((sae.frames_since_fired[12:] > 500).sum())

    with_it, without_it = n_dead(1.0), n_dead(0.0)
    assert without_it >= 20
    assert with_it <= without_it - 8


def test_top_k_keeps_the_largest_of_each_frame() -> None:
    sae = small_sae("topk")
    hidden = torch.tensor([[5.0, 1.0, 4.0, 3.0], [0.1, 0.4, 0.3, 0.2]])
    kept = torch.tensor([[5.0, 0.0, 4.0, 0.0], [0.0, 0.4, 0.3, 0.0]])
    assert torch.equal(sae.activate(hidden, 2), kept)
    assert torch.equal(sae.activate(hidden, 2.9), kept), "while k is annealed, it is rounded down"


def test_an_exported_top_k_is_another_function_with_k_features_on_average_only() -> None:
    sae = small_sae("topk", k=3)
    for seed in range(40):
        sae(some_frames(seed=seed), 3)
    x = some_frames(n=2000, seed=99)
    fired = (sae.export().encode(x.numpy()) > 0).sum(axis=1)
    assert fired.mean() == pytest.approx(3, rel=0.1)
    assert fired.std() > 0.5
    with torch.no_grad():
        in_training = sae.activate(sae.encode((x - sae.input_mean) * sae.input_scale), 3)
    assert set((in_training > 0).sum(dim=1).tolist()) == {3}
    assert isinstance(sae, TopKSae)


def test_matryoshka_averages_the_errors_of_its_prefixes() -> None:
    sae = small_sae("matryoshka", prefix_shares=(0.25, 0.5, 1.0))
    assert isinstance(sae, MatryoshkaSae)
    assert sae.prefixes == [8, 16, 32]
    generator = torch.Generator().manual_seed(5)
    x, z = torch.randn(20, 8, generator=generator), torch.rand(20, 32, generator=generator)
    errors = [(x - (z[:, :n] @ sae.W_dec[:n] + sae.b_dec)).square().sum(dim=1).mean() for n in (8, 16, 32)]
    loss = sae.reconstruction_loss(x, z, errors[-1])
    torch.testing.assert_close(loss, torch.stack(errors).mean())


@pytest.mark.parametrize("shares", [(), (0.5, 0.25, 1.0), (0.0, 1.0), (0.5,), (0.5, 0.5, 1.0)])
def test_prefixes_that_do_not_nest_are_refused(shares: tuple[float, ...]) -> None:
    with pytest.raises(SteerOptionError, match="prefix_shares must rise"):
        small_sae("matryoshka", prefix_shares=shares)


def test_the_straight_through_gradients_are_those_of_the_expectation() -> None:
    """For activations spread evenly over 0..2, E[L0] = 1 - t / 2 and E[z] = 1 - t^2 / 4: slopes -1/2 and -t/2."""
    sae = small_sae("jumprelu", bandwidth=0.2, l0_penalty="linear")
    assert isinstance(sae, JumpReluSae)
    n, t = 20_000, 0.8
    hidden = (torch.arange(n) + 0.5).div(n / 2)[:, None].expand(n, 32)
    with torch.no_grad():
        sae.log_threshold.fill_(np.log(t))

    def slope(value: torch.Tensor) -> float:
        [gradient] = torch.autograd.grad(value, sae.log_threshold)
        return float(gradient[0]) / t  # d log t = dt / t

    assert slope(sae.sparsity_loss(hidden, 4) / 1) == pytest.approx(-0.5, rel=0.01)
    assert slope(sae.activate(hidden, 4).mean(dim=0).sum()) == pytest.approx(-t / 2, rel=0.01)


def test_the_l0_penalty_moves_thresholds_alone_and_towards_k() -> None:
    sae = small_sae("jumprelu", bandwidth=0.5)
    assert isinstance(sae, JumpReluSae)
    x = (some_frames() - sae.input_mean) * sae.input_scale
    for k, direction in ((2.0, -1), (8.0, 1)):  # 4 fire: too many, then too few
        sae.zero_grad()
        sae.sparsity_loss(sae.encode(x), k).backward()
        assert sae.log_threshold.grad is not None
        assert float(sae.log_threshold.grad.sum()) * direction > 0
        assert sae.W_enc.grad is None or not bool(sae.W_enc.grad.any())
    assert float(sae.sparsity_loss(sae.encode(x), 4.0).detach()) == pytest.approx(0, abs=1e-4)


def test_jump_relu_starts_where_k_features_fire_and_is_exported_exactly() -> None:
    sae = small_sae("jumprelu")
    assert isinstance(sae, JumpReluSae)
    with torch.no_grad():
        sae.log_threshold.add_(0.3 * torch.randn(32, generator=torch.Generator().manual_seed(3)))
        sae.b_dec.normal_(generator=torch.Generator().manual_seed(4))
        x = some_frames(seed=7)
        scaled = (x - sae.input_mean) * sae.input_scale
        z = sae.activate(sae.encode(scaled), 4)
        x_hat = (z @ sae.W_dec + sae.b_dec) / sae.input_scale + sae.input_mean
    features = sae.export()
    exported = features.encode(x.numpy())
    assert len(np.unique(features.threshold)) == 32, "every feature has its own threshold"
    np.testing.assert_array_equal(exported > 0, (z > 0).numpy())
    np.testing.assert_allclose(exported @ features.W_dec + features.b_dec, x_hat.numpy(), atol=1e-4)
    assert float(small_sae("jumprelu")(some_frames(), 4).l0) == pytest.approx(4, rel=0.05)


def test_unknown_kinds_and_penalties_are_named() -> None:
    with pytest.raises(SteerOptionError, match="did you mean 'topk'"):
        build_sae("top_k", SaeConfig(8, 32), torch.Generator())
    with pytest.raises(SteerOptionError, match="unknown l0_penalty 'targt'; did you mean 'target'"):
        small_sae("jumprelu", l0_penalty="targt")
