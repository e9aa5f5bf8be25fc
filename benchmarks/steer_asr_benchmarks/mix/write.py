"""Test sets on disk: `audio/*.flac`, `<folder name>.jsonl`, and `mix.json` with what was asked for.

    write_mix(MixOptions((Path("test_speech.jsonl"), Path("test_nonspeech.jsonl")), Snr()), Path("snr"))

Every FLAC file carries its own manifest line in a tag, so file and line exist together or not at all, and a stopped run
goes on with the files that are missing. The manifest comes last: a folder that has one is complete.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np

from steer_asr._files import atomic_path, write_text
from steer_asr._progress import Progress
from steer_asr.audio import SAMPLE_RATE_HZ, decode_audio
from steer_asr.errors import OutputError, SteerOptionError
from steer_asr_benchmarks.clips import describe_source, load_clips
from steer_asr_benchmarks.mix.channels import encoder_of, int16_frame
from steer_asr_benchmarks.mix.plan import make_plan, split_of
from steer_asr_benchmarks.mix.recipes import CodecCopies, Recipe
from steer_asr_benchmarks.mix.render import render
from steer_asr_benchmarks.mix.rows import audio_name, make_row

SCHEMA_VERSION = 1
"""Goes up whenever the same settings would give other samples."""
SETTINGS_FILE = "mix.json"
ROW_TAG = "steer_asr_mix"
DECODED_KEPT = 8
"""Decoded recordings held at a time; neighbours in a plan share theirs."""


@dataclass(frozen=True)
class MixOptions:
    """One test set."""

    manifests: tuple[str | Path, ...]
    recipe: Recipe
    seed: int = 0
    limit: int | None = None
    """As in `make_plan`."""


def write_mix(options: MixOptions, out: Path) -> Path:
    """Makes what is missing of a test set; returns its manifest. All input is checked before the first file.

    Raises `ManifestError`, `AudioError`, `SteerOptionError` (also when `out` holds a test set with other settings, or
    FFmpeg lacks a codec), `OutputError`.
    """
    clips = load_clips(options.manifests)
    if isinstance(options.recipe, CodecCopies):
        for codec in options.recipe.codecs:
            encoder_of(codec)
    check_settings(out, describe(options))
    plan = make_plan(clips, options.recipe, seed=options.seed, limit=options.limit)
    start(out, describe(options))
    split = split_of(clips)
    decode = lru_cache(maxsize=DECODED_KEPT)(decode_audio)
    rows = []
    with Progress(total=len(plan), unit="file", label="mix") as progress:
        for item in plan:
            path = out / audio_name(item)
            row = read_row(path)
            if row is None:
                rendered = render(item, decode)
                row = make_row(item, rendered, options.recipe, split)
                write_flac(path, rendered.wave, row)
            rows.append(row)
            progress.advance(note=item.name)
    manifest = manifest_path(out)
    write_text(manifest, "".join(_line(row) + "\n" for row in rows))
    return manifest


def manifest_path(out: Path) -> Path:
    """`DIR/DIR.jsonl`: results name clips by manifest, so two test sets in one run need two names."""
    return out / f"{out.resolve().name}.jsonl"


def describe(options: MixOptions) -> dict[str, Any]:
    """Everything that decides the samples, as JSON."""
    return {
        "schema_version": SCHEMA_VERSION,
        "recipe": {"name": options.recipe.name, **json.loads(json.dumps(asdict(options.recipe)))},
        "seed": options.seed,
        "limit": options.limit,
        "manifests": [describe_source(path) for path in options.manifests],
        "versions": {name: version(name) for name in ("numpy", "av")},
    }


def check_settings(out: Path, description: Mapping[str, Any]) -> None:
    """Raises `SteerOptionError` when `out` holds a test set made with other settings, `OutputError` when one cannot
    tell."""
    path = out / SETTINGS_FILE
    if not path.exists():
        if (out / "audio").exists() or manifest_path(out).exists():
            raise OutputError(f"{out} holds files but no {SETTINGS_FILE} that says how they were made; give another")
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(f"{path}: cannot be read ({error}); give another folder") from error
    if not isinstance(found, dict):
        raise OutputError(f"{path}: does not describe a test set; give another folder")
    changed = [key for key in {**found, **description} if found.get(key) != description.get(key)]
    if changed:
        details = "; ".join(f"{key} was {found.get(key)!r}, is {description.get(key)!r}" for key in changed[:3])
        raise SteerOptionError(
            f"{out} holds a test set with other settings: {details}. Give the same settings, or another folder"
        )


def start(out: Path, description: Mapping[str, Any]) -> None:
    """Writes `mix.json` unless it is there."""
    if not (out / SETTINGS_FILE).exists():
        write_text(out / SETTINGS_FILE, json.dumps(description, indent=1, ensure_ascii=False) + "\n")


def write_flac(path: Path, wave: np.ndarray, row: Mapping[str, Any]) -> None:
    """float32 [n_samples] as 16-bit FLAC that carries its manifest line; whole or not at all."""
    file = io.BytesIO()
    with av.open(file, "w", format="flac") as output:
        output.metadata[ROW_TAG] = _line(row)
        stream = output.add_stream("flac", rate=SAMPLE_RATE_HZ)
        assert isinstance(stream, av.AudioStream)
        stream.layout = "mono"  # pyright: ignore[reportAttributeAccessIssue]
        output.mux(stream.encode(int16_frame(wave)))
        output.mux(stream.encode(None))
    with atomic_path(path) as temporary:
        temporary.write_bytes(file.getvalue())


def read_row(path: Path) -> dict[str, Any] | None:
    """The manifest line that a FLAC file of this test set carries; None when the file is not there or not one."""
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file, av.open(file, "r", format="flac") as container:
            row = json.loads(container.metadata[ROW_TAG])
    except (av.error.FFmpegError, OSError, KeyError, ValueError):
        return None
    return row if isinstance(row, dict) and row.get("audio_filepath") == f"audio/{path.name}" else None


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False)
