from __future__ import annotations

import numpy as np
import pytest
import torch

from steer_asr.errors import SteerOptionError
from steer_asr_training.training_sae import BatchTopKSae, SaeConfig


def build_sae(**overrides: float) -> BatchTopKSae:
    config = SaeConfig(**{"d_in": 8, "d_sae": 32, "k": 4, **overrides})  # pyright: ignore[reportArgumentType]
    return BatchTopKSae(config, torch.Generator().manual_seed(0))


def data(n: int = 256) -> torch.Tensor:
    return torch.randn(n, 8, generator=torch.Generator().manual_seed(1)) * 3 + 5


def test_k_features_fire_per_frame_on_average() -> None:
    sae = build_sae()
    hidden = torch.rand(100, 32, generator=torch.Generator().manual_seed(2))
    z = sae.activate(hidden, 4)
    assert int((z > 0).sum()) == 400
    assert float(z[z > 0].min()) >= float(hidden[z == 0].max())


def test_measured_input_has_mean_zero_and_norm_sqrt_d() -> None:
    sae = build_sae()
    sae.measure_input(data())
    x = (data() - sae.input_mean) * sae.input_scale
    assert float(x.mean(dim=0).abs().max()) < 1e-5
    assert float(x.norm(dim=1).mean()) == pytest.approx(8**0.5, rel=1e-5)


def test_predicting_the_mean_explains_nothing() -> None:
    sae = build_sae()
    sae.measure_input(data())
    with torch.no_grad():
        sae.W_dec.zero_()
    assert float(sae(data(), 4).fvu) == pytest.approx(1.0, abs=1e-5)


def test_the_decoder_turns_but_keeps_its_length() -> None:
    sae = build_sae()
    sae.measure_input(data())
    before = sae.W_dec.detach().clone()
    sae(data(), 4).loss.backward()
    sae.project_gradients()
    assert sae.W_dec.grad is not None
    assert float((sae.W_dec.grad * sae.W_dec.detach()).sum(dim=1).abs().max()) < 1e-6
    with torch.no_grad():
        sae.W_dec -= 0.1 * sae.W_dec.grad
    sae.normalize_decoder()
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(32))
    assert not torch.equal(before, sae.W_dec)


def test_dead_features_are_counted_in_frames() -> None:
    sae = build_sae(dead_after_frames=300)
    sae.measure_input(data())
    with torch.no_grad():
        sae.b_enc[:16] = -100.0
    assert sae(data(), 4).n_dead == 0
    assert sae(data(), 4).n_dead >= 16
    assert sae.frames_since_fired[:16].tolist() == [512] * 16
    sae.eval()
    sae(data(), 4)
    assert sae.frames_since_fired[:16].tolist() == [512] * 16, "measuring is not training"


def test_aux_loss_pulls_dead_features_towards_the_residual(monkeypatch: pytest.MonkeyPatch) -> None:
    sae = build_sae(dead_after_frames=1)
    sae.measure_input(data())
    with torch.no_grad():
        sae.b_enc[:16] = -1.0
    sae.frames_since_fired[:16] = 1000
    monkeypatch.setattr(sae, "_count_dead", lambda *_: None)
    sae(data(), 0.5).loss.backward()
    assert sae.W_dec.grad is not None
    assert bool((sae.W_dec.grad[:16].abs().sum(dim=1) > 0).any())


def test_export_is_the_same_function_on_raw_activations() -> None:
    sae = build_sae()
    sae.measure_input(data())
    with torch.no_grad():
        sae.b_enc.normal_(generator=torch.Generator().manual_seed(3))
        sae.b_dec.normal_(generator=torch.Generator().manual_seed(4))
        sae.threshold.fill_(0.7)
    features = sae.export()
    x = data(50)
    scaled = (x - sae.input_mean) * sae.input_scale
    hidden = (scaled - sae.b_dec) @ sae.W_enc + sae.b_enc
    z = hidden * (hidden > 0.7)
    x_hat = (z @ sae.W_dec + sae.b_dec) / sae.input_scale + sae.input_mean

    exported = features.encode(x.numpy())
    np.testing.assert_array_equal(exported > 0, (z > 0).numpy())
    np.testing.assert_allclose(exported @ features.W_dec + features.b_dec, x_hat.detach().numpy(), atol=1e-4)


def test_more_features_per_frame_than_there_are_keeps_them_all() -> None:
    hidden = torch.rand(10, 32, generator=torch.Generator().manual_seed(2))
    assert torch.equal(build_sae().activate(hidden, 96), hidden)


def test_the_step_says_how_many_features_it_kept() -> None:
    sae = build_sae()
    sae.measure_input(data())
    assert float(sae(data(), 4).l0) == pytest.approx(4)
    assert float(sae(data(), 2.5).l0) == pytest.approx(2.5)


def test_an_unset_threshold_is_never_exported() -> None:
    with pytest.raises(SteerOptionError, match="no threshold yet"):
        build_sae().export()
