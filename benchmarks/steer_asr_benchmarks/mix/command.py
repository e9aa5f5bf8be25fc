"""`steer-asr-bench mix`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def mix_command(
    recipe: Annotated[
        str,
        typer.Option(
            help="snr: speech over noise; long: speech inside minutes of non-speech; over_music; lengths: silence and "
            "noise of every length; telephone and codec: copies of all clips."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the test set; a second run resumes.")],
    manifest: Annotated[
        list[Path] | None, typer.Option(help="NeMo-style JSONL of speech, of non-speech or of both; repeatable.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same samples.")] = 0,
    limit: Annotated[
        int | None,
        typer.Option(
            help="At most so many speech clips (long: recordings, else 20; lengths: lengths; copies: of each kind)."
        ),
    ] = None,
    snr: Annotated[
        str | None, typer.Option(help="Signal-to-noise ratios in dB, for example 20,10,5,0,-5 (snr, over_music, long).")
    ] = None,
    min_s: Annotated[float | None, typer.Option(help="Shortest, in seconds (long: 120, lengths: 0.3).")] = None,
    max_s: Annotated[float | None, typer.Option(help="Longest, in seconds (long: 600, lengths: 30).")] = None,
    utterances: Annotated[int | None, typer.Option(help="At most so many in a long recording (long: 4).")] = None,
    steps: Annotated[int | None, typer.Option(help="How many lengths (lengths: 13).")] = None,
    codec: Annotated[
        str | None, typer.Option(help="Codecs at kbit/s: opus:12,mp3:32,gsm,amr:4.75 (codec: opus:12,mp3:32).")
    ] = None,
) -> None:
    """Make a new test set out of clips: FLAC files and a manifest. Interrupted (exit code 130), it resumes."""
    from steer_asr_benchmarks.mix.recipes import Codec, make_recipe, numbers
    from steer_asr_benchmarks.mix.write import MixOptions, write_mix

    made = make_recipe(
        recipe,
        snr_db=None if snr is None else numbers(snr, "SNR"),
        min_s=min_s,
        max_s=max_s,
        utterances=utterances,
        steps=steps,
        codecs=None if codec is None else tuple(Codec.parse(part.strip()) for part in codec.split(",")),
    )
    try:
        written = write_mix(MixOptions(tuple(manifest or ()), made, seed, limit), out)
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command resumes", err=True)
        raise typer.Exit(130) from None
    typer.echo(str(written))
