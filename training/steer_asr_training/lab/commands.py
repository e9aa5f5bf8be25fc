"""`steer-asr-train lab`, `report`, `browse` and `describe`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Adds these commands to the command line."""
    app.command("lab")(lab_command)
    app.command("report")(report_command)
    app.command("browse")(browse_command)
    app.command("describe")(describe_command)


def lab_command(
    recipe: Annotated[Path, typer.Argument(help="YAML recipe, for example training/recipes/lab-base.yaml.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run; a second run resumes it.")],
    data: Annotated[Path, typer.Option("--data", help="Replaces {data} in the recipe's manifest paths.")] = Path("."),
    workers: Annotated[int, typer.Option("--workers", help="Processes for encoding; 0 is one per core.")] = 0,
) -> None:
    """Every layer, seed and analysis of a recipe in one resumable run; says beforehand how long it will take."""
    from steer_asr_training.lab.recipe import load_lab_recipe
    from steer_asr_training.lab.run import run_lab

    typer.echo(run_lab(load_lab_recipe(recipe, data=data), out, workers=workers))


def report_command(
    run: Annotated[Path, typer.Argument(help="Folder with the JSON files of lab, evaluate, stability, features, ...")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for report.html, report.md and pictures.")],
    results: Annotated[
        bool, typer.Option("--results", help="Copy the results, too, small and without paths of this machine.")
    ] = False,
) -> None:
    """All results of a run on one self-contained HTML page, and in Markdown; per layer, with pictures."""
    from steer_asr_training.lab.report import write_report

    typer.echo(write_report(run, out, results_too=results))


def browse_command(
    report: Annotated[Path, typer.Argument(help="features.json, written by features or lab.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the pages; open its index.html.")],
    sae: Annotated[str | None, typer.Option(help="Instead of the dictionary that the report names.")] = None,
    activations: Annotated[Path | None, typer.Option(help="Instead of the activations that it names.")] = None,
    max_features: Annotated[int, typer.Option(help="Pages for so many features, most telling first; 0 is all.")] = 0,
    top: Annotated[int, typer.Option(help="Excerpts per feature.")] = 3,
    per_page: Annotated[int, typer.Option(help="Features per page.")] = 25,
    seconds: Annotated[float, typer.Option(help="Length of an excerpt.")] = 3.0,
    audio: Annotated[bool, typer.Option(help="Write sound of recordings that may be passed on.")] = True,
    all_audio: Annotated[
        bool, typer.Option("--all-audio", help="Write sound of all recordings: for yourself, not to publish.")
    ] = False,
) -> None:
    """Static pages to look at features and hear them: statistics, descriptions, top windows; no server needed."""
    from steer_asr.errors import SteerOptionError
    from steer_asr_training.lab.browser import BrowseOptions, browse
    from steer_asr_training.lab.excerpts import CutOptions

    if all_audio and not audio:
        raise SteerOptionError("--all-audio and --no-audio ask for opposite things; give one of the two")
    cut = CutOptions(seconds, audio, all_audio)
    options = BrowseOptions(cut, max_features, top, per_page)
    typer.echo(browse(report, out, options, sae=sae, activations=activations))


def describe_command(
    report: Annotated[Path, typer.Argument(help="features.json, written by features or lab.")],
    describer: Annotated[
        str, typer.Argument(metavar="MODULE:FUNCTION", help="Your function; it gets a HeardFeature and returns a text.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the new features.json and features.md.")],
    sae: Annotated[str | None, typer.Option(help="Instead of the dictionary that the report names.")] = None,
    activations: Annotated[Path | None, typer.Option(help="Instead of the activations that it names.")] = None,
    max_features: Annotated[int, typer.Option(help="Describe so many, most telling first; 0 is all that fire.")] = 100,
    top: Annotated[int, typer.Option(help="Clips per feature.")] = 3,
    seconds: Annotated[float, typer.Option(help="Length of a clip.")] = 3.0,
) -> None:
    """Descriptions by a function of yours that hears the top clips: an audio captioner and a language model, say."""
    from steer_asr_training.lab.narrate import load_describer, narrate

    found = load_describer(describer)
    how = {"max_features": max_features, "top": top, "seconds": seconds}
    typer.echo(narrate(report, found, out, sae=sae, activations=activations, **how))
