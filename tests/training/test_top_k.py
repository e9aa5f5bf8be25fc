"""The selection of the largest against sorting everything."""

from __future__ import annotations

import pytest
import torch

from steer_asr_training import top_k
from steer_asr_training.top_k import entries_above, largest_of_batch, largest_of_both, largest_of_frames


def activations(n: int, d_sae: int, shift: float = 0.0, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    loud = torch.rand(n, 1, generator=generator) * 3  # frames differ
    return torch.randn(n, d_sae, generator=generator) * loud + shift


def dense(entries: top_k.Entries) -> torch.Tensor:
    mask = torch.zeros(entries.shape[0] * entries.shape[1], dtype=torch.bool)
    mask[entries.flat] = True
    return mask.view(entries.shape)


# widths that blocks divide and that they do not; k from far below one per frame to everything
SHAPES = [(40, 512, 5), (33, 509, 3), (7, 4100, 2), (50, 64, 40), (64, 256, 0.25), (3, 8, 8), (1, 1, 1), (40, 130, 1)]


@pytest.mark.parametrize(("n", "d_sae", "k"), SHAPES)
@pytest.mark.parametrize("shift", [0.0, -4.0, 2.0])
def test_the_largest_of_a_batch_are_those_that_sorting_finds(n: int, d_sae: int, k: float, shift: float) -> None:
    pre = activations(n, d_sae, shift)
    n_kept = max(1, int(k * n))
    entries, smallest = largest_of_batch(pre, n_kept)
    expected = pre.relu().flatten().topk(n_kept).values.min()
    assert smallest == expected
    assert torch.equal(dense(entries), (pre > 0) & (pre >= expected))
    assert bool((entries.flat.diff() > 0).all()), "in order"


@pytest.mark.parametrize(("n", "d_sae", "k"), [shape for shape in SHAPES if shape[2] >= 1])
@pytest.mark.parametrize("shift", [0.0, -4.0, 2.0])
def test_the_largest_of_frames_are_those_that_sorting_finds(n: int, d_sae: int, k: int, shift: float) -> None:
    pre = activations(n, d_sae, shift)
    top = pre.relu().topk(k, dim=1)
    expected = torch.zeros_like(pre).scatter(1, top.indices, top.values) > 0
    assert torch.equal(dense(largest_of_frames(pre, k)), expected)
    for n_of_batch in (1, min(2 * k * n, pre.numel())):
        entries, (of_batch, smallest) = largest_of_both(pre, k, n_of_batch)
        assert torch.equal(dense(entries), expected)
        again = largest_of_batch(pre, n_of_batch)
        assert smallest == again[1]
        assert torch.equal(of_batch.flat, again[0].flat)


def test_of_equal_activations_a_frame_keeps_k_and_a_batch_all() -> None:
    pre = torch.ones(4, 200)
    assert dense(largest_of_frames(pre, 3)).sum(dim=1).tolist() == [3] * 4
    assert len(largest_of_batch(pre, 12)[0].flat) == 800


def test_rows_are_scanned_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(top_k, "SCANNED_AT_ONCE", 1000)  # 2 rows at a time, the last one alone
    pre = activations(9, 400)
    bounds = torch.linspace(-1, 1, 400)
    assert torch.equal(dense(entries_above(pre, bounds)), pre > bounds)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_the_same_on_a_gpu() -> None:
    pre = activations(40, 512)
    on_gpu = largest_of_both(pre.cuda(), 5, 300)
    here = largest_of_both(pre, 5, 300)
    assert torch.equal(on_gpu[0].flat.cpu(), here[0].flat)
    assert torch.equal(on_gpu[1][0].flat.cpu(), here[1][0].flat)
