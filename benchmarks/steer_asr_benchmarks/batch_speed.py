"""What batches of windows cost on this machine, in CPU time and in time, for CTranslate2 alone.

    python -m steer_asr_benchmarks.batch_speed --model tiny.en --threads 1

Decides whether a server should batch (`batch_audio_s` of `steer_asr_serving`). CPU time per window also holds on a busy
machine; time does not.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from faster_whisper.audio import pad_or_trim
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import get_ctranslate2_storage

from steer_asr import load_model
from steer_asr._files import write_text
from steer_asr.audio import SAMPLE_RATE_HZ, decode_audio

CLIP = Path(__file__).parents[1] / "demo" / "clips" / "speech.flac"
CLIP_S = 5
BATCHES = (1, 2, 4, 8)


def measure(model: Any, mel: np.ndarray, batch: int, *, windows: int, beam: int) -> dict[str, float]:
    """Milliseconds per window to encode and decode `windows` windows of mel [n_mels, 3000], `batch` at a time."""
    tokenizer = Tokenizer(model.hf_tokenizer, model.model.is_multilingual, task="transcribe", language="en")
    prompt = model.get_prompt(tokenizer, [], without_timestamps=False, prefix=None)
    names = "encode_cpu_ms", "encode_ms", "decode_cpu_ms", "decode_ms"
    spent: dict[str, float] = dict.fromkeys(names, 0.0)
    for _ in range(windows // batch):
        rows = get_ctranslate2_storage(np.repeat(mel[None], batch, axis=0))
        marks = [(time.process_time(), time.perf_counter())]
        output = model.model.encode(rows)
        marks.append((time.process_time(), time.perf_counter()))
        model.model.generate(output, [prompt] * batch, beam_size=beam, return_scores=True, return_no_speech_prob=True)
        marks.append((time.process_time(), time.perf_counter()))
        for name, begins, ends in (("encode", *marks[:2]), ("decode", *marks[1:])):
            spent[f"{name}_cpu_ms"] += 1000 * (ends[0] - begins[0]) / windows
            spent[f"{name}_ms"] += 1000 * (ends[1] - begins[1]) / windows
    return {name: round(value, 1) for name, value in spent.items()}


def main(
    model: Annotated[str, typer.Option(help="Name or CTranslate2 directory.")] = "tiny.en",
    compute_type: Annotated[str, typer.Option(help="CTranslate2's.")] = "float32",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    beam: Annotated[int, typer.Option(help="Beam size; 1 is greedy.")] = 5,
    windows: Annotated[int, typer.Option(help="Windows for each batch size, a multiple of 8.")] = 8,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Also write the numbers to this JSON file.")] = None,
) -> None:
    """Encode and decode 5 s of speech in batches of 1, 2, 4 and 8 windows."""
    whisper = load_model(model, device=device, compute_type=compute_type, cpu_threads=threads)
    mel = pad_or_trim(whisper.feature_extractor(decode_audio(CLIP)[: CLIP_S * SAMPLE_RATE_HZ])[:, :-1])
    measure(whisper, mel, 1, windows=1, beam=beam)  # warms up
    results = {}
    for batch in BATCHES:
        results[batch] = row = measure(whisper, mel, batch, windows=windows, beam=beam)
        print(f"batch {batch}: " + ", ".join(f"{name} {value:.0f}" for name, value in row.items()), flush=True)
    setup = {"model": model, "compute_type": compute_type, "device": device, "threads": threads, "beam": beam}
    found = setup | {"windows": windows, "per_window": results}
    if out is not None:
        write_text(out, json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))


if __name__ == "__main__":
    typer.run(main)
