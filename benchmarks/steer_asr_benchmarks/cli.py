"""`steer-asr-bench`: text when nobody speaks against word error rate, measured on your own audio."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from steer_asr.errors import SteerASRError
from steer_asr_benchmarks.mix.command import mix_command

BENCH_EXTRA = frozenset({"jiwer", "whisper_normalizer"})
"""Packages that come with `steer-asr[bench]`."""

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, help=__doc__
)


@app.command("run")
def run_command(
    manifest: Annotated[list[Path], typer.Option(help="NeMo-style JSONL of clips; repeatable.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results; a second run resumes from it.")],
    model: Annotated[str, typer.Option(help="Name (base, tiny.en) or CTranslate2 directory.")] = "base",
    systems: Annotated[
        str,
        typer.Option(
            help="Comma-separated: stock, steered, steered:0.5, steered:PACK@0.5; +vad behind any of them filters with "
            "Silero first, +empty allows an empty answer. The first is what the others are compared with."
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
    share_encoder: Annotated[
        bool, typer.Option("--share-encoder", help="Encode each window once for all systems: faster, no latencies.")
    ] = False,
    limit: Annotated[int | None, typer.Option(help="At most so many clips of each manifest, spread evenly.")] = None,
    shard: Annotated[str, typer.Option(help="Run part I of N, for example 1/4, into the same folder.")] = "1/1",
) -> None:
    """Transcribe clips with every system, in every mode, and report. Interrupted (exit code 130), it resumes."""
    import steer_asr_benchmarks.report  # noqa: F401  (a missing extra must show now, not after hours of transcribing)
    from steer_asr_benchmarks.clips import Shard
    from steer_asr_benchmarks.runner import RunOptions, run
    from steer_asr_benchmarks.systems import ModelOptions
    from steer_asr_benchmarks.systems.base import MODES

    names = [name.strip() for name in systems.split(",") if name.strip()]
    if vad:
        names += [f"{name}+vad" for name in names if f"{name}+vad" not in names and "+vad" not in name]
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
    )
    try:
        run(options, out)
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command resumes", err=True)
        raise typer.Exit(130) from None
    report_command(out)


@app.command("score")
def score_command(folder: Annotated[Path, typer.Argument(help="Folder written by run.")]) -> None:
    """Compute all metrics again from predictions.jsonl, and write report.json and report.md."""
    report_command(folder)


app.command("mix")(mix_command)


def report_command(folder: Path) -> None:
    """Writes the report and prints it."""
    from steer_asr_benchmarks.report import build_report, write_report
    from steer_asr_benchmarks.table import markdown

    report = build_report(folder)
    write_report(report, folder)
    typer.echo(markdown(report))


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
