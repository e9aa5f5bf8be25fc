from __future__ import annotations

from pathlib import Path

import pytest

from steer_asr.errors import SteerOptionError
from steer_asr_training.recipe import load_recipe

RECIPES = Path(__file__).parents[2] / "training" / "recipes"


@pytest.mark.parametrize("name", ["base", "tiny.en"])
def test_the_shipped_recipes_load(name: str) -> None:
    recipe = load_recipe(RECIPES / f"{name}.yaml", data="/data")
    assert (recipe.name, recipe.collect.model) == (name, name)
    assert recipe.collect.manifests[0] == "/data/manifests/train_nonspeech.jsonl"
    assert recipe.collect.data.only_shippable


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name: x\nlearn: {step: 3}", "learn: unknown field 'step'; did you mean 'steps'"),
        ("name: x\nfits: {}", "unknown field 'fits'"),
        ("- a\n- b", "a recipe is a mapping"),
        ("name: [", "cannot be read"),
        ("name: x", "missing"),
        ("name: x\ncollect: {model: base, manifests: []}\nfit: {k: 0}\nlearn: {}", "k must lie in"),
    ],
)
def test_broken_recipes_say_what_is_wrong(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(content)
    with pytest.raises(SteerOptionError, match=message):
        load_recipe(path)
    with pytest.raises(SteerOptionError, match="cannot be read"):
        load_recipe(tmp_path / "gone.yaml")
