"""`steer-asr-train`: make steer packs, in one go (`make`) or step by step (`collect`, `fit`, `learn`, `export`).

`evaluate`, `stability`, `features` and `search` say what a dictionary has learned; `phonemes`, `probe`, `erase` and
`boundaries` what it knows of a concept; `eeg` whether a listener's brain follows it. `lab` does all of it over all
layers and seeds, `report` prints what it found, and `browse` makes pages to look at features and hear them.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from steer_asr._optional_values import RayOption
from steer_asr.errors import SteerASRError, SteerOptionError
from steer_asr_training.analysis.commands import register as register_analysis
from steer_asr_training.eeg.commands import register as register_eeg
from steer_asr_training.fit_commands import Ray
from steer_asr_training.fit_commands import register as register_fit
from steer_asr_training.lab.commands import register as register_lab

TRAIN_EXTRA = ("torch", "transformers", "sklearn", "scipy", "yaml", "jiwer", "matplotlib", "praatio")
EEG_EXTRA = ("mne", "mne_bids", "mtrf", "pymatreader")
app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, help=__doc__
)

RecipeFile = Annotated[Path, typer.Argument(help="YAML recipe, for example training/recipes/base.yaml.")]
DataFolder = Annotated[Path, typer.Option("--data", help="Replaces {data} in the recipe's manifest paths.")]
WorkFolder = Annotated[
    Path, typer.Option("--work", help="Where intermediate results are kept; a second run resumes from them.")
]
Tensorboard = Annotated[bool, typer.Option("--tensorboard", help="Also write curves for TensorBoard.")]
Workers = Annotated[int, typer.Option("--workers", help="Processes for encoding; 0 is one per core.")]


@app.command("make")
def make_command(
    recipe: RecipeFile,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the finished pack.")],
    data: DataFolder = Path("."),
    work: WorkFolder = Path("runs"),
    workers: Workers = 0,
    tensorboard: Tensorboard = False,
) -> None:
    """Recipe to steer pack: all steps, resumable; says beforehand how long it will take."""
    from steer_asr_training.make import make
    from steer_asr_training.recipe import load_recipe

    typer.echo(make(load_recipe(recipe, data=data), work, out, workers=workers, tensorboard=tensorboard))


@app.command("collect", cls=RayOption)
def collect_command(
    recipe: RecipeFile,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the activations.")],
    data: DataFolder = Path("."),
    model: Annotated[str | None, typer.Option(help="Instead of the recipe's: a Whisper or a HuBERT directory.")] = None,
    hook_point: Annotated[
        list[str] | None, typer.Option(help="Instead of the recipe's, for example encoder.layers.3; repeatable.")
    ] = None,
    workers: Workers = 0,
    ray: Ray = None,
) -> None:
    """Audio manifests to encoder activations: sharded safetensors, padding frames marked, resumable."""
    from steer_asr_training.make import collect_in_parallel
    from steer_asr_training.recipe import load_recipe

    config = load_recipe(recipe, data=data).collect
    if model:
        config = replace(config, model=model)
    if hook_point:
        config = replace(config, hook_points=tuple(hook_point))
    if ray is None:
        collect_in_parallel(config, out, workers)
    else:
        from steer_asr_training.ray_collect import collect_on_ray

        collect_on_ray(config, out, address=ray, workers=workers)
    typer.echo(out)


register_fit(app)


@app.command("learn")
def learn_command(
    recipe: RecipeFile,
    activations: Annotated[Path, typer.Argument(help="Folder written by collect.")],
    sae: Annotated[Path, typer.Argument(help="The sae folder written by fit.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the learned edit.")],
    tensorboard: Tensorboard = False,
    held_out: Annotated[
        Path | None, typer.Option(help="With --tensorboard: activations to watch the edit on, collected as others are.")
    ] = None,
) -> None:
    """A dictionary to an edit of a few features and its gate, by gradient through the frozen decoder."""
    from steer_asr.models import find_model
    from steer_asr_training.learn import learn
    from steer_asr_training.recipe import load_recipe
    from steer_asr_training.store import ActivationStore

    if held_out is not None and not tensorboard:
        raise SteerOptionError("--held-out is for the curves of --tensorboard; give both")
    loaded = load_recipe(recipe)
    model, store = find_model(loaded.collect.model), ActivationStore(activations)
    watched = None if held_out is None else ActivationStore(held_out)
    learn(loaded.learn, store, sae, model, out, tensorboard=tensorboard, held_out=watched)
    typer.echo(out)


@app.command("readout")
def readout_command(
    pack: Annotated[Path, typer.Argument(help="Folder of a pack with a gate; readout.safetensors is added to it.")],
    activations: Annotated[Path, typer.Argument(help="Folder written by collect, for the pack's model.")],
) -> None:
    """Add what a compiled model needs of the pack's gate: attention-pooled evidence that says what the gate says."""
    from steer_asr.pack import load_pack
    from steer_asr_training.readout import add_readout
    from steer_asr_training.store import ActivationStore

    typer.echo(add_readout(load_pack(pack), ActivationStore(activations)))


@app.command("fewer")
def fewer_command(
    recipe: RecipeFile,
    activations: Annotated[Path, typer.Argument(help="Folder written by collect.")],
    sae: Annotated[Path, typer.Argument(help="The sae folder written by fit.")],
    learned: Annotated[Path, typer.Argument(help="Folder written by learn.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the packs, one folder each.")],
    data: DataFolder = Path("."),
    sizes: Annotated[str, typer.Option(help="How many features; all: as many as were learned.")] = "16,32,64,128,all",
    steps: Annotated[
        int | None, typer.Option(help="Steps of learning the fewer edits again; a third of the recipe's if not given.")
    ] = None,
) -> None:
    """Packs with fewer features out of one learned edit: gate fitted again on them, their edits learned on."""
    from steer_asr.models import find_model
    from steer_asr_training.fewer import fewer_packs, parse_sizes
    from steer_asr_training.recipe import load_recipe
    from steer_asr_training.store import ActivationStore

    loaded = load_recipe(recipe, data=data)
    model, store = find_model(loaded.collect.model), ActivationStore(activations)
    for line in fewer_packs(loaded, store, sae, model, learned, out, parse_sizes(sizes), steps):
        typer.echo(line)


@app.command("export")
def export_command(
    recipe: RecipeFile,
    learned: Annotated[Path, typer.Argument(help="Folder written by learn.")],
    sae: Annotated[Path, typer.Argument(help="The sae folder written by fit.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the finished pack.")],
    data: DataFolder = Path("."),
    work: WorkFolder = Path("runs"),
    workers: Workers = 0,
) -> None:
    """A learned edit to a steer pack: measures its strength curve on held-out manifests and writes the card."""
    from steer_asr.models import find_model
    from steer_asr_training.export import export, load_learned
    from steer_asr_training.make import calibrate
    from steer_asr_training.recipe import load_recipe

    loaded = load_recipe(recipe, data=data)
    model = find_model(loaded.collect.model)
    pack = calibrate(loaded, load_learned(learned, sae), model, work / loaded.name, workers)
    typer.echo(export(pack, out))


@app.command("calibrate")
def calibrate_command(
    pack: Annotated[str, typer.Argument(help="A pack's name or folder.")],
    recipe: RecipeFile,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the pack with its new curve.")],
    data: DataFolder = Path("."),
    work: WorkFolder = Path("runs"),
    workers: Workers = 0,
) -> None:
    """Measure a finished pack on the recipe's dev_manifests, and write it with its card: strength curve, and what the
    gate's evidence at single frames is worth. What it does to a transcription stays as it is."""
    from steer_asr.models import find_model
    from steer_asr.pack import load_pack
    from steer_asr_training.export import export
    from steer_asr_training.make import strength_curve, with_moments
    from steer_asr_training.recipe import load_recipe

    loaded, made = load_recipe(recipe, data=data), load_pack(pack)
    model = find_model(loaded.collect.model)
    curve = strength_curve(loaded, made, model, work / loaded.name, workers)
    typer.echo(export(replace(with_moments(loaded, made), calibration=curve), out))


@app.command("control")
def control_command(
    method: Annotated[str, typer.Argument(help="audiosae, additive, svector or random; see docs/methods.md.")],
    activations: Annotated[Path, typer.Option(help="Folder written by collect.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the finished pack.")],
    model: Annotated[str, typer.Option(help="The model that the activations come from.")] = "base",
    sae: Annotated[Path | None, typer.Option(help="The sae folder written by fit; svector takes none.")] = None,
    alpha: Annotated[float | None, typer.Option(help="Strength, instead of the paper's.")] = None,
    match_norm: Annotated[
        str | None, typer.Option(help="Instead of alpha: change non-speech as far as this pack does.")
    ] = None,
    gate_from: Annotated[str | None, typer.Option(help="Use the gate of this pack; without one, always on.")] = None,
    k: Annotated[int | None, typer.Option("--k", help="Number of features, instead of the paper's.")] = None,
    labels: Annotated[str | None, typer.Option(help="speech, no_speech_prob or whisper_rule.")] = None,
    pool: Annotated[str | None, typer.Option(help="mean, nonzero_mean or max.")] = None,
    penalty: Annotated[str | None, typer.Option(help="l2 or l1, of the logistic regression.")] = None,
    hook_point: Annotated[str | None, typer.Option(help="Instead of encoder.output.")] = None,
    seed: Annotated[int, typer.Option(help="Of the random direction, and of the regression's solver.")] = 0,
) -> None:
    """A published or control method (AudioSAE, additive, S-vector, random) as a steer pack, to compare others with."""
    from steer_asr.models import find_model
    from steer_asr.pack import load_pack
    from steer_asr_training.control_pack import control_pack, export_control, load_dictionary
    from steer_asr_training.controls import control_config
    from steer_asr_training.store import ActivationStore

    if alpha is not None and match_norm is not None:
        raise SteerOptionError("--match-norm decides alpha; give one of the two")
    config = control_config(
        method, k=k, alpha=alpha, labels=labels, pool=pool, penalty=penalty, hook_point=hook_point, seed=seed
    )
    store, files = ActivationStore(activations), find_model(model)
    packs = {
        option: None if name is None else load_pack(name, model_sha256=files.sha256, model_name=files.name)
        for option, name in (("match_norm", match_norm), ("gate_from", gate_from))
    }
    dictionary = None if sae is None else load_dictionary(sae, store, config)
    pack = control_pack(config, store, files, name=out.resolve().name, dictionary=dictionary, **packs)
    typer.echo(export_control(pack, out))


register_analysis(app)
register_eeg(app)
register_lab(app)


def main() -> None:
    """Console script. A `SteerASRError` is one line on stderr and exit code 2."""
    try:
        app()
    except SteerASRError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except ModuleNotFoundError as error:
        name = (error.name or "").split(".")[0]
        if name not in (*TRAIN_EXTRA, *EEG_EXTRA):
            raise
        extra = "train,eeg" if name in EEG_EXTRA else "train"
        typer.echo(f"error: {name} is missing; install it with: pip install 'steer-asr[{extra}]'", err=True)
        sys.exit(2)
