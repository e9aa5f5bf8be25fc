"""Other projects' dictionaries, in files written here with exactly their keys (the modules under test say from where).

A planted dictionary reconstructs planted activations well, so that what a reader gets wrong shows in the numbers.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from steer_asr.errors import SteerOptionError, WeightsError
from steer_asr.sae import CFG_FILE, WEIGHTS_FILE, load_features, save_features
from steer_asr_training.cli import app
from steer_asr_training.encoders import Window
from steer_asr_training.foreign import files, load_foreign
from steer_asr_training.foreign.check import PER_FRAME, calibrate, check
from steer_asr_training.store import ActivationStore
from tests.steer_asr.packs import axis_features
from tests.training.builders import write_store

D, F, K = 24, 48, 4
POINT = "encoder.layers.5"


class Planted:
    """Frames that are sums of K of F directions, around a mean; and the dictionary that they are made of."""

    def __init__(self, seed: int = 0, n: int = 6000) -> None:
        rng = np.random.default_rng(seed)
        directions = rng.standard_normal((F, D))
        self.directions = (directions / np.linalg.norm(directions, axis=1, keepdims=True)).astype(np.float32)
        self.mean = rng.normal(0, 0.5, D).astype(np.float32)
        z = np.zeros((n, F), np.float32)
        for row in z:
            row[rng.choice(F, K, replace=False)] = rng.uniform(2, 3, K)
        self.x = z @ self.directions + self.mean
        # An encoder that tells directions apart: the pseudo-inverse would need F <= D, so ridge regression.
        centred = self.x - self.mean
        gram = centred.T @ centred + 1e-3 * n * np.eye(D)
        self.W_enc = np.linalg.solve(gram, centred.T @ z).astype(np.float32)  # [D, F]
        shown = np.maximum(centred @ self.W_enc, 0)
        gain = float(
            (self._topk(shown) @ self.directions * centred).sum() / np.square(self._topk(shown) @ self.directions).sum()
        )
        self.W_enc *= gain
        self.k = K

    @staticmethod
    def _topk(hidden: np.ndarray) -> np.ndarray:
        smallest = np.partition(hidden, F - K, axis=1)[:, F - K, None]
        return np.where(hidden >= smallest, hidden, 0)

    def hidden(self, x: np.ndarray) -> np.ndarray:
        return np.maximum((x - self.mean) @ self.W_enc, 0)


@pytest.fixture(scope="module")
def planted() -> Planted:
    return Planted()


def t(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def linear_keys(planted: Planted, **more: Any) -> dict[str, Any]:
    """dictionary_learning's `BatchTopKSAE` and `AutoEncoderTopK`: nn.Linear holds [out, in]."""
    return {
        "encoder.weight": t(planted.W_enc.T), "encoder.bias": torch.zeros(F), "decoder.weight": t(planted.directions.T),
        "b_dec": t(planted.mean), "k": torch.tensor(K, dtype=torch.int), **more,
    }  # fmt: skip


def write_pt(folder: Path, state: dict[str, Any], config: dict[str, Any] | None = None) -> Path:
    folder.mkdir(parents=True)
    torch.save(state, folder / "ae.pt")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def write_sparsify(folder: Path, planted: Planted, **cfg: Any) -> Path:
    folder.mkdir(parents=True)
    tensors = {"encoder.weight": t(planted.W_enc.T), "encoder.bias": torch.zeros(F), "W_dec": t(planted.directions)}
    save_file(tensors | {"b_dec": t(planted.mean)}, folder / "sae.safetensors")
    known = {"activation": "topk", "expansion_factor": 32, "normalize_decoder": True, "num_latents": F, "k": K,
             "multi_topk": False, "skip_connection": False, "transcode": False, "d_in": D}  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps(known | cfg))
    return folder


def write_saelens(folder: Path, planted: Planted, cfg: dict[str, Any], **tensors: torch.Tensor) -> Path:
    folder.mkdir(parents=True)
    known = {
        "W_enc": t(planted.W_enc),
        "b_enc": torch.zeros(F),
        "W_dec": t(planted.directions),
        "b_dec": t(planted.mean),
    }
    save_file(known | tensors, folder / "sae_weights.safetensors")
    base = {"d_in": D, "d_sae": F, "dtype": "float32", "device": "cpu", "reshape_activations": "none",
            "normalize_activations": "none", "apply_b_dec_to_input": True,
            "metadata": {"sae_lens_version": "6.54.12", "hook_name": POINT}}  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps(base | cfg))
    return folder


def assert_is_planted(features: Any, planted: Planted, threshold: float) -> None:
    """The same function as the dictionary that the file was written from."""
    x = planted.x[:500]
    wanted = planted.hidden(x)
    wanted *= wanted > threshold
    np.testing.assert_allclose(features.encode(x), wanted, atol=1e-4)
    reconstructed = features.encode(x) @ features.W_dec + features.b_dec
    np.testing.assert_allclose(reconstructed, wanted @ planted.directions + planted.mean, atol=1e-3)


def test_audiosae(tmp_path: Path, planted: Planted) -> None:
    folder = write_pt(tmp_path / "layer_6", linear_keys(planted, threshold=torch.tensor(0.7)), {"k": K})
    for path in (folder, folder / "ae.pt"):
        sae = load_foreign(path)
        assert (sae.format, sae.kind, sae.k, sae.hook_point) == ("audiosae", "batch_topk", K, "encoder.layers.5")
    assert_is_planted(sae.features(), planted, 0.7)
    features, report = check(sae, planted.x)
    assert_is_planted(features, planted, 0.7)
    assert (report["inputs"], report["threshold"], report["scale"]) == ("none", "stored", 1.0)
    assert report["fvu"] == report["tried"]["none"]
    assert report["fvu"] > min(report["tried"].values()), "a slightly better scale is no evidence"
    assert load_foreign(write_pt(tmp_path / "layer_1", linear_keys(planted))).hook_point == "encoder.layers.0"
    for name in ("layer_0", "block_3"):
        with pytest.raises(WeightsError, match="layer_1, layer_2"):
            load_foreign(write_pt(tmp_path / name, linear_keys(planted)), "audiosae")


@pytest.mark.parametrize("unset", [{}, {"threshold": torch.tensor(-1.0)}])
def test_a_threshold_that_was_never_set_is_calibrated(tmp_path: Path, planted: Planted, unset: dict[str, Any]) -> None:
    sae = load_foreign(write_pt(tmp_path / "layer_6", linear_keys(planted, **unset)))
    assert sae.threshold is None
    with pytest.raises(WeightsError, match="without a threshold.*--activations"):
        sae.features()
    features, report = check(sae, planted.x)
    assert report["threshold"] == "calibrated"
    assert report["l0"] == pytest.approx(K, rel=0.05), "k per frame on average, not per clip"
    assert report["fvu"] < 0.2
    assert report["fvu"] == pytest.approx(report["fvu_as_trained"], abs=0.02), "a batch's k * n, or its threshold"
    every_positive = check(sae.with_threshold(0.0), planted.x, max_fvu=np.inf)[1]
    assert every_positive["l0"] > 2 * K, "what a threshold of -1 would have meant"
    assert (features.threshold == features.threshold[0]).all()


def test_calibration_is_the_smallest_of_what_a_batch_keeps(tmp_path: Path, planted: Planted) -> None:
    sae = load_foreign(write_pt(tmp_path / "layer_6", linear_keys(planted)))
    hidden = np.sort(planted.hidden(planted.x[:2500]).ravel())
    assert calibrate(sae, planted.x[:2500]) == pytest.approx(hidden[-K * 2500], rel=1e-5)
    two = [np.sort(planted.hidden(x).ravel())[-K * len(x)] for x in (planted.x[:2500], planted.x[2500:4000])]
    assert calibrate(sae, planted.x[:4000]) == pytest.approx(np.mean(two), rel=1e-5)


@pytest.mark.parametrize(("length", "inputs"), [(None, "none"), (1.0, "square norm 1"), (D**0.5, "norm sqrt(d_in)")])
def test_scaled_inputs_are_found_and_folded(
    tmp_path: Path, planted: Planted, length: float | None, inputs: str
) -> None:
    """The dictionary of `s * x`: biases and threshold are s times those for x."""
    x = 20 * planted.x
    lengths = np.linalg.norm(x, axis=1)
    typical = float(lengths.mean()) if inputs == "norm sqrt(d_in)" else float(np.sqrt(np.mean(lengths**2)))
    scale = 1.0 if length is None else length / typical
    state = linear_keys(planted, threshold=torch.tensor(1.2 * 20 * scale))
    state |= {"b_dec": t(planted.mean * np.float32(20 * scale))}
    features, report = check(load_foreign(write_pt(tmp_path / "layer_6", state)), x)
    assert inputs in report["inputs"]
    assert report["scale"] == pytest.approx(scale, rel=0.02), "measured on half of the frames"
    assert report["fvu"] < 0.25
    raw = load_foreign(write_pt(tmp_path / "raw" / "layer_6", linear_keys(planted, threshold=torch.tensor(1.2))))
    assert report["l0"] == pytest.approx(check(raw, planted.x)[1]["l0"], rel=0.05)
    np.testing.assert_allclose(features.W_dec, planted.directions, atol=1e-6)


def test_inputs_of_unit_length_cannot_be_expressed(tmp_path: Path) -> None:
    planted = Planted(seed=1)
    sae = load_foreign(write_pt(tmp_path / "layer_6", linear_keys(planted)))
    loudness = np.random.default_rng(0).uniform(0.2, 5.0, (len(planted.x), 1)).astype(np.float32)
    lengths = np.linalg.norm(planted.x, axis=1, keepdims=True)
    # Trained on x / |x|, so on frames of any loudness: the same dictionary, in units of 1 / |x| on average.
    unit = float(1 / lengths.mean())
    trained = linear_keys(planted) | {"b_dec": t(planted.mean * np.float32(unit))}
    sae = load_foreign(write_pt(tmp_path / "unit" / "layer_6", trained))
    with pytest.raises(WeightsError, match=rf"reconstructs best with {PER_FRAME}.*FVU by inputs: none: "):
        check(sae, planted.x * loudness)


def test_a_dictionary_of_something_else_is_refused(tmp_path: Path, planted: Planted) -> None:
    sae = load_foreign(write_pt(tmp_path / "layer_6", linear_keys(planted)))
    with pytest.raises(WeightsError, match=r"leaves \d+% of the variance unexplained at best .*another layer or model"):
        check(sae, Planted(seed=7).x)
    with pytest.raises(SteerOptionError, match="24 wide, the activations 7"):
        check(sae, planted.x[:, :7])
    with pytest.raises(SteerOptionError, match="too few"):
        check(sae, planted.x[:2])


def test_dictionary_learning_top_k(tmp_path: Path, planted: Planted) -> None:
    """Its stored threshold is the smallest activation of any frame, so it is not used."""
    config = {"trainer": {"dict_class": "AutoEncoderTopK", "k": K, "activation_dim": D, "layer": 5}, "buffer": {}}
    folder = write_pt(tmp_path / "trainer_0", linear_keys(planted, threshold=torch.tensor(0.01)), config)
    sae = load_foreign(folder)
    assert (sae.format, sae.kind, sae.threshold, sae.hook_point) == ("dictionary_learning", "topk", None, None)
    _, report = check(sae, planted.x)
    hidden = planted.hidden(planted.x[len(planted.x) // 2 :])
    exact = planted._topk(hidden) @ planted.directions + planted.mean
    x = planted.x[len(planted.x) // 2 :]
    fvu = float(np.square(x - exact).sum() / np.square(x - x.mean(axis=0)).sum())
    assert report["fvu_as_trained"] == pytest.approx(fvu, rel=1e-3)
    assert report["l0"] == pytest.approx(K, rel=0.05)


def test_dictionary_learning_matryoshka(tmp_path: Path, planted: Planted) -> None:
    state = {"W_enc": t(planted.W_enc), "b_enc": torch.zeros(F), "W_dec": t(planted.directions)}
    state |= {"b_dec": t(planted.mean), "k": torch.tensor(K), "threshold": torch.tensor(0.7)}
    state |= {"group_sizes": torch.tensor([16, 32])}
    sae = load_foreign(write_pt(tmp_path / "m", state, {"trainer": {"dict_class": "MatryoshkaBatchTopKSAE"}}))
    assert sae.kind == "batch_topk"
    assert_is_planted(sae.features(), planted, 0.7)


def test_dictionary_learning_jump_relu(tmp_path: Path, planted: Planted) -> None:
    """Input as it is; activations are reported times the decoder norms; a threshold below 0 does nothing."""
    norms = np.linspace(0.5, 2, F).astype(np.float32)
    threshold = np.full(F, 0.7, np.float32) / norms
    threshold[3] = -0.2
    state = {"W_enc": t(planted.W_enc / norms), "b_enc": t((-planted.mean @ planted.W_enc) / norms)}
    state |= {"W_dec": t(planted.directions * norms[:, None]), "b_dec": t(planted.mean), "threshold": t(threshold)}
    features = load_foreign(write_pt(tmp_path / "j", state)).features()
    x = planted.x[:200]
    pre = x @ (planted.W_enc / norms) + (-planted.mean @ planted.W_enc) / norms
    f = np.maximum(pre * (pre > threshold), 0) * norms
    np.testing.assert_allclose(features.encode(x), f, atol=1e-4)
    np.testing.assert_allclose(features.W_dec, planted.directions, atol=1e-6)


@pytest.mark.parametrize("new", [False, True])
def test_dictionary_learning_relu(tmp_path: Path, planted: Planted, new: bool) -> None:
    state = {"encoder.weight": t(planted.W_enc.T), "decoder.weight": t(planted.directions.T)}
    if new:  # AutoEncoderNew: the input as it is
        state |= {"encoder.bias": t(-planted.mean @ planted.W_enc), "decoder.bias": t(planted.mean)}
    else:
        state |= {"encoder.bias": torch.zeros(F), "bias": t(planted.mean)}
    sae = load_foreign(write_pt(tmp_path / "a", state))
    assert sae.kind == "relu"
    assert_is_planted(sae.features(), planted, 0.0)


def test_sparsify(tmp_path: Path, planted: Planted) -> None:
    sae = load_foreign(write_sparsify(tmp_path / "layers.5", planted))
    assert (sae.format, sae.kind, sae.k, sae.hook_point) == ("sparsify", "topk", K, POINT)
    features, report = check(sae, planted.x)
    assert report["l0"] == pytest.approx(K, rel=0.05)
    assert_is_planted(features, planted, float(features.threshold[0]))
    for name, cfg, message in (
        ("transcoder", {"transcode": True}, "transcode is on"),
        ("skip", {"skip_connection": True}, "skip_connection is on"),
        ("groups", {"activation": "groupmax"}, "'groupmax'; a threshold can stand for topk only"),
        ("width", {"d_in": 7}, "d_in is 7 in cfg.json, 24 in sae.safetensors"),
        ("k", {"k": "many"}, "k is 'many', not a whole number"),
    ):
        with pytest.raises(WeightsError, match=message):
            load_foreign(write_sparsify(tmp_path / name, planted, **cfg))


def test_saelens(tmp_path: Path, planted: Planted) -> None:
    thresholds = torch.full((F,), 0.7)
    folder = write_saelens(tmp_path / "jump", planted, {"architecture": "jumprelu"}, threshold=thresholds)
    sae = load_foreign(folder)
    assert (sae.format, sae.kind, sae.hook_point) == ("saelens", "jumprelu", POINT)
    assert_is_planted(sae.features(), planted, 0.7)
    assert check(sae, planted.x)[1]["tried"].keys() == {"none"}, "the file says so"

    raw = write_saelens(
        tmp_path / "raw", planted, {"architecture": "jumprelu", "apply_b_dec_to_input": False},
        threshold=thresholds, b_enc=t(-planted.mean @ planted.W_enc),
    )  # fmt: skip
    assert_is_planted(load_foreign(raw).features(), planted, 0.7)

    relu = write_saelens(tmp_path / "relu", planted, {"architecture": "standard"})
    assert_is_planted(load_foreign(relu).features(), planted, 0.0)

    topk = load_foreign(write_saelens(tmp_path / "topk", planted, {"architecture": "topk", "k": K}))
    assert check(topk, planted.x)[1]["l0"] == pytest.approx(K, rel=0.05)


def test_saelens_before_version_6(tmp_path: Path, planted: Planted) -> None:
    old = {"architecture": "standard", "activation_fn_str": "topk", "activation_fn_kwargs": {"k": K},
           "hook_point": "blocks.5.hook_resid_post", "normalize_activations": None}  # fmt: skip
    folder = write_saelens(tmp_path / "old", planted, old)
    cfg = json.loads((folder / "cfg.json").read_text())
    for name in ("metadata", "apply_b_dec_to_input", "reshape_activations"):
        cfg.pop(name)
    (folder / "cfg.json").write_text(json.dumps(cfg))
    sae = load_foreign(folder)
    assert (sae.kind, sae.k, sae.hook_point, sae.normalization) == ("topk", K, None, "none")
    features, _ = check(sae, planted.x)
    assert_is_planted(features, planted, float(features.threshold[0]))


def test_saelens_scaled_inputs_need_activations(tmp_path: Path, planted: Planted) -> None:
    scale = np.float32(D**0.5 / np.linalg.norm(planted.x, axis=1).mean())
    cfg = {"architecture": "jumprelu", "normalize_activations": "expected_average_only_in"}
    folder = write_saelens(
        tmp_path / "s", planted, cfg, threshold=torch.full((F,), float(0.7 * scale)), b_dec=t(planted.mean * scale)
    )
    features, report = check(load_foreign(folder), planted.x)
    assert list(report["tried"]) == ["mean norm sqrt(d_in)"]
    np.testing.assert_allclose(features.b_dec, planted.mean, rtol=0.02)
    np.testing.assert_allclose(features.threshold, 0.7, rtol=0.02)
    result = CliRunner().invoke(app, ["import", str(folder), "-o", str(tmp_path / "out")])
    assert isinstance(result.exception, SteerOptionError)
    assert "does not say by how much; --activations" in str(result.exception)


@pytest.mark.parametrize(
    ("cfg", "tensors", "message"),
    [
        ({"architecture": "gated"}, {}, "architecture 'gated'; standard, jumprelu, topk can be read"),
        ({"architecture": "jumprelu"}, {}, "threshold missing; it has W_dec, W_enc, b_dec, b_enc"),
        ({"architecture": "standard", "normalize_activations": "layer_norm"}, {}, "frame by frame .'layer_norm'"),
        ({"architecture": "standard", "reshape_activations": "hook_z"}, {}, "reshapes activations"),
        ({"architecture": "standard", "activation_fn": "tanh-relu"}, {}, "activation 'tanh-relu'"),
        ({"architecture": "standard"}, {"scaling_factor": torch.full((F,), 2.0)}, "scaling_factor is not 1"),
        ({"architecture": "standard"}, {"b_dec": torch.zeros(7)}, r"b_dec has shape \(7,\)"),
        ({"architecture": "standard"}, {"b_enc": torch.full((F,), float("nan"))}, "b_enc holds values that are not"),
        ({"architecture": "topk", "k": F + 1}, {}, f"k is {F + 1}, with {F} features"),
    ],
)  # fmt: skip
def test_saelens_that_cannot_be_ours(
    tmp_path: Path, planted: Planted, cfg: dict[str, Any], tensors: dict[str, torch.Tensor], message: str
) -> None:
    with pytest.raises(WeightsError, match=message):
        load_foreign(write_saelens(tmp_path / "x", planted, cfg, **tensors))


class Loud:
    """Unpickling this would run something."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, ...]]:
        return (Path.touch, (Path("/tmp/ran-by-unpickling"),))  # type: ignore[return-value]


def test_files_that_are_not_what_they_should_be(
    tmp_path: Path, planted: Planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(WeightsError, match="holds more than tensors"):
        load_foreign(write_pt(tmp_path / "evil", linear_keys(planted, extra=Loud())))
    assert not Path("/tmp/ran-by-unpickling").exists()
    with pytest.raises(WeightsError, match="a state_dict is expected, not a list"):
        load_foreign(write_pt(tmp_path / "list", [1, 2]))  # type: ignore[arg-type]
    with pytest.raises(WeightsError, match="gated dictionary"):
        load_foreign(write_pt(tmp_path / "gated", {"r_mag": torch.zeros(F)}))
    with pytest.raises(WeightsError, match=r"encoder.weight, encoder.bias missing; it has decoder.weight"):
        load_foreign(write_pt(tmp_path / "half", {"decoder.weight": torch.zeros(2, 2)}))

    old = tmp_path / "old"
    old.mkdir()
    torch.save(linear_keys(planted), old / "ae.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(WeightsError, match="not a file as torch.save has written since version 1.6"):
        load_foreign(old)
    cut = write_pt(tmp_path / "cut", linear_keys(planted)) / "ae.pt"
    cut.write_bytes(cut.read_bytes()[:-200])
    with pytest.raises(WeightsError):
        load_foreign(cut)

    monkeypatch.setattr(files, "MAX_BYTES", 100_000)
    bomb = write_pt(tmp_path / "bomb", linear_keys(planted)) / "ae.pt"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", b"\0" * 10_000_000)
    assert bomb.stat().st_size < 100_000
    with pytest.raises(WeightsError, match="10000000 bytes when unpacked"):
        load_foreign(bomb)
    wide = linear_keys(planted, **{"encoder.weight": torch.zeros(1, 1).expand(1 << 20, 1 << 10)})
    with pytest.raises(WeightsError, match="would take more than"):
        load_foreign(write_pt(tmp_path / "wide", wide))
    with pytest.raises(WeightsError, match="bytes; at most 100000 are read"):
        load_foreign(write_pt(tmp_path / "large", linear_keys(planted, more=torch.zeros(50_000))))


def test_what_is_no_dictionary(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such file or folder"):
        load_foreign(tmp_path / "nowhere")
    with pytest.raises(WeightsError, match="in a format that is known: none of"):
        load_foreign(tmp_path)
    with pytest.raises(SteerOptionError, match="did you mean 'saelens'"):
        load_foreign(tmp_path, "sealens")


def test_the_command_checks_and_writes_ours(tmp_path: Path, planted: Planted) -> None:
    pieces = planted.x.reshape(10, -1, D)
    windows = [Window({POINT: piece, "encoder.output": piece[:, :8]}, n_real_frames=500) for piece in pieces]
    store = write_store(tmp_path / "acts", windows, [{"kind": "speech", "source": "x", "treatment": "plain"}] * 10)
    assert isinstance(store, ActivationStore)
    folder = write_pt(tmp_path / "layer_6", linear_keys(planted))
    out = tmp_path / "sae"
    result = CliRunner().invoke(app, ["import", str(folder), "-o", str(out), "--activations", str(tmp_path / "acts")])
    assert result.exit_code == 0, result.exception
    assert "audiosae: batch_topk, k 4, 24 wide, 48 features" in result.output
    assert "on 2500 frames" in result.output, "half of those that hear audio"
    assert "inputs: none (FVU by inputs: none 0.1" in result.output
    metadata = json.loads((out / CFG_FILE).read_text())["metadata"]
    assert (metadata["hook_name"], metadata["model_name"], metadata["model_sha256"]) == (POINT, "test", "0" * 64)
    assert metadata["imported"] | {"sha256": ""} == {
        "format": "audiosae", "kind": "batch_topk", "k": K, "file": "ae.pt", "sha256": "", "layer": 6
    }  # fmt: skip
    assert metadata["check"]["l0"] == pytest.approx(K, rel=0.05)
    assert_is_planted(load_features(out), planted, float(load_features(out).threshold[0]))

    def refused(*options: str) -> str:
        return str(CliRunner().invoke(app, ["import", *options, "-o", str(tmp_path / "no")]).exception)

    with_store = ("--activations", str(tmp_path / "acts"))
    assert "has no 'encoder.layers.9', but encoder.layers.5, encoder.output" in refused(
        str(folder), *with_store, "--hook-point", "encoder.layers.9"
    )
    assert "24 wide, the activations 8" in refused(str(folder), *with_store, "--hook-point", "encoder.output")
    assert "does not say its hook point" in refused(str(write_pt(tmp_path / "trainer_0", linear_keys(planted))))
    assert "without a threshold" in refused(str(folder))
    assert "at most 1%" in refused(str(folder), *with_store, "--max-fvu", "0.001").replace("At most 0%", "at most 1%")
    assert not (tmp_path / "no").exists()

    again = CliRunner().invoke(app, ["import", str(out), "-o", str(tmp_path / "again")])
    assert "not checked" in again.output
    for name in ("W_enc", "b_enc", "threshold", "W_dec", "b_dec"):
        np.testing.assert_array_equal(
            getattr(load_features(tmp_path / "again"), name), getattr(load_features(out), name), "ours is SAELens's"
        )


def test_layers_that_were_counted_wrongly_show(tmp_path: Path, planted: Planted) -> None:
    """The next layer is much like this one, so that it passes the check; the comparison tells them apart."""
    pieces = planted.x.reshape(10, -1, D)
    noise = np.random.default_rng(3).normal(0, 0.3, pieces.shape).astype(np.float32)
    described = [{"kind": "speech", "source": "x", "treatment": "plain"}] * 10
    points = [{POINT: piece, "encoder.layers.6": piece + n} for piece, n in zip(pieces, noise, strict=True)]
    write_store(tmp_path / "acts", [Window(point, n_real_frames=600) for point in points], described)
    for name, expected in (
        ("layer_6", None),
        ("layer_7", "says encoder.layers.6, and reconstructs encoder.layers.5 be"),
    ):
        folder = write_pt(tmp_path / name, linear_keys(planted))
        command = ["import", str(folder), "-o", str(tmp_path / "out"), "--activations", str(tmp_path / "acts")]
        result = CliRunner().invoke(app, command)
        if expected is None:
            assert "FVU by hook point: encoder.layers.5 0.1" in result.output
        else:
            assert expected in str(result.exception)
            insisted = CliRunner().invoke(app, [*command, "--hook-point", "encoder.layers.6"])
            assert insisted.exit_code == 0, "whoever names the hook point has decided"


def test_what_saelens_expects_of_our_files(tmp_path: Path) -> None:
    """SAELens 6.54.12, `SAE.load_from_disk`: keys and fields of `JumpReLUSAE` and `JumpReLUSAEConfig`, no others.

    `from_dict` drops unknown fields and passes `metadata` on; without `sae_lens_version` in it, the file would be read
    as one from before 6, and its metadata dropped.
    """
    save_features(tmp_path, axis_features(), {"hook_name": POINT, "model_name": "base"})
    cfg = json.loads((tmp_path / CFG_FILE).read_text())
    fields = {"d_in", "d_sae", "dtype", "device", "apply_b_dec_to_input", "normalize_activations",
              "reshape_activations", "metadata"}  # fmt: skip
    assert set(cfg) == fields | {"architecture"}
    assert (cfg["architecture"], cfg["d_in"], cfg["d_sae"], cfg["dtype"]) == ("jumprelu", 4, 3, "float32")
    assert cfg["normalize_activations"] in ("none", "expected_average_only_in", "layer_norm", "covariance_whitening")
    assert cfg["reshape_activations"] in ("none", "hook_z")
    assert int(cfg["metadata"]["sae_lens_version"].split(".")[0]) >= 6
    assert cfg["metadata"]["hook_name"] == POINT
    tensors = files.read_safetensors(tmp_path / WEIGHTS_FILE)
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        "W_enc": (4, 3), "b_enc": (3,), "threshold": (3,), "W_dec": (3, 4), "b_dec": (4,)
    }  # fmt: skip
    assert all(tensor.dtype == np.float32 for tensor in tensors.values())
