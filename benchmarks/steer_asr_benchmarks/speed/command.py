"""`steer-asr-bench speed`."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from steer_asr._files import write_text
from steer_asr.audio import SAMPLE_RATE_HZ, decode_audio
from steer_asr.errors import SteerOptionError
from steer_asr.steering import parse_steer
from steer_asr_benchmarks.provenance import git_sha, versions

NOISE_S = 30.0


def speed_command(
    speech: Annotated[Path, typer.Option(help="A recording of speech, at most 30 s of it are used.")],
    model: Annotated[str, typer.Option(help="Name (base, tiny.en) or CTranslate2 directory.")] = "base",
    nonspeech: Annotated[
        Path | None, typer.Option(help="A recording in which nobody speaks; without one, 30 s of white noise.")
    ] = None,
    steer: Annotated[str, typer.Option(help="Steering: default, a strength, PACK, PACK@STRENGTH.")] = "default",
    compute_types: Annotated[str, typer.Option(help="Comma-separated CTranslate2 compute types.")] = "float32,int8",
    batch_sizes: Annotated[str, typer.Option(help="Comma-separated: windows that are encoded together.")] = "1,8",
    cpu_threads: Annotated[int, typer.Option(help="Threads; 0 is CTranslate2's choice.")] = 0,
    repeats: Annotated[int, typer.Option(help="How often each call is timed.")] = 5,
    compiled: Annotated[
        Path | None, typer.Option(help="Also time this directory, made of the model by steer-asr compile.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Also write the numbers to this JSON file.")] = None,
) -> None:
    """Measure what steering costs and what it saves. Prints the floor first, then ratios; the last line is JSON."""
    from steer_asr_benchmarks.speed.measure import SpeedOptions, measure_speed

    steering = parse_steer(steer)
    if steering is None:
        raise SteerOptionError(f"--steer {steer} steers nothing, so there is nothing to measure")
    if repeats < 1:
        raise SteerOptionError(f"repeats {repeats} is not at least 1")
    options = SpeedOptions(
        model,
        steering,
        tuple(name.strip() for name in compute_types.split(",")),
        batch_numbers(batch_sizes),
        cpu_threads,
        repeats,
        None if compiled is None else str(compiled),
    )
    spoken = decode_audio(speech)[: 30 * SAMPLE_RATE_HZ]
    found = measure_speed(options, spoken, quiet_audio(nonspeech), lambda what: print(what, file=sys.stderr))
    found = describe(options, speech, nonspeech) | found
    for line in lines(found):
        print(line)
    if out is not None:
        write_text(out, json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))


def batch_numbers(text: str) -> tuple[int, ...]:
    """`"1,8"`; raises `SteerOptionError` for anything that is not a list of positive numbers."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise SteerOptionError(f"batch sizes {text!r}: give positive numbers, for example 1,8")
    return tuple(map(int, parts))


def quiet_audio(path: Path | None) -> Any:
    """float32 [n_samples] at 16 kHz in which nobody speaks."""
    import numpy as np

    if path is not None:
        return decode_audio(path)
    return np.random.default_rng(0).normal(0, 0.05, int(NOISE_S * SAMPLE_RATE_HZ)).astype(np.float32)


def describe(options: Any, speech: Path, nonspeech: Path | None) -> dict[str, Any]:
    """What was measured, and on what."""
    return {
        "git_sha": git_sha(),
        "versions": versions(),
        "machine": {"processor": platform.processor() or platform.machine(), "cpus": os.cpu_count()},
        "model": options.model,
        "cpu_threads": options.cpu_threads,
        "repeats": options.repeats,
        "speech": speech.name,
        "nonspeech": nonspeech.name if nonspeech else "white noise",
    }


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The numbers as text."""
    for name, edit in found["edit"].items():
        yield (
            f"floor of an edit, {name}: {1e3 * edit['floor_s']:.2f} ms ({edit['floor_gflops']:.2f} GFLOP, "
            f"{edit['floor_bound']}-bound); it takes {edit['edit_over_floor']:.1f} times that"
        )
    for name, edit in found["edit"].items():
        yield (
            f"speech, {name}: edit adds {edit['added']:.2%} to encode {edit['encode_s']:.3f} s + decode "
            f"{edit['decode_s']:.3f} s"
        )
    for name, cost in found["compiled"].items():
        yield (
            f"compiled, {name}: encode {cost['encode_ratio']:.3f} and decode {cost['decode_ratio']:.3f} of the "
            f"uncompiled times, together {cost['added']:+.2%}, {cost['tokens']} tokens of speech, beam 5"
            + ("" if cost["same_tokens"] else " (not the same ones)")
        )
    for name, silence in found["silence"].items():
        vad = "passes" if silence["passes_vad"] else "is cut by"
        yield (
            f"non-speech, {name}: stock takes {silence['stock_over_steered']:.2f} times as long as steered, stock + "
            f"Silero {silence['stock_vad_over_steered']:.2f} times (the recording {vad} Silero); early exit takes "
            f"{silence['early_exit_over_encoder']:.2f} times the encoder alone"
        )
    for name, batched in found["batched"].items():
        ratio, audio_s = batched["steered_over_stock"], batched["audio_s"]
        yield f"batched, {name}, {audio_s:.0f} s of speech: steered takes {ratio:.3f} of stock's time"
    for name, memory in found["memory"].items():
        added, stock = (memory[key] / 2**20 for key in ("added_bytes", "stock_bytes"))
        yield f"memory, {name}: steered {added:+.1f} MiB on {stock:.0f} MiB"
    imports = found["imports"]
    yield (
        f"import: steer_asr {imports['steer_asr_over_faster_whisper']:.2f}, with its executor "
        f"{imports['ct2_over_faster_whisper']:.2f}, of faster_whisper {imports['faster_whisper_s']:.2f} s"
    )
