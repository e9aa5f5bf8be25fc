"""`steer-asr-train speed`: training speed of dictionaries against other libraries."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

OutFolder = Annotated[Path, typer.Option("--out", "-o", help="Folder for speed.json and speed.md.")]
Environments = Annotated[
    Path, typer.Option(help="Where the peers' virtual environments are, or are made; each needs about 1 GB.")
]


def register(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command("speed")(speed_command)


def speed_command(
    out: OutFolder,
    peers: Annotated[
        str, typer.Option(help="Comma-separated: dictionary_learning, saelens, sparsify; or none.")
    ] = "dictionary_learning,saelens,sparsify",
    kinds: Annotated[str, typer.Option(help="Comma-separated: batch_topk, topk.")] = "batch_topk,topk",
    environments: Environments = Path("runs/speed-environments"),
    activations: Annotated[
        Path | None, typer.Option(help="Folder written by collect, instead of made-up frames.")
    ] = None,
    hook_point: Annotated[str, typer.Option(help="Of these activations.")] = "encoder.output",
    d_in: Annotated[int, typer.Option(help="Width of made-up frames.")] = 512,
    d_sae: Annotated[int, typer.Option(help="Number of features.")] = 4096,
    k: Annotated[int, typer.Option("--k", help="Active features per frame.")] = 32,
    batch: Annotated[int, typer.Option(help="Frames per step.")] = 2048,
    steps: Annotated[int, typer.Option(help="Steps of a timed run, those before the clock counts included.")] = 20,
    warmup: Annotated[int, typer.Option(help="Steps before the clock counts.")] = 4,
    rounds: Annotated[int, typer.Option(help="Timed runs of each contender; all take turns.")] = 3,
    loss_steps: Annotated[
        int, typer.Option(help="Steps of one more run of each, after which losses are compared.")
    ] = 120,
    lr: Annotated[float, typer.Option(help="Learning rate of all, falling to zero.")] = 2e-3,
    seed: Annotated[int, typer.Option(help="Of the frames and the dictionaries.")] = 0,
    threads: Annotated[int, typer.Option(help="0: one per core.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    scaling: Annotated[
        str, typer.Option(help="Comma-separated sizes at which dense and sparse decoding are compared; or none.")
    ] = "2048,4096,8192,16384,32768,65536",
) -> None:
    """Frames per second against dictionary_learning, SAELens and sparsify, with loss and memory; last line: JSON."""
    from steer_asr._files import write_text
    from steer_asr.errors import SteerOptionError
    from steer_asr_training.speed.run import SpeedConfig, measure
    from steer_asr_training.speed.summary import markdown

    try:
        sizes = tuple(int(size) for size in _names(scaling))
    except ValueError as error:
        raise SteerOptionError(f"speed: --scaling takes whole numbers; {error}") from None
    config = SpeedConfig(
        kinds=_names(kinds),
        peers=_names(peers),
        d_in=d_in,
        d_sae=d_sae,
        k=k,
        batch=batch,
        steps=steps,
        warmup=warmup,
        rounds=rounds,
        loss_steps=loss_steps,
        lr=lr,
        seed=seed,
        threads=threads,
        device=device,
        scaling=sizes,
        activations="" if activations is None else str(activations),
        hook_point=hook_point,
    )
    result = measure(config, environments.resolve())
    text = json.dumps(result, indent=1)
    command = " ".join(["steer-asr-train", *sys.argv[1:]])
    write_text(out / "speed.json", text + "\n")
    write_text(out / "speed.md", markdown(result, command))
    typer.echo(out / "speed.md")
    typer.echo(json.dumps({"summary": result["summary"]}))


def _names(text: str) -> tuple[str, ...]:
    return () if text.strip() in ("", "none") else tuple(name.strip() for name in text.split(",") if name.strip())
