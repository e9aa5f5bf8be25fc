"""What test sets are mixed from in tests: tones and noise, whose parts can be told apart again in the mix."""

from __future__ import annotations

import json
import wave as wave_file
from pathlib import Path
from typing import Any

import numpy as np

from tests.helpers import RATE_HZ, silence, tone

SPEECH_HZ, NOISE_HZ = 1000.0, 5000.0


def save(path: Path, wave: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    with wave_file.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(np.round(wave * 32768).astype("<i2").tobytes())


def said(seconds: float, level: float = 0.1) -> np.ndarray:
    """A tone for "speech", with silence before, in the middle and behind."""
    half = tone(seconds * 0.3, SPEECH_HZ, level)
    return np.concatenate([silence(seconds * 0.1), half, silence(seconds * 0.2), half, silence(seconds * 0.1)])


def write_manifests(folder: Path) -> tuple[Path, Path]:
    """Four utterances of two speakers; a hum, a longer one, barking, digital silence, a tune."""
    speech = [
        {"text": f"word {i}", "group": f"speaker-{i % 2}", "lang": "en", "source": "books", "licence": "CC0"}
        | {"label": "likely-verbatim" if i == 3 else "verbatim", "category": "utterance", "shippable": True}
        for i in range(4)
    ]
    sounds = {
        "hum": tone(0.5, NOISE_HZ, 0.02),
        "fan": tone(3.0, NOISE_HZ, 0.3),
        "dog": np.concatenate([silence(2.0), tone(0.5, NOISE_HZ, 0.2), silence(2.0), tone(0.5, NOISE_HZ, 0.2)]),
        "mute": silence(1.0),
        "tune": tone(1.5, NOISE_HZ, 0.1),
    }
    quiet = [
        {"text": "", "group": name, "source": "sounds", "label": name, "licence": "CC BY"}
        | {"category": "music" if name == "tune" else "domestic"}
        for name in sounds
    ]
    waves = [said(0.8 + 0.2 * i) for i in range(4)], list(sounds.values())
    paths = []
    for kind, rows, of_kind in zip(("speech", "nonspeech"), (speech, quiet), waves, strict=True):
        lines = []
        for i, (row, wave) in enumerate(zip(rows, of_kind, strict=True)):
            save(folder / "in" / f"{kind}-{i}.wav", wave)
            about = {"audio_filepath": f"{kind}-{i}.wav", "duration": len(wave) / RATE_HZ, "kind": kind}
            lines.append(json.dumps(about | {"split": "test"} | row))
        paths.append(folder / "in" / f"{kind}.jsonl")
        paths[-1].write_text("\n".join(lines), encoding="utf-8")
    return paths[0], paths[1]


def rows_of(manifest: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
