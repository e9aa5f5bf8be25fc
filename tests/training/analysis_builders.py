"""Dictionaries and windows whose features are known."""

from __future__ import annotations

import json
import wave
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from steer_asr.sae import SaeFeatures, save_features
from steer_asr_training.analysis.labels import Domain, WindowLabels
from steer_asr_training.collect import CollectConfig, collect
from steer_asr_training.encoders import Window
from steer_asr_training.store import ActivationStore
from steer_asr_training.windows import DataConfig
from tests.helpers import RATE_HZ, noise, tone
from tests.training.builders import POINT, write_store

D_IN, N_FEATURES = 16, 12


class Listed:
    """Windows in memory: float32 [frame, d_in] each."""

    def __init__(self, frames: Sequence[np.ndarray], labels: Sequence[WindowLabels] | None = None) -> None:
        self._frames = [np.asarray(x, np.float32) for x in frames]
        self.labels = labels or [label("speech", group=str(i)) for i in range(len(frames))]

    def __len__(self) -> int:
        return len(self._frames)

    def frames(self, i: int) -> np.ndarray:
        return self._frames[i]

    def describe(self, i: int) -> str:
        return f"listed {i}"


def label(kind: str, *tags: str, domain: Domain | None = None, group: str = "g") -> WindowLabels:
    return WindowLabels(kind, frozenset({f"kind:{kind}", *tags}), domain, group)


def tied(rows: np.ndarray, *, threshold: float = 0.25, mean: np.ndarray | None = None) -> SaeFeatures:
    """The dictionary that reads and writes along orthonormal `rows`, [n_features, d_in]."""
    rows = rows.astype(np.float32)
    centre = np.zeros(rows.shape[1], np.float32) if mean is None else mean.astype(np.float32)
    n = len(rows)
    return SaeFeatures(rows.T.copy(), -(rows @ centre), np.full(n, threshold, np.float32), rows, centre)


def orthonormal(n: int = N_FEATURES, d_in: int = D_IN, seed: int = 3) -> np.ndarray:
    q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((d_in, n)))
    return q.T.astype(np.float32)


def sparse_codes(rng: np.random.Generator, frames: int, n: int = N_FEATURES, share: float = 0.2) -> np.ndarray:
    """Activations between 1 and 3 on a share of the frames: float64 [frame, n]."""
    return (rng.random((frames, n)) < share) * rng.uniform(1, 3, (frames, n))


def everything(d_in: int) -> SaeFeatures:
    """Reconstructs anything: a feature for each direction and its opposite."""
    return tied(np.concatenate([np.eye(d_in), -np.eye(d_in)]), threshold=0.0)


def code_store(folder: Path, codes: Sequence[np.ndarray], described: Sequence[Mapping[str, object]]) -> ActivationStore:
    """A store of `codes`, [frame, N_FEATURES] each, written along `orthonormal()`; ten frames of padding hold noise."""
    noise = np.random.default_rng(9)
    windows = [
        Window({POINT: np.concatenate([z @ orthonormal(), noise.normal(0, 50, (10, D_IN))]).astype(np.float32)}, len(z))
        for z in codes
    ]
    return write_store(folder, windows, [dict(d) for d in described])


def write_sae(folder: Path, features: SaeFeatures, **metadata: object) -> Path:
    folder.mkdir(parents=True)
    save_features(folder, features, {"hook_name": POINT} | metadata)
    return folder


def write_wav(path: Path, samples: np.ndarray) -> Path:
    """16-bit mono at 16 kHz."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return path


def write_clips(folder: Path, n: int = 8) -> Path:
    """A manifest with `n` clips each of "speech" (a buzz), hiss and beep: each its own recording, 0.5 to 1 s long."""
    folder.mkdir(parents=True)
    rows = []
    for i in range(n):
        seconds = 0.5 + 0.5 * i / n
        sounds = {
            "buzz": np.sign(tone(seconds, 120.0 + i)) * 0.2,
            "hiss": noise(seconds, 0.1, seed=i),
            "beep": tone(seconds, 2000.0 + 20 * i, 0.3),
        }
        for name, samples in sounds.items():
            write_wav(folder / f"{name}{i}.wav", samples)
            speech = name == "buzz"
            row = {"audio_filepath": f"{name}{i}.wav", "duration": seconds, "kind": "speech" if speech else "nonspeech"}
            row |= {"text": "buzz buzz" if speech else "", "label": name, "source": f"{name}es", "lang": "en"}
            rows.append(row | {"category": {"buzz": "short", "hiss": "noise", "beep": "music"}[name]})
    manifest = folder / "clips.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return manifest


PLAIN = DataConfig(
    varied_nonspeech=0,
    synthetic_nonspeech=2,
    noisy_speech=2,
    placed_speech=0,
    disguised_speech=0,
    disguised_nonspeech=2,
    max_music_share=0.99,
    only_shippable=False,
)


def collect_clips(folder: Path, model: Path, points: tuple[str, ...] = (POINT,)) -> ActivationStore:
    """`write_clips` inside the encoder of `model`."""
    manifest = write_clips(folder / "audio")
    config = CollectConfig(str(model), (str(manifest),), points, PLAIN, precision="float32")
    return ActivationStore(collect(config, folder / "store"))
