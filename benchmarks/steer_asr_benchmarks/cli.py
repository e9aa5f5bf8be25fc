"""`steer-asr-bench`: text when nobody speaks against word error rate, measured on your own audio."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer

from steer_asr._optional_values import OptionalValues
from steer_asr.errors import SteerASRError, SteerOptionError
from steer_asr_benchmarks.compare.command import compare_command
from steer_asr_benchmarks.compare.matrix_command import matrix_command
from steer_asr_benchmarks.conditions import Condition, check_names, failures
from steer_asr_benchmarks.datasets.command import datasets_command
from steer_asr_benchmarks.mix.command import mix_command
from steer_asr_benchmarks.plots.command import plot_command
from steer_asr_benchmarks.speed.command import speed_command

BENCH_EXTRA = frozenset({"jiwer", "matplotlib", "praatio", "threadpoolctl", "whisper_normalizer"})
"""Packages that come with `steer-asr[bench]`."""
FailIf = Annotated[
    list[str] | None,
    typer.Option(
        "--fail-if",
        metavar="CONDITION",
        help="End with exit code 1 when this holds in the report, for example "
        "'steered.nonspeech.hallucination_rate.r > 0.02'; repeatable.",
    ),
]

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, help=__doc__
)


class RunCommand(OptionalValues):
    """`run`, with its options that may stand without a value."""

    bare: ClassVar = {"--ray": "local", "--measure-cost": "8"}


@app.command("run", cls=RunCommand)
def run_command(
    manifest: Annotated[
        list[Path],
        typer.Option(
            metavar="PATH[::SPLIT]", help="NeMo-style JSONL of clips, or a dataset's folder (see datasets); repeatable."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results; a second run resumes from it.")],
    model: Annotated[str, typer.Option(help="Name (base, tiny.en) or CTranslate2 directory.")] = "base",
    systems: Annotated[
        str,
        typer.Option(
            help="Comma-separated: stock, steered, steered:PACK@0.5, gate, rule, webrtcvad:3, boh, ...+vad, http://... "
            "(see the command systems). The first is what the others are compared with."
        ),
    ] = "stock,steered",
    steer: Annotated[
        str, typer.Option(help="What 'steered' means: default, a strength, PACK, PACK@STRENGTH.")
    ] = "default",
    vad: Annotated[bool, typer.Option("--vad", help="Also run every system with +vad.")] = False,
    timestamps: Annotated[
        bool | None,
        typer.Option("--timestamps/--no-timestamps", help="Decode with or without timestamps.", show_default="both"),
    ] = None,
    language: Annotated[
        str, typer.Option(help="Code forced on every clip, 'manifest' (each clip's own) or 'auto' (detected).")
    ] = "en",
    beam_size: Annotated[int, typer.Option(help="1 is greedy.")] = 1,
    compute_type: Annotated[str, typer.Option(help="CTranslate2 compute type.")] = "float32",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    cpu_threads: Annotated[int, typer.Option(help="Threads per model; 0 is CTranslate2's choice.")] = 0,
    jobs: Annotated[
        int | None, typer.Option(metavar="N", help="Processes that transcribe, each with its own models.")
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(metavar="[ADDRESS]", help="Transcribe on a Ray cluster, HOST:PORT or auto; alone it starts one."),
    ] = None,
    measure_cost: Annotated[
        int | None,
        typer.Option(metavar="[CLIPS]", help="Then measure each system alone, memory too, on 8 clips or so many."),
    ] = None,
    share_encoder: Annotated[
        bool, typer.Option("--share-encoder", help="Encode each window once for all systems: faster, no latencies.")
    ] = False,
    limit: Annotated[int | None, typer.Option(help="At most so many clips of each manifest, spread evenly.")] = None,
    shard: Annotated[str, typer.Option(help="Run part I of N, for example 1/4, into the same folder.")] = "1/1",
    fail_if: FailIf = None,
    export: Annotated[
        str | None, typer.Option(help="Also write the speech in this format, open-asr, to a folder of that name.")
    ] = None,
) -> None:
    """Transcribe clips with every system, in every mode, and report. Interrupted (exit code 130), it resumes."""
    import steer_asr_benchmarks.report  # noqa: F401  (a missing extra must show now, not after hours of transcribing)
    from steer_asr_benchmarks.clips import Shard
    from steer_asr_benchmarks.cost import check_clips, measure
    from steer_asr_benchmarks.export import check_format
    from steer_asr_benchmarks.runner import RunOptions, run
    from steer_asr_benchmarks.systems import ModelOptions
    from steer_asr_benchmarks.systems.base import MODES

    names = [name.strip() for name in systems.split(",") if name.strip()]
    if vad:
        names += [more for name in names if (more := with_vad(name)) and more not in names]
    options = RunOptions(
        manifests=tuple(manifest),
        systems=tuple(names),
        model=ModelOptions(model, device, compute_type, cpu_threads, share_encoder),
        steer=steer,
        modes=MODES if timestamps is None else ("timestamps",) if timestamps else ("no_timestamps",),
        language=language,
        beam_size=beam_size,
        limit=limit,
        shard=Shard.parse(shard),
        jobs=jobs,
        ray=ray,
    )
    conditions = [Condition.parse(text) for text in fail_if or ()]
    check_names(conditions, systems_of_report(out, names), options.modes)
    if export is not None:
        check_format(export)
    if measure_cost is not None:
        check_clips(measure_cost)
    try:
        run(options, out)
        if measure_cost is not None:
            measure(options, out, measure_cost)
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command resumes", err=True)
        raise typer.Exit(130) from None
    try:
        report_command(out, conditions)
    finally:  # also when a condition holds
        if export is not None:
            export_command(out, format=export)


@app.command("score")
def score_command(
    folder: Annotated[Path, typer.Argument(help="Folder written by run.")], fail_if: FailIf = None
) -> None:
    """Compute all metrics again from predictions.jsonl, and write report.json, report.md and pictures."""
    report_command(folder, [Condition.parse(text) for text in fail_if or ()])


@app.command("systems")
def systems_command() -> None:
    """List the systems that run can compare, and how they are called."""
    from steer_asr_benchmarks.systems.names import listing

    rows = list(listing())
    width = max(len(name) for name, _ in rows)
    for name, says in rows:
        typer.echo(f"{name:<{width}}  {says}")


app.command("mix")(mix_command)
app.command("compare")(compare_command)
app.command("matrix")(matrix_command)
app.command("plot")(plot_command)
app.command("datasets")(datasets_command)
app.command("speed")(speed_command)


@app.command("export")
def export_command(
    folder: Annotated[Path | None, typer.Argument(help="Folder written by run: a file per system and source.")] = None,
    manifest: Annotated[
        list[Path] | None,
        typer.Option(metavar="PATH[::SPLIT]", help="Instead of results: clips of manifests and datasets, in one file."),
    ] = None,
    format: Annotated[str, typer.Option(help="open-asr: JSONL as the Open ASR Leaderboard scores it.")] = "open-asr",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder (FOLDER/open-asr), or file of clips.")] = None,
) -> None:
    """Write results, or clips without results, in another format. Only speech with an exact transcript."""
    from steer_asr_benchmarks.export import check_format, export_clips, export_open_asr

    check_format(format)
    if (folder is None) == (not manifest) or (manifest and out is None):
        raise SteerOptionError("export takes a folder of results, or --manifest with -o FILE")
    if folder is not None:
        for path in export_open_asr(folder, out or folder / format):
            typer.echo(str(path))
    if manifest and out is not None:
        typer.echo(f"{out}: {export_clips(manifest, out)} clips")


def report_command(folder: Path, conditions: Sequence[Condition] = ()) -> None:
    """Writes the report and its pictures and prints the table. Exit code 1 when one of the conditions holds."""
    from steer_asr_benchmarks.report import build_report, write_report
    from steer_asr_benchmarks.table import summary

    report = build_report(folder)
    write_report(report, folder, draw(report, folder))
    typer.echo(summary(report))
    failed = failures(conditions, report)
    for line in failed:
        typer.echo(f"failed: {line}", err=True)
    if failed:
        raise typer.Exit(1)


def draw(report: Mapping[str, Any], folder: Path) -> list[str]:
    """Draws the pictures of the report, where matplotlib is there for it; returns the names of those drawn."""
    try:
        from steer_asr_benchmarks.plots.pictures import PICTURES, draw_pictures
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        typer.echo("no pictures: they need matplotlib, pip install 'steer-asr[bench]'", err=True)
        return []
    return sorted({path.stem for path in draw_pictures(report, folder).written}, key=list(PICTURES).index)


def systems_of_report(out: Path, names: Sequence[str]) -> list[str]:
    """The systems that the report on `out` will have: those that the folder's run has already, then `names`."""
    from steer_asr_benchmarks.runner import RUN_FILE, read_run
    from steer_asr_benchmarks.systems import SystemName

    earlier = read_run(out)["systems"] if (out / RUN_FILE).exists() else ()
    return list(dict.fromkeys((*earlier, *(SystemName.parse(name).text for name in names))))


def with_vad(name: str) -> str | None:
    """The same system behind Silero; None for servers and for those that are behind a detector already."""
    from steer_asr_benchmarks.systems.names import SERVER, SystemName

    parsed = SystemName.parse(name)
    if parsed.kind in (SERVER, "webrtcvad") or "vad" in parsed.modifiers:
        return None
    alias, equals, system = name.partition("=")
    return f"{alias}+vad={system}+vad" if equals and parsed.text == alias else f"{name}+vad"


def main() -> None:
    """Console script. A `SteerASRError` is one line on stderr and exit code 2."""
    try:
        app()
    except SteerASRError as error:
        fail(str(error))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in BENCH_EXTRA:
            raise
        fail(f"steer-asr-bench needs {error.name}: pip install 'steer-asr[bench]'")


def fail(message: str) -> None:
    """Ends the command because of bad input."""
    typer.echo(f"error: {message}", err=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
