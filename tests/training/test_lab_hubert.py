"""The laboratory on a HuBERT: collect, fit and every analysis that needs no decoder, with random weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from steer_asr_training.lab.layout import RunFolder
from steer_asr_training.lab.report import write_report
from steer_asr_training.lab.run import run_lab
from steer_asr_training.store import ActivationStore
from tests.training.builders import write_hubert
from tests.training.lab_builders import tiny_recipe

LAYERS = ["encoder.layers.0", "encoder.layers.1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("lab")
    recipe = tiny_recipe(
        folder,
        write_hubert(folder / "hubert"),
        hook_points=["all"],
        seeds={0: ["all"], 1: [LAYERS[1]]},
        analyses={
            "evaluate": {},
            "features": {"effect_windows": 0, "top": 2},
            "search": {"best": 2},
            "stability": {},
            "probe": {"target": "kind", "k": [1, 4], "folds": 2},
        },
    )
    return RunFolder(run_lab(recipe, folder / "run"))


def test_every_layer_is_collected_fitted_and_analysed(run: RunFolder) -> None:
    store = ActivationStore(run.activations("train"))
    assert (store.header["front_end"], store.header["hook_points"]) == ("waveform", LAYERS)
    assert store.window(0, LAYERS[0]).shape == (store.n_real_frames(0), 24), "nothing is padded"
    for layer in LAYERS:
        quality = json.loads((run.results(layer) / "quality.json").read_text(encoding="utf-8"))
        assert quality["hook_point"] == layer
        assert {path.name for path in run.results(layer).glob("*.json")} == {
            "quality.json", "features.json", "search.json"
        }  # fmt: skip
    assert (run.results(LAYERS[1]) / "stability-0-1" / "stability.json").is_file()


def test_the_layers_differ(run: RunFolder) -> None:
    store = ActivationStore(run.activations("train"))
    first, second = (store.window(0, layer).astype(np.float32) for layer in LAYERS)
    assert (first != second).mean() > 0.9


def test_the_report_has_both(run: RunFolder, tmp_path: Path) -> None:
    write_report(run.path, tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert all(layer in text for layer in LAYERS)
    assert (tmp_path / "report.html").is_file()
