"""Descriptions by a function of the user's, which hears the top clips."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from steer_asr.errors import SteerOptionError
from steer_asr_training.analysis.activations import clip_table
from steer_asr_training.analysis.features import feature_report, top_windows
from steer_asr_training.analysis.inputs import load_dictionary, stored_windows
from steer_asr_training.cli import app
from steer_asr_training.collect import CollectConfig, collect
from steer_asr_training.lab.narrate import DONE_FILE, HeardFeature, captioned, load_describer, narrate
from steer_asr_training.store import ActivationStore
from tests.training.analysis_builders import PLAIN, orthonormal, tied, write_clips, write_sae
from tests.training.builders import write_hubert

LAYER = "encoder.layers.1"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """features.json of directions that mean nothing."""
    folder = tmp_path_factory.mktemp("narrate")
    manifest = write_clips(folder / "audio")
    config = CollectConfig(str(write_hubert(folder / "hubert")), (str(manifest),), (LAYER,), PLAIN)
    store = ActivationStore(collect(config, folder / "store"))
    x = np.concatenate([store.window(i, LAYER) for i in range(len(store))]).astype(np.float32)
    features = tied(orthonormal(8, 24), threshold=0.01, mean=x.mean(axis=0))
    sae = write_sae(folder / "sae", features, model_sha256=store.header["model_sha256"], hook_name=LAYER)
    dictionary = load_dictionary(sae)
    windows = stored_windows(store, dictionary)
    table = clip_table(windows, dictionary.features)
    content: dict[str, Any] = {"activations": str(folder / "store")}
    content |= feature_report(windows, dictionary, table, tops=top_windows(table, 4))
    path = folder / "features.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def rows_of(path: Path) -> dict[int, dict[str, Any]]:
    return {row["feature"]: row for row in json.loads(path.read_text(encoding="utf-8"))["features"]}


def test_the_function_hears_the_top_clips_and_its_answer_is_the_description(report: Path, tmp_path: Path) -> None:
    heard: list[HeardFeature] = []

    def describe(feature: HeardFeature) -> str:
        heard.append(feature)
        return f"thing\n  number {feature.feature}"

    before = rows_of(report)
    after = rows_of(narrate(report, describe, tmp_path, max_features=0, top=2, seconds=0.4))
    alive = {j for j, row in before.items() if row["top"]}
    assert {feature.feature for feature in heard} == alive
    assert len(alive) > 4
    for feature in heard:
        row = before[feature.feature]
        assert feature.rules == row["description"]
        assert [clip.activation for clip in feature.clips] == [top["activation"] for top in row["top"][:2]]
        for clip in feature.clips:
            assert clip.wave.dtype == np.float32
            assert 0 < len(clip.wave) <= 6400
            assert 0 <= clip.peak_s <= len(clip.wave) / 16000 + 0.02
        assert after[feature.feature]["description"] == f"thing number {feature.feature}"
        assert after[feature.feature]["rules"] == row["description"]
    assert "thing number" in (tmp_path / "features.md").read_text(encoding="utf-8")
    again = rows_of(narrate(tmp_path / "features.json", lambda _: "other", tmp_path / "again", max_features=1))
    assert {row["rules"] for row in again.values() if row["description"] == "other"} <= {
        row["description"] for row in before.values()
    }


def test_an_interrupted_run_goes_on(report: Path, tmp_path: Path) -> None:
    asked: list[int] = []

    def describe(feature: HeardFeature) -> str:
        asked.append(feature.feature)
        if len(asked) == 3:
            raise ConnectionError("no answer")
        return "x"

    with pytest.raises(SteerOptionError, match=r"feature \d+: describer raised ConnectionError: no answer"):
        narrate(report, describe, tmp_path)
    assert len(json.loads((tmp_path / DONE_FILE).read_text())["described"]) == 2
    narrate(report, describe, tmp_path)
    assert asked[2] == asked[3]
    assert len(set(asked)) == len(asked) - 1, "none twice but the one that failed"
    assert not (tmp_path / DONE_FILE).exists()


@pytest.mark.parametrize("answer", ["", None, 3])
def test_an_answer_is_a_text(report: Path, tmp_path: Path, answer: Any) -> None:
    with pytest.raises(SteerOptionError, match="has to return a text"):
        narrate(report, lambda _: answer, tmp_path)


def test_captions_and_a_language_model(report: Path, tmp_path: Path) -> None:
    prompts: list[str] = []

    def complete(prompt: str) -> str:
        prompts.append(prompt)
        return "beeps"

    describer = captioned(lambda wave: f"a sound of {len(wave)} samples", complete)
    path = narrate(report, describer, tmp_path, max_features=1, top=2, seconds=0.2)
    [prompt] = prompts
    lengths = [int(n) for n in re.findall(r"^- a sound of (\d+) samples$", prompt, re.MULTILINE)]
    assert len(lengths) == 2
    assert 0 < min(lengths) <= max(lengths) <= 3200, "shorter where the recording begins or ends"
    assert [row["description"] for row in rows_of(path).values()].count("beeps") == 1


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_captions.py").write_text("def describe(heard):\n    return 'mine'\n\nnumber = 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "my_captions"


def test_the_command_takes_a_function_by_its_name(report: Path, tmp_path: Path, module: str) -> None:
    words = ["describe", str(report), f"{module}:describe", "-o", str(tmp_path / "out"), "--max-features", "2"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    descriptions = [row["description"] for row in rows_of(tmp_path / "out" / "features.json").values()]
    assert descriptions.count("mine") == 2


def test_names_that_are_none(module: str) -> None:
    for name, said in (
        ("my_captions", "give MODULE:FUNCTION"),
        (f"{module}:nothing", "cannot be loaded .AttributeError"),
        ("no_such_module:f", "cannot be loaded .ModuleNotFoundError"),
        (f"{module}:number", "is no function but int"),
    ):
        with pytest.raises(SteerOptionError, match=said):
            load_describer(name)
