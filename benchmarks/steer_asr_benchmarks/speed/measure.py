"""The measurements of `steer-asr-bench speed`. Each compares calls that take turns, so that whatever else the machine
does meanwhile slows all of them down alike; a ratio is that of the medians.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ctranslate2
import numpy as np
from faster_whisper import BatchedInferencePipeline
from faster_whisper.audio import pad_or_trim

from steer_asr.audio import SAMPLE_RATE_HZ
from steer_asr.compile import read_provenance
from steer_asr.ct2 import SteeredBatchedInferencePipeline, SteeredWhisperModel, load_model
from steer_asr.errors import SteerOptionError
from steer_asr.pack import SteerPack, load_pack
from steer_asr.steering import Steering, steer_frames
from steer_asr_benchmarks.speed.floor import edit_floor, fastest

LONG_S = 120.0
"""Speech for the batched pipeline: four windows."""


@dataclass(frozen=True)
class SpeedOptions:
    """What to measure on."""

    model: str = "base"
    steer: Steering = Steering()
    compute_types: tuple[str, ...] = ("float32", "int8")
    batch_sizes: tuple[int, ...] = (1, 8)
    cpu_threads: int = 0
    repeats: int = 5
    compiled: str | None = None
    """A directory that `steer-asr compile` made of `model`, to be timed beside it."""


def in_turns(calls: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each call. They take turns, after a round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for round_ in range(repeats + 1):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if round_:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(found) for name, found in seconds.items()}


def edit_cost(
    model: SteeredWhisperModel, pack: SteerPack, speech: np.ndarray, batch: int, repeats: int
) -> dict[str, Any]:
    """What the edit adds to encoding and decoding one batch of windows of speech.

    The edit is timed by itself, since it is smaller than the noise of what it is compared with.
    """
    mel = pad_or_trim(model.feature_extractor(speech)[:, :-1]).astype(np.float32)
    features = ctranslate2.StorageView.from_array(np.stack([mel] * batch))
    output = np.array(model.model.encode(features), np.float32)
    prompts = [[model.hf_tokenizer.token_to_id("<|startoftranscript|>")]] * batch
    decoding = {"beam_size": 1, "sampling_temperature": 0.0}

    def edit() -> None:
        for window in output.copy():
            steer_frames(window, pack, 1.0)

    median = in_turns(
        {
            "encode_s": lambda: model.model.encode(features),
            "decode_s": lambda: model.model.generate(ctranslate2.StorageView.from_array(output), prompts, **decoding),
        },
        repeats,
    )
    floor = edit_floor(pack.features, batch)
    edit_s = fastest(edit) - fastest(output.copy)
    return median | {
        "batch": batch,
        "edit_s": edit_s,
        "floor_s": floor.seconds,
        "floor_bound": floor.bound,
        "floor_gflops": floor.flops / 1e9,
        "edit_over_floor": edit_s / floor.seconds,
        "added": edit_s / (median["encode_s"] + median["decode_s"]),
    }


def compiled_cost(
    model: SteeredWhisperModel, compiled: ctranslate2.models.Whisper, speech: np.ndarray, batch: int, repeats: int
) -> dict[str, Any]:
    """What the layers of a compiled directory add to encoding and decoding one batch of windows of speech, beam 5.

    Both answer alike, so both decode as many tokens; `same_tokens` says whether they did.
    """
    mel = pad_or_trim(model.feature_extractor(speech)[:, :-1]).astype(np.float32)
    features = ctranslate2.StorageView.from_array(np.stack([mel] * batch))
    multilingual = ("<|en|>", "<|transcribe|>") if model.model.is_multilingual else ()
    prompt = [
        model.hf_tokenizer.token_to_id(token) for token in ("<|startoftranscript|>", *multilingual, "<|notimestamps|>")
    ]
    answers: dict[str, Any] = {}
    calls: dict[str, Callable[[], object]] = {}
    for name, whisper in (("stock", model.model), ("compiled", compiled)):
        output = np.array(whisper.encode(features))

        def decode(name: str = name, whisper: Any = whisper, output: np.ndarray = output) -> None:
            view = ctranslate2.StorageView.from_array(output)
            answers[name] = [r.sequences_ids[0] for r in whisper.generate(view, [prompt] * batch, beam_size=5)]

        calls |= {f"{name}_encode_s": lambda whisper=whisper: whisper.encode(features), f"{name}_decode_s": decode}
    median = in_turns(calls, repeats)
    stock, ours = (median[f"{name}_encode_s"] + median[f"{name}_decode_s"] for name in ("stock", "compiled"))
    return median | {
        "batch": batch,
        "tokens": len(answers["stock"][0]),
        "same_tokens": answers["stock"] == answers["compiled"],
        "encode_ratio": median["compiled_encode_s"] / median["stock_encode_s"],
        "decode_ratio": median["compiled_decode_s"] / median["stock_decode_s"],
        "added": ours / stock - 1,
    }


def load_compiled(options: SpeedOptions, compute_type: str, sha256: str) -> ctranslate2.models.Whisper:
    """Raises `SteerOptionError` for a directory that was made of other weights."""
    made = read_provenance(str(options.compiled))
    if made.base_sha256 != sha256:
        raise SteerOptionError(f"{options.compiled} was made of {made.base_model!r}, not of {options.model!r}")
    return ctranslate2.models.Whisper(
        str(options.compiled), compute_type=compute_type, intra_threads=options.cpu_threads
    )


def silence_saved(model: SteeredWhisperModel, steering: Steering, noise: np.ndarray, repeats: int) -> dict[str, Any]:
    """Times of one recording of non-speech, each as a user would call it: defaults, so beam 5 and fallback."""
    early = Steering(steering.pack, 1.0, early_exit=True)

    def run(**options: Any) -> Callable[[], object]:
        return lambda: list(model.transcribe(noise, language="en", **options)[0])

    mel = model.feature_extractor(noise)
    windows = -(-len(noise) // (30 * SAMPLE_RATE_HZ))
    window = pad_or_trim(mel[:, :-1]).astype(np.float32)

    def encoder_alone() -> None:
        for _ in range(windows):
            model.encode(window)

    seconds = in_turns(
        {
            "stock_s": run(steer=None),
            "stock_vad_s": run(steer=None, vad_filter=True),
            "steered_s": run(steer=steering),
            "early_exit_s": run(steer=early),
            "encoder_s": encoder_alone,
        },
        repeats,
    )
    return seconds | {
        "audio_s": len(noise) / SAMPLE_RATE_HZ,
        "passes_vad": bool(list(model.transcribe(noise, language="en", vad_filter=True)[0])),
        "stock_over_steered": seconds["stock_s"] / seconds["steered_s"],
        "stock_vad_over_steered": seconds["stock_vad_s"] / seconds["steered_s"],
        "early_exit_over_encoder": seconds["early_exit_s"] / seconds["encoder_s"],
    }


def batched(model: SteeredWhisperModel, steering: Steering, speech: np.ndarray, repeats: int) -> dict[str, Any]:
    """Minutes of speech through faster-whisper's batched pipeline, stock and steered."""
    long = np.tile(speech, max(1, round(LONG_S * SAMPLE_RATE_HZ / len(speech))))
    audio_s = len(long) / SAMPLE_RATE_HZ
    chunks = [{"start": float(s), "end": min(s + 30.0, audio_s)} for s in range(0, int(audio_s), 30)]
    options: dict[str, Any] = {"language": "en", "clip_timestamps": chunks, "batch_size": 8, "beam_size": 1}
    stock, steered = BatchedInferencePipeline(model), SteeredBatchedInferencePipeline(model)
    seconds = in_turns(
        {
            "stock_s": lambda: list(stock.transcribe(long, suppress_blank=False, **options)[0]),
            "steered_s": lambda: list(steered.transcribe(long, steer=steering, **options)[0]),
        },
        repeats,
    )
    return seconds | {"audio_s": audio_s, "steered_over_stock": seconds["steered_s"] / seconds["stock_s"]}


IMPORTS = ("faster_whisper", "steer_asr", "steer_asr.ct2")
MEMORY = """\
import sys, numpy as np
from steer_asr.ct2 import load_model
from steer_asr_benchmarks.cost import peak_rss_bytes
model = load_model({model!r}, compute_type={compute_type!r}, cpu_threads={threads})
noise = np.random.default_rng(0).normal(0, 0.05, 16000 * 60).astype(np.float32)
list(model.transcribe(noise, steer={steer!r}, language="en", beam_size=1, temperature=0.0, max_new_tokens=32)[0])
print(peak_rss_bytes())
"""


def import_times(repeats: int) -> dict[str, float]:
    """Median seconds of a fresh interpreter that imports one thing."""
    calls = {name: _python(f"import {name}") for name in IMPORTS}
    found = in_turns(calls, repeats)
    return {f"{name}_s": seconds for name, seconds in found.items()} | {
        "steer_asr_over_faster_whisper": found["steer_asr"] / found["faster_whisper"],
        "ct2_over_faster_whisper": found["steer_asr.ct2"] / found["faster_whisper"],
    }


def memory(options: SpeedOptions, compute_type: str) -> dict[str, float]:
    """Peak memory of a fresh process that transcribes a minute of noise, stock and steered, in bytes."""
    values = {"model": options.model, "compute_type": compute_type, "threads": options.cpu_threads}
    peak = {}
    for name, steer in (("stock", None), ("steered", True)):
        script = MEMORY.format(steer=steer, **values)
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SteerOptionError(f"measuring memory failed: {done.stderr.strip().splitlines()[-1]}")
        peak[name] = int(done.stdout)
    added = peak["steered"] - peak["stock"]
    return {"stock_bytes": peak["stock"], "steered_bytes": peak["steered"], "added_bytes": added}


def measure_speed(
    options: SpeedOptions, speech: np.ndarray, noise: np.ndarray, note: Callable[[str], object]
) -> dict[str, Any]:
    """All of it; `note` is called with what comes next. Keys are those of the functions here."""
    found: dict[str, Any] = {"edit": {}, "compiled": {}, "silence": {}, "batched": {}, "memory": {}}
    for compute_type in options.compute_types:
        model = load_model(options.model, compute_type=compute_type, cpu_threads=options.cpu_threads)
        pack = options.steer.pack
        if not isinstance(pack, SteerPack):
            pack = load_pack(pack, model_sha256=model.files.sha256, model_name=model.files.name)
        for batch in options.batch_sizes:
            note(f"edit, {compute_type}, batch {batch}")
            found["edit"][f"{compute_type}/{batch}"] = edit_cost(model, pack, speech, batch, options.repeats)
        if options.compiled is not None:
            compiled = load_compiled(options, compute_type, model.files.sha256)
            for batch in options.batch_sizes:
                note(f"compiled, {compute_type}, batch {batch}")
                cost = compiled_cost(model, compiled, speech, batch, options.repeats)
                found["compiled"][f"{compute_type}/{batch}"] = cost
            del compiled
        note(f"non-speech, {compute_type}")
        found["silence"][compute_type] = silence_saved(model, options.steer, noise, options.repeats)
        note(f"batched, {compute_type}")
        found["batched"][compute_type] = batched(model, options.steer, speech, max(1, options.repeats // 2))
        del model
        note(f"memory, {compute_type}")
        found["memory"][compute_type] = memory(options, compute_type)
    note("imports")
    return found | {"imports": import_times(options.repeats)}


def _python(code: str) -> Callable[[], object]:
    return lambda: subprocess.run([sys.executable, "-c", code], check=True)
