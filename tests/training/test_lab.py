"""The laboratory: recipes, a whole run on a tiny random Whisper, and what is done again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from steer_asr.errors import SteerOptionError
from steer_asr_training.analysis.commands import evaluate_command
from steer_asr_training.lab.layout import RunFolder
from steer_asr_training.lab.recipe import LabRecipe, load_lab_recipe
from steer_asr_training.lab.run import Ledger, plan_jobs, run_lab
from steer_asr_training.store import ActivationStore
from tests.training.lab_builders import LAYER, POINT, tiny_recipe, write_recipe

RECIPES = Path(__file__).parents[2] / "training" / "recipes"


def run_all(recipe: LabRecipe, folder: Path) -> None:
    """A run in which phonemes cannot be done: nothing is aligned."""
    with pytest.raises(SteerOptionError, match=r"left out: phonemes encoder.output \(no window has an alignment"):
        run_lab(recipe, folder)


@pytest.fixture(scope="module")
def recipe(tiny_whisper_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> LabRecipe:
    return tiny_recipe(tmp_path_factory.mktemp("lab"), tiny_whisper_dir)


@pytest.fixture(scope="module")
def run(recipe: LabRecipe, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    run_all(recipe, folder)
    return RunFolder(folder)


def jobs_of(run: RunFolder) -> dict[str, dict[str, object]]:
    return json.loads(run.lab_file.read_text(encoding="utf-8"))["jobs"]


def test_a_run_collects_once_fits_every_layer_and_seed_and_analyses_the_first_seed(run: RunFolder) -> None:
    assert ActivationStore(run.activations("train")).header["hook_points"] == [LAYER, POINT]
    assert [run.sae(0, point).is_dir() for point in (LAYER, POINT)] == [True, True]
    assert [run.sae(1, point).is_dir() for point in (LAYER, POINT)] == [False, True]
    written = {str(path.relative_to(run.path / "results")) for path in run.path.rglob("results/**/*.json")}
    assert written == {
        f"{POINT}/quality.json",
        f"{POINT}/stability-0-1/stability.json",
        *(f"{point}/{name}.json" for point in (LAYER, POINT) for name in ("features", "search", "probe-kind/probe")),
    }
    quality = json.loads((run.results(POINT) / "quality.json").read_text(encoding="utf-8"))
    assert quality["dictionary"] == str(run.sae(0, POINT))
    assert quality["splice"]["windows"] == 2
    assert "==== evaluate encoder.output\n# Quality of" in run.log.read_text(encoding="utf-8")


def test_its_files_are_those_of_the_commands(run: RunFolder, tmp_path: Path) -> None:
    evaluate_command(run.sae(0, POINT), run.activations("dev"), tmp_path)
    alone = json.loads((tmp_path / "quality.json").read_text(encoding="utf-8"))
    of_lab = json.loads((run.results(POINT) / "quality.json").read_text(encoding="utf-8"))
    assert alone == {key: value for key, value in of_lab.items() if key != "splice"}


def test_short_clips_are_left_out_and_paths_still_lead_somewhere(run: RunFolder, recipe: LabRecipe) -> None:
    [path] = run.manifests("dev").iterdir()
    kept = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    [source] = recipe.dev.manifests
    every = [json.loads(line) for line in Path(source).read_text(encoding="utf-8").splitlines()]
    assert len(kept) == sum(row["duration"] >= 0.6 for row in every) < len(every)
    assert all(Path(row["audio_filepath"]).is_file() for row in kept)
    assert not run.manifests("train").exists(), "no limit, no copy"
    with pytest.raises(SteerOptionError, match="no clip lasts 99 s"):
        plan = plan_jobs(replace(recipe, dev=replace(recipe.dev, min_clip_s=99)), run)
        plan[1].do()


def test_what_is_done_stays_done_and_what_changed_is_done_again(
    run: RunFolder, recipe: LabRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    before = jobs_of(run)
    run_all(recipe, run.path)
    assert capsys.readouterr().err == "", "nothing to do, nothing to say"
    assert jobs_of(run) == before

    (run.results(LAYER) / "search.json").unlink()
    analyses = dict(recipe.analyses) | {"features": {"effect_windows": 0, "top": 1}}
    run_all(replace(recipe, analyses=analyses), run.path)
    said = capsys.readouterr().err
    assert "3 of 13 jobs, about " in said
    done = [line for line in said.splitlines() if line.startswith("[")]
    assert done == [f"[1/3] features {LAYER}", f"[2/3] features {POINT}", f"[3/3] search {LAYER}"]
    run_all(recipe, run.path)  # as it was, for the tests that follow


def test_results_of_another_fit_do_not_count_as_done(run: RunFolder, recipe: LabRecipe) -> None:
    ledger = Ledger(run, recipe)
    assert all(ledger.is_done(job) for job in plan_jobs(recipe, run))
    other = replace(recipe, fit=replace(recipe.fit, steps=31))
    todo = [job.name for job in plan_jobs(other, run) if not ledger.is_done(job)]
    assert todo[:2] == ["fit seed 0", "fit seed 1"]
    assert len(todo) == 11, "all but the audio"
    with pytest.raises(SteerOptionError, match="holds a run with other settings"):
        run_lab(other, run.path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"analyses": {"evaluat": {}}}, "unknown analysis 'evaluat'; did you mean 'evaluate'"),
        ({"analyses": {"features": {"tops": 3}}}, "features: unknown option 'tops'; did you mean 'top'"),
        ({"analyses": {"features": [{}, {}]}}, "features is done once"),
        ({"analyses": {"probe": {"folds": 2}}}, "probe needs target"),
        ({"analyses": {"erase": {"target": "phone"}}}, "erase needs concept"),
        ({"analyses": {"evaluate": {"out": "x"}}}, "unknown option 'out'"),
        ({"analyses": {"evaluate": {"splice": "all"}}}, "splice is true, false, or a list"),
        ({"seeds": {}}, "seeds maps whole numbers"),
        ({"seeds": {"first": ["all"]}}, "seeds maps whole numbers"),
        ({"seeds": {0: "all"}}, "seed 0: give a list"),
        ({"fit": {"k": 0}}, "k must lie in"),
        ({"train": {"manifests": ["x"], "minutes": 3}}, "train: unknown field 'minutes'"),
    ],
)
def test_broken_recipes_say_what_is_wrong(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "clips.jsonl").touch()
    with pytest.raises(SteerOptionError, match=message):
        load_lab_recipe(write_recipe(tmp_path, Path("model"), **changes))


def test_hook_points_have_to_be_the_models(recipe: LabRecipe, tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with pytest.raises(SteerOptionError, match=r"unknown hook point 'encoder.layers.7'.*encoder.layers.1"):
        plan_jobs(replace(recipe, hook_points=("encoder.layers.7",)), run)
    with pytest.raises(SteerOptionError, match="seed 1: unknown hook point 'encoder.layers.0'"):
        plan_jobs(replace(recipe, seeds={0: ["all"], 1: ["encoder.layers.0"]}), run)
    twice = dict(recipe.analyses) | {"probe": [{"target": "kind"}, {"target": "kind", "folds": 3}]}
    with pytest.raises(SteerOptionError, match="probe kind encoder.layers.1 stands twice"):
        plan_jobs(replace(recipe, analyses=twice), run)


def test_splicing_can_be_limited_to_some_layers(recipe: LabRecipe, tmp_path: Path) -> None:
    analyses = {"evaluate": {"splice": [POINT], "windows": 2}}
    jobs = plan_jobs(replace(recipe, analyses=analyses), RunFolder(tmp_path))
    assert [job.options["splice"] for job in jobs if job.name.startswith("evaluate")] == [False, True]


def test_the_shipped_recipe_loads_and_measures_on_other_recordings() -> None:
    recipe = load_lab_recipe(RECIPES / "lab-base.yaml", data="/data")
    assert not set(recipe.train.manifests) & set(recipe.dev.manifests)
    assert recipe.dev.manifests[0] == "/data/manifests/dev_nonspeech.jsonl"
    assert list(recipe.seeds) == [0, 1]
    assert len(recipe.seeds[1]) >= 2
