"""`steer-asr-train fit`, `fit-stream` and `import`: ways to a dictionary; and `speed`, how fast the first one is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steer_asr._optional_values import RayOption
from steer_asr.errors import SteerOptionError
from steer_asr_training.import_command import import_command
from steer_asr_training.speed.command import speed_command

if TYPE_CHECKING:
    from steer_asr_training.fit_config import FitConfig
    from steer_asr_training.ray_fit import RayTrainer

OutFolder = Annotated[Path, typer.Option("--out", "-o", help="Folder for checkpoint and SAE.")]
HookPoints = Annotated[
    list[str] | None,
    typer.Option("--hook-point", "--hook-points", help="Instead of the recipe's; repeatable. all: every one there is."),
]
Preset = Annotated[str | None, typer.Option(help="Settings instead of the recipe's fit section: paper or laptop.")]
Kind = Annotated[str | None, typer.Option(help="batch_topk, topk, matryoshka or jumprelu.")]
Seed = Annotated[int | None, typer.Option(help="Of the dictionary and of the order of frames.")]
Steps = Annotated[int | None, typer.Option(help="Instead of the recipe's or the preset's.")]
Tensorboard = Annotated[bool, typer.Option("--tensorboard", help="Write curves below OUT/events.")]


Ray = Annotated[
    str | None,
    typer.Option(
        "--ray", metavar="[HOST:PORT]", help="On a Ray cluster: of its own without a value; auto finds one; HOST:PORT."
    ),
]


def register(app: typer.Typer) -> None:
    """Adds these commands to the command line."""
    app.command("fit", cls=RayOption)(fit_command)
    app.command("fit-stream")(fit_stream_command)
    app.command("import")(import_command)
    app.command("speed")(speed_command)


def fit_command(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="[RECIPE] ACTIVATIONS",
            help="YAML recipe, not needed with --preset; and the folder written by collect.",
        ),
    ],
    out: OutFolder,
    hook_point: HookPoints = None,
    preset: Preset = None,
    kind: Kind = None,
    seed: Seed = None,
    steps: Steps = None,
    tensorboard: Tensorboard = False,
    ray: Ray = None,
    workers: Annotated[
        int, typer.Option(min=0, help="With --ray: how many; 0 is one for each GPU, or for each node without any.")
    ] = 0,
) -> None:
    """Activations to sparse autoencoders, one per hook point, exported as JumpReLU in SAELens's format."""
    from steer_asr_training.batches import stored_points
    from steer_asr_training.fit import fit, fit_layers
    from steer_asr_training.store import ActivationStore

    if len(paths) > 2:
        raise SteerOptionError(f"fit takes a recipe and a folder of activations; got {len(paths)} paths")
    config = _config(paths[0] if len(paths) == 2 else None, preset, kind=kind, seed=seed, steps=steps)
    trainer = _trainer(ray, workers)
    store = ActivationStore(paths[-1])
    points = stored_points(store) if hook_point == ["all"] else hook_point or [config.hook_point]
    if len(points) == 1 and hook_point != ["all"]:
        typer.echo(fit(replace(config, hook_point=points[0]), store, out, tensorboard=tensorboard, on=trainer))
        return
    for folder in fit_layers(config, store, out, points, tensorboard=tensorboard, on=trainer).values():
        typer.echo(folder)


def fit_stream_command(
    recipe: Annotated[Path, typer.Argument(help="YAML recipe, for example training/recipes/base.yaml.")],
    out: OutFolder,
    data: Annotated[Path, typer.Option("--data", help="Replaces {data} in the recipe's manifest paths.")] = Path("."),
    model: Annotated[str | None, typer.Option(help="Instead of the recipe's: a Whisper or a HuBERT directory.")] = None,
    hook_point: HookPoints = None,
    preset: Preset = None,
    kind: Kind = None,
    seed: Seed = None,
    steps: Steps = None,
    noise: Annotated[float, typer.Option(help="Chance that noise is laid over a clip; the paper: 0.05.")] = 0.0,
    music: Annotated[float, typer.Option(help="The same for music; the paper: 0.025.")] = 0.0,
    windows_in_buffer: Annotated[int, typer.Option(help="So many windows are encoded, then shuffled together.")] = 64,
    tensorboard: Tensorboard = False,
) -> None:
    """Audio manifests straight to sparse autoencoders: activations are made while they are needed, none are kept."""
    from steer_asr_training.encoders import load_encoder
    from steer_asr_training.fit import fit_stream
    from steer_asr_training.recipe import load_recipe
    from steer_asr_training.stream import Augment, StreamBatches

    config = replace(_config(recipe, preset, kind=kind, seed=seed, steps=steps), windows_in_buffer=windows_in_buffer)
    collect = load_recipe(recipe, data=data).collect
    collect = replace(collect, model=model or collect.model)
    points = hook_point or [config.hook_point]
    if points == ["all"]:
        points = load_encoder(collect.model, precision=collect.precision).hook_points()
    batches = StreamBatches(
        replace(collect, hook_points=tuple(points)),
        batch=config.batch_frames,
        seed=config.seed,
        weights=config.weights,
        augment=Augment(noise, music),
        windows_in_buffer=windows_in_buffer,
    )
    for folder in fit_stream(replace(config, hook_point=points[0]), batches, out, tensorboard=tensorboard).values():
        typer.echo(folder)


def _trainer(ray: str | None, workers: int) -> RayTrainer | None:
    if ray is None:
        if workers:
            raise SteerOptionError("--workers is for --ray; without it, a fit is one process")
        return None
    from steer_asr_training.ray_fit import RayTrainer

    return RayTrainer(ray, workers)


def _config(recipe: Path | None, preset_name: str | None, **changes: Any) -> FitConfig:
    """The preset's or the recipe's settings, with the options that were given."""
    from steer_asr_training.fit_config import preset

    if preset_name is not None:
        config = preset(preset_name)
    elif recipe is not None:
        from steer_asr_training.recipe import load_recipe

        config = load_recipe(recipe).fit
    else:
        raise SteerOptionError("fit: give a recipe before the folder of activations, or --preset paper or laptop")
    return replace(config, **{name: value for name, value in changes.items() if value is not None})
