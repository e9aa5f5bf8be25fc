"""A step by its entries against the same step on full matrices: values, gradients, what is tracked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from steer_asr.errors import SteerOptionError
from steer_asr_training.fit_config import FitConfig
from steer_asr_training.sae_kinds import KINDS, JumpReluSae, build_sae
from steer_asr_training.sparse_code import Entries, SparseCode, encode, pre_activations
from steer_asr_training.training_sae import SaeConfig, StepOutput, TrainingSae

CONFIG = SaeConfig(d_in=24, d_sae=160, k=5, dead_after_frames=100, prefix_shares=(0.1, 0.5, 1.0))


def frames(n: int = 90, seed: int = 1) -> torch.Tensor:
    return torch.randn(n, 24, generator=torch.Generator().manual_seed(seed)) * 3 + 5


def sae(kind: str, decode: Any, **settings: Any) -> TrainingSae:
    made = build_sae(kind, replace(CONFIG, decode=decode, **settings), torch.Generator().manual_seed(0))
    made.measure_input(frames(500))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        made.b_enc.normal_(std=0.3, generator=generator)
        made.b_dec.normal_(std=0.3, generator=generator)
        if isinstance(made, JumpReluSae):
            made.log_threshold.add_(torch.randn(160, generator=generator) * 0.2)
    return made


def step(made: TrainingSae, x: torch.Tensor, k: float = 5) -> StepOutput:
    made.zero_grad()
    output = made(x, k)
    output.loss.backward()
    return output


def assert_same_step(kind: str, *, k: float = 5, n_dead: int = 0, **settings: Any) -> None:
    found = {}
    for decode in ("dense", "sparse"):
        made = sae(kind, decode, **settings)
        made.frames_since_fired[:n_dead] = 1000
        output = step(made, frames(), k)
        found[decode] = made, output
    (dense, expected), (sparse, actual) = found["dense"], found["sparse"]
    for name in ("loss", "fvu", "l0"):
        torch.testing.assert_close(getattr(actual, name), getattr(expected, name), msg=name)
    assert actual.n_dead == expected.n_dead
    largest = 0.0
    for (name, parameter), other in zip(sparse.named_parameters(), dense.parameters(), strict=True):
        assert parameter.grad is not None
        assert other.grad is not None
        assert parameter.grad.stride() == parameter.stride(), "the fused optimizer goes by memory"
        torch.testing.assert_close(parameter.grad, other.grad, rtol=2e-4, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}")
        largest = max(largest, float(other.grad.abs().max()))
    assert largest > 1e-3, "there was a gradient to compare"
    for (name, buffer), other in zip(sparse.named_buffers(), dense.buffers(), strict=True):
        torch.testing.assert_close(buffer, other, msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_losses_gradients_and_counters_are_those_of_the_dense_step(kind: str) -> None:
    assert_same_step(kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_dead", [3, 60])  # fewer than AuxK takes, and more
def test_the_gradients_of_dead_features_are_those_of_the_dense_step(kind: str, n_dead: int) -> None:
    assert_same_step(kind, n_dead=n_dead, aux_k_coefficient=1.0)


@pytest.mark.parametrize("kind", ["batch_topk", "topk", "matryoshka"])
@pytest.mark.parametrize("k", [0.5, 40, 160])
def test_the_same_for_few_and_for_all_features(kind: str, k: float) -> None:
    assert_same_step(kind, k=k)


@pytest.mark.parametrize("settings", [{"bandwidth": 3.0}, {"l0_penalty": "linear", "l0_coefficient": 0.01}])
def test_thresholds_hear_of_activations_below_them(settings: dict[str, Any]) -> None:
    """At the wide bandwidth, of silent ones too: they count as 0."""
    assert_same_step("jumprelu", **settings)


def test_a_batch_in_which_nothing_fires() -> None:
    made = sae("batch_topk", "sparse")
    with torch.no_grad():
        made.b_enc.fill_(-100.0)
    output = step(made, frames())
    assert float(output.l0) == 0
    assert made.W_dec.grad is not None
    assert not bool(made.W_dec.grad.any())
    assert made.b_dec.grad is not None
    assert bool(made.b_dec.grad.any())


def test_many_steps_end_where_dense_steps_end() -> None:
    ends = []
    for decode in ("dense", "sparse"):
        made = sae("batch_topk", decode)
        optimizer = torch.optim.Adam(made.parameters(), lr=1e-3, fused=True)
        for i in range(30):
            step(made, frames(seed=i))
            made.project_gradients()
            optimizer.step()
            made.normalize_decoder()
        ends.append((made, float(step(made, frames(seed=99)).fvu)))
    assert ends[0][1] == pytest.approx(ends[1][1], rel=1e-3)
    torch.testing.assert_close(ends[0][0].W_dec, ends[1][0].W_dec, atol=2e-3, rtol=0)


def test_products_and_blocks_of_a_code_are_those_of_its_matrix() -> None:
    generator = torch.Generator().manual_seed(3)
    matrix = torch.randn(12, 40, generator=generator) * (torch.rand(12, 40, generator=generator) < 0.1)
    flat = matrix.flatten().nonzero().squeeze(1)
    values = matrix.flatten()[flat].requires_grad_()
    code = SparseCode(Entries(flat, (12, 40)), values)
    assert torch.equal(code.to_dense(), matrix)
    assert torch.equal(code.n_fired(), (matrix > 0).sum(dim=0))
    decoder = torch.randn(40, 7, generator=generator, requires_grad=True)
    torch.testing.assert_close(code @ decoder, matrix @ decoder)
    blocks = code.by_blocks([4, 25, 40]) @ decoder
    expected = [matrix[:, a:b] @ decoder[a:b] for a, b in ((0, 4), (4, 25), (25, 40))]
    torch.testing.assert_close(blocks, torch.cat(expected))

    weights = torch.randn(36, 7, generator=generator)
    (blocks * weights).sum().backward()
    leaf = matrix.clone().requires_grad_()
    again = decoder.detach().clone().requires_grad_()
    expected = [leaf[:, a:b] @ again[a:b] for a, b in ((0, 4), (4, 25), (25, 40))]
    (torch.cat(expected) * weights).sum().backward()
    assert values.grad is not None
    assert leaf.grad is not None
    torch.testing.assert_close(values.grad, leaf.grad.flatten()[flat])
    torch.testing.assert_close(decoder.grad, again.grad)


def test_gradients_are_right_to_double_precision() -> None:
    generator = torch.Generator().manual_seed(4)
    x, W_enc, b_enc, b_dec = (
        torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((6, 4), (4, 9), (9,), (4,))
    )
    flat = torch.tensor([0, 3, 9, 20, 30, 31, 53])

    def coded(b_dec: torch.Tensor, W_enc: torch.Tensor, b_enc: torch.Tensor) -> torch.Tensor:
        pre = pre_activations(x - b_dec.detach(), W_enc.detach(), b_enc.detach())
        return encode(Entries(flat, (6, 9)), pre, x, b_dec, W_enc, b_enc).values

    inputs = tuple(tensor.requires_grad_() for tensor in (b_dec, W_enc, b_enc))
    assert int((coded(*inputs) > 0).sum()) in range(2, 7), "some are silent"
    assert torch.autograd.gradcheck(coded, inputs)


def test_the_number_of_threads_changes_no_bit_of_the_sums() -> None:
    found, threads = [], torch.get_num_threads()
    code = sae("batch_topk", "sparse")
    pre = torch.randn(300, 160, generator=torch.Generator().manual_seed(5))
    weights = torch.randn(300, 24, generator=torch.Generator().manual_seed(6))
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            entries = code.select(pre, 5)
            assert entries is not None
            values = encode(entries, pre, frames(300), code.b_dec, code.W_enc, code.b_enc).values
            code.zero_grad()
            ((SparseCode(entries, values) @ code.W_dec) * weights).sum().backward()
            found.append((values, code.W_dec.grad, code.W_enc.grad, code.b_enc.grad))
    finally:
        torch.set_num_threads(threads)
    for one, two in zip(*found, strict=True):
        assert torch.equal(one, two)


def test_auto_goes_by_entries_where_few_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in KINDS:
        made = sae(kind, "auto")
        monkeypatch.setattr(made, "encode", lambda _: pytest.fail("the full matrix was not needed"))
        step(made, frames())
        if kind != "jumprelu":  # thresholds decide, not k
            with pytest.raises(pytest.fail.Exception, match="full matrix"):
                step(made, frames(), k=50)
    made = sae("jumprelu", "auto", bandwidth=3.0)
    monkeypatch.setattr(made, "activate_selected", lambda _: pytest.fail("too many entries"))
    step(made, frames())


def test_an_unknown_decode_is_named() -> None:
    with pytest.raises(SteerOptionError, match="unknown decode 'spars'; did you mean 'sparse'"):
        FitConfig(decode="spars")
