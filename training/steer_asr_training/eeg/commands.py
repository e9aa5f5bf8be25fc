"""`steer-asr-train eeg run`, `pairs` and `power`."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from steer_asr_training.eeg.nulls import NullConfig
    from steer_asr_training.eeg.pairs import Pair
    from steer_asr_training.eeg.trf import TrfConfig

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Whether features of a dictionary follow listeners' EEG."
)

Eeg = Annotated[
    Path, typer.Option("--eeg", help="A pairs file, a BIDS folder, or a folder of Subject<n>_Run<m>.mat files.")
]
Audio = Annotated[Path | None, typer.Option("--audio", help="With .mat files: folder of the stimuli, numbered by run.")]
Rate = Annotated[float | None, typer.Option("--rate", help="Sampling rate of recordings that do not say theirs, Hz.")]
OutFolder = Annotated[Path, typer.Option("--out", "-o", help="Folder for the report, JSON and Markdown.")]
Draws = Annotated[
    int | None, typer.Option(help="Most draws of the null per feature; without it, as many as Holm-Bonferroni needs.")
]
Alpha = Annotated[float, typer.Option(help="Family-wise error rate.")]
Lags = Annotated[str, typer.Option(help="First and last lag in ms.")]
Lambdas = Annotated[str | None, typer.Option(help="Ridge parameters to choose from, with commas, in mTRFpy's unit.")]
Seed = Annotated[int, typer.Option(help="Of the null, the choice of features and the random SAE.")]


def register(parent: typer.Typer) -> None:
    """Adds the group `eeg` to the command line."""
    parent.add_typer(app, name="eeg")


@app.command("run")
def run_command(
    sae: Annotated[list[str], typer.Argument(help="SAE folders written by fit, one per layer; or packs.")],
    eeg: Eeg,
    out: OutFolder,
    audio: Audio = None,
    model: Annotated[str, typer.Option(help="The model that the SAEs belong to.")] = "base",
    channels: Annotated[str, typer.Option(help="Channels to average over, with commas, or all.")] = "Pz",
    reference: Annotated[str, typer.Option(help="mastoids, average, none, or channels with commas.")] = "mastoids",
    features: Annotated[int, typer.Option(help="Features per layer, at random among those that fire.")] = 1000,
    split: Annotated[float | None, typer.Option(help="Cut trials into pieces of so many seconds.")] = None,
    lags: Lags = "0,500",
    lambdas: Lambdas = None,
    draws: Draws = None,
    alpha: Alpha = 0.05,
    rate: Rate = None,
    tolerance: Annotated[float, typer.Option(help="Seconds by which EEG and audio may differ in length.")] = 5.0,
    channel_map: Annotated[bool, typer.Option(help="Also score the best feature at every channel.")] = True,
    seed: Seed = 0,
) -> None:
    """Which features' envelopes predict the EEG of held-out trials, with baselines and family-wise error control."""
    from steer_asr_training.analysis.inputs import load_dictionary
    from steer_asr_training.analysis.tables import write_report
    from steer_asr_training.eeg.channel_map import channel_maps
    from steer_asr_training.eeg.picture import PICTURE, draw_study
    from steer_asr_training.eeg.study import StudyConfig, gather, study
    from steer_asr_training.eeg.tables import study_markdown
    from steer_asr_training.encoders import load_encoder

    config = StudyConfig(
        trf=_trf(lags, lambdas),
        null=_null(draws, alpha, seed),
        channels=tuple(name.strip() for name in channels.split(",")),
        reference=reference,
        n_features=features,
        split_s=split,
        tolerance_s=tolerance,
    )
    dictionaries = [load_dictionary(folder) for folder in sae]
    pairs = _pairs(eeg, audio, rate)
    material = gather(config, pairs)
    studied = study(config, material, dictionaries, load_encoder(model))
    if channel_map:
        maps = channel_maps(config, material, pairs, studied.best)
        for layer, found in zip(studied.report["layers"], maps, strict=True):
            layer["channel_map"] = found
    text = study_markdown(studied.report, draw_study(studied.report, out / PICTURE))
    write_report(out, "eeg", studied.report, text)
    typer.echo(text)


@app.command("pairs")
def pairs_command(
    eeg: Eeg,
    out: Annotated[Path, typer.Option("--out", "-o", help="JSON Lines file.")],
    audio: Audio = None,
    rate: Rate = None,
) -> None:
    """Which recording goes with which audio, as a file to look through and change before `run`."""
    from steer_asr_training.eeg.pairs import write_pairs

    found = _pairs(eeg, audio, rate)
    write_pairs(out, found)
    typer.echo(f"{out}: {len(found)} trials of {len({pair.subject for pair in found})} listeners")


@app.command("power")
def power_command(
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the report, JSON and Markdown.")] = None,
    listeners: Annotated[int, typer.Option(help="How many people.")] = 19,
    trials: Annotated[int, typer.Option(help="Trials of each.")] = 5,
    seconds: Annotated[float, typer.Option(help="Length of a trial.")] = 180.0,
    features: Annotated[int, typer.Option(help="Features that are tested together.")] = 100,
    planted: Annotated[int, typer.Option(help="Of these, how many drive the EEG.")] = 5,
    coupling: Annotated[float, typer.Option(help="Correlation of EEG and the response to one planted feature.")] = 0.05,
    latency: Annotated[float, typer.Option(help="Of the response, ms.")] = 150.0,
    shared: Annotated[float, typer.Option(help="Part of the variance that listeners have in common besides.")] = 0.0,
    repeats: Annotated[int, typer.Option(help="Studies to simulate.")] = 10,
    lags: Lags = "0,500",
    lambdas: Lambdas = None,
    draws: Draws = None,
    alpha: Alpha = 0.05,
    seed: Seed = 0,
) -> None:
    """What a study of some size would find: simulated EEG with known coupling, through the analysis of `run`."""
    from steer_asr_training.analysis.tables import write_report
    from steer_asr_training.eeg.simulate import SimulationConfig, power
    from steer_asr_training.eeg.tables import power_markdown

    config = SimulationConfig(
        n_listeners=listeners,
        n_trials=trials,
        trial_s=seconds,
        n_features=features,
        n_planted=planted,
        coupling=coupling,
        latency_s=latency / 1000,
        shared=shared,
    )
    report = power(config, _trf(lags, lambdas), _null(draws, alpha, seed), n_repeats=repeats, seed=seed)
    report["simulated"] = asdict(config)
    text = power_markdown(report)
    if out is not None:
        write_report(out, "power", report, text)
    typer.echo(text)


def _pairs(eeg: Path, audio: Path | None, rate: float | None) -> list[Pair]:
    from steer_asr_training.eeg.pairs import find_pairs

    return [replace(pair, rate_hz=pair.rate_hz or rate) for pair in find_pairs(eeg, audio)]


def _trf(lags: str, lambdas: str | None) -> TrfConfig:
    from steer_asr.errors import SteerOptionError
    from steer_asr_training.eeg.trf import LAMBDAS, TrfConfig

    first, *rest = _numbers("--lags", lags)
    if len(rest) != 1:
        raise SteerOptionError(f"--lags {lags!r}: give two numbers of ms, for example 0,500")
    return TrfConfig((first / 1000, rest[0] / 1000), LAMBDAS if lambdas is None else _numbers("--lambdas", lambdas))


def _numbers(option: str, text: str) -> tuple[float, ...]:
    from steer_asr.errors import SteerOptionError

    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise SteerOptionError(f"{option} {text!r}: give numbers with commas between them") from error


def _null(draws: int | None, alpha: float, seed: int) -> NullConfig:
    from steer_asr_training.eeg.nulls import NullConfig

    return NullConfig(n_draws=draws, alpha=alpha, seed=seed)
