"""The check of imported dictionaries on real activations: tiny.en's layers, and a dictionary fitted to one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from steer_asr.audio import decode_audio
from steer_asr.errors import ModelError
from steer_asr.manifest import read_manifest
from steer_asr.sae import load_features
from steer_asr_training.encoders import load_encoder
from steer_asr_training.fit import FitConfig, fit_stream
from steer_asr_training.foreign import load_foreign
from steer_asr_training.foreign.check import check, other_layers, stored_frames
from steer_asr_training.store import ActivationStore
from tests.training.builders import write_store

CLIPS = Path(__file__).parents[2] / "benchmarks" / "demo" / "clips.jsonl"
POORLY = 0.6
"""What is fitted here for some seconds need not reconstruct well."""
POINTS = ("encoder.layers.0", "encoder.layers.1", "encoder.layers.2")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    try:
        encoder = load_encoder("tiny.en", precision="float32")
    except ModelError as error:
        pytest.skip(f"needs the tiny.en wheel: {error}")
    clips = [clip for clip in read_manifest(CLIPS) if clip.duration_s < 30]
    windows = encoder.capture([decode_audio(clip.audio_path) for clip in clips], POINTS)
    described = [{"kind": clip.kind, "source": "demo", "treatment": "plain"} for clip in clips]
    return write_store(tmp_path_factory.mktemp("acts"), windows, described)


def as_audiosae(folder: Path, x: np.ndarray, normalize: Callable[[np.ndarray], np.ndarray]) -> Path:
    """A BatchTopK of layer 2, fitted on normalised frames and written with AudioSAE's keys, its threshold unset."""

    def batches() -> Iterator[torch.Tensor]:
        rng = np.random.default_rng(0)
        while True:
            yield torch.from_numpy(normalize(x[rng.integers(0, len(x), 512)]).astype(np.float32))

    config = FitConfig(d_sae=256, k=16, k_start=32, steps=100, batch_frames=512, hook_point=POINTS[1])
    [fitted] = fit_stream(config, batches(), folder / "fit").values()
    sae = load_features(fitted)
    state = {
        "encoder.weight": torch.from_numpy(sae.W_enc.T.copy()),
        "encoder.bias": torch.from_numpy(sae.b_enc + sae.b_dec @ sae.W_enc),
        "decoder.weight": torch.from_numpy(sae.W_dec.T.copy()),
        "b_dec": torch.from_numpy(sae.b_dec),
        "k": torch.tensor(16),
        "threshold": torch.tensor(-1.0),
    }
    (folder / "layer_2").mkdir(parents=True)
    torch.save(state, folder / "layer_2" / "ae.pt")
    return folder / "layer_2"


@pytest.mark.slow
def test_inputs_and_layer_of_a_dictionary_of_real_activations(store: ActivationStore, tmp_path: Path) -> None:
    x = np.random.default_rng(1).permutation(stored_frames(store, POINTS[1]))
    sae = load_foreign(as_audiosae(tmp_path / "raw", x, lambda frames: frames))
    assert sae.hook_point == POINTS[1]
    features, report = check(sae, x, max_fvu=POORLY)
    assert report["inputs"] == "none"
    assert report["l0"] == pytest.approx(16, rel=0.25), "calibrated on the other half"
    layers = other_layers(features, store, POINTS[1])
    assert min(layers, key=lambda point: layers[point]) == POINTS[1]

    rms = float(np.sqrt(np.square(x).sum(axis=1).mean()))
    _, scaled = check(load_foreign(as_audiosae(tmp_path / "scaled", x, lambda frames: frames / rms)), x, max_fvu=POORLY)
    assert scaled["inputs"] == "root mean square norm 1"
    assert scaled["fvu"] == pytest.approx(report["fvu"], rel=0.3)
