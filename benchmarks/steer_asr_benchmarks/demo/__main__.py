"""`python -m steer_asr_benchmarks.demo`: a few real clips, stock and steered, as a table, a picture and a page."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from steer_asr._files import atomic_path, write_text
from steer_asr.ct2 import load_model
from steer_asr.errors import SteerASRError, SteerOptionError
from steer_asr.manifest import read_manifest
from steer_asr.steering import parse_steer
from steer_asr_benchmarks.demo.compare import DECODING_IN_WORDS, Comparison, compare
from steer_asr_benchmarks.demo.table import render_table

CLIPS = Path(__file__).parents[2] / "demo" / "clips.jsonl"
COMPUTE_TYPE = "float32"
WIDTH_WITHOUT_TERMINAL = 132


def demo(
    model: Annotated[str, typer.Option(help="Whisper by name or CTranslate2 directory.")] = "tiny.en",
    steer: Annotated[str, typer.Option(help="Pack, strength from 0 to 1, or PACK@STRENGTH.")] = "default",
    clips: Annotated[Path, typer.Option(help="Manifest of the clips (JSONL).")] = CLIPS,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the picture and the page.")] = Path("out/demo"),
) -> None:
    """Transcribes a few clips stock and steered; prints a table, writes a picture and a page."""
    from steer_asr_benchmarks.demo.summary import summarize

    if (steering := parse_steer(steer)) is None:
        raise SteerOptionError(f"--steer {steer} steers nothing, so there is nothing to compare; try --steer default")
    whisper = load_model(model, compute_type=COMPUTE_TYPE)
    progress = tqdm(read_manifest(clips), unit="clip", disable=not sys.stderr.isatty(), leave=False)
    comparisons = [compare(whisper, clip, steering) for clip in progress]
    report = comparisons[0].report
    heading = f"Whisper {whisper.files.name}, stock and steered"
    setting = f"Steer pack {report.pack} at strength {report.strength:g}; {COMPUTE_TYPE}; {DECODING_IN_WORDS}."
    summary = summarize(comparisons)
    width = shutil.get_terminal_size((WIDTH_WITHOUT_TERMINAL, 0)).columns
    print(f"{heading}\n{setting}\n\n{render_table(comparisons, width=width)}\n")
    print("\n".join(summary), end="\n\n")
    for path in write_files(comparisons, out, heading=heading, setting=setting, summary=summary):
        print(path)


def write_files(
    comparisons: Sequence[Comparison], folder: Path, *, heading: str, setting: str, summary: Sequence[str]
) -> list[Path]:
    """Writes demo.png and index.html; raises `OutputError` when that is impossible."""
    from steer_asr_benchmarks.demo.page import render_page
    from steer_asr_benchmarks.demo.picture import DARK, LIGHT, draw

    shown = pick_for_picture(comparisons)
    pictures = {
        name: draw(shown, theme, heading=heading, kind="webp") for name, theme in {"light": LIGHT, "dark": DARK}.items()
    }
    html = render_page(comparisons, heading=heading, setting=setting, summary=summary, pictures=pictures)
    picture, page = folder / "demo.png", folder / "index.html"
    with atomic_path(picture) as temporary:
        temporary.write_bytes(draw(shown, LIGHT, heading=heading, kind="png"))
    write_text(page, html)
    return [picture, page]


def pick_for_picture(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The first recording with speech and pauses, and the first without speech; all clips when there is neither."""
    firsts = [next((c for c in comparisons if c.clip.kind == kind), None) for kind in ("mixed", "nonspeech")]
    return [c for c in firsts if c is not None] or list(comparisons)


def main() -> None:
    """A `SteerASRError` is one line on stderr and exit code 2."""
    try:
        typer.run(demo)
    except SteerASRError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except ModuleNotFoundError as error:
        if error.name not in ("jiwer", "matplotlib", "whisper_normalizer"):
            raise
        print(f"error: {error.name} is missing; install it with: pip install 'steer-asr[bench]'", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
