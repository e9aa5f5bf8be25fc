"""What an analysis works on: a dictionary of features, and windows of activations to show it.

dictionary = load_dictionary("sae/base/sae")            # or a pack, by folder or name
windows = stored_windows(store, dictionary)
windows.frames(17)                                      # float32 [frame, d_in], padding dropped
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from steer_asr.audio import SAMPLE_RATE_HZ, decode_audio
from steer_asr.errors import PackMismatchError, SteerOptionError
from steer_asr.hooks import OUTPUT_HOOK_POINT
from steer_asr.manifest import Clip, read_manifest
from steer_asr.models import ModelFiles
from steer_asr.pack import STEER_FILE, SteerPack, load_pack
from steer_asr.sae import CFG_FILE, SaeFeatures, load_features
from steer_asr_training.analysis.labels import WindowLabels, clip_labels, stored_clips, window_labels
from steer_asr_training.controls import real_frames, width
from steer_asr_training.encoders import AudioEncoder, load_encoder
from steer_asr_training.store import ActivationStore
from steer_asr_training.windows import WINDOW_S

FRAME_S = 0.02


@dataclass(frozen=True, eq=False)
class Dictionary:
    """An SAE, or the features of a pack."""

    name: str
    features: SaeFeatures
    ids: tuple[int, ...]
    """Id in the full dictionary of each column of `features`."""
    hook_point: str
    model_sha256: str | None
    """Of the model that it belongs to; None where the files do not say."""
    pack: SteerPack | None = None


class Windows(Protocol):
    """Windows of audio inside the encoder, one at a time."""

    @property
    def labels(self) -> Sequence[WindowLabels]: ...

    def __len__(self) -> int: ...

    def frames(self, i: int) -> np.ndarray:
        """float32 [frame, d_in] of the frames that hear audio."""
        ...

    def describe(self, i: int) -> str:
        """Where the window comes from, for people."""
        ...


def load_dictionary(path: str | Path, hook_point: str | None = None) -> Dictionary:
    """The SAE in a folder written by `fit` (or in its `sae` folder), or a pack by folder or name.

    `hook_point` is needed only for files that do not state theirs. Raises `PackError` for what is neither.
    """
    folder = Path(path)
    if not (folder / CFG_FILE).is_file() and (folder / "sae" / CFG_FILE).is_file():
        folder = folder / "sae"
    if (folder / STEER_FILE).is_file() or not (folder / CFG_FILE).is_file():
        pack = load_pack(path)
        return Dictionary(pack.name, pack.features, pack.feature_ids, pack.hook_point, pack.base_sha256, pack)
    features = load_features(folder)
    metadata = json.loads((folder / CFG_FILE).read_text(encoding="utf-8")).get("metadata", {})
    point = hook_point or metadata.get("hook_name") or OUTPUT_HOOK_POINT
    return Dictionary(str(path), features, tuple(range(features.n_features)), point, metadata.get("model_sha256"))


def stored_windows(store: ActivationStore, dictionary: Dictionary, hook_point: str | None = None) -> StoredWindows:
    """The store's windows at the dictionary's hook point.

    Raises `SteerOptionError` for an empty store, `HookPointError` when it lacks the point, and `PackMismatchError` for
    a dictionary of another model or width.
    """
    if not len(store):
        raise SteerOptionError(f"{store.folder} holds no windows; collect some first: steer-asr-train collect")
    point = hook_point or dictionary.hook_point
    d_in, sha256 = width(store, point), store.header.get("model_sha256")
    if dictionary.model_sha256 and sha256 and dictionary.model_sha256 != sha256:
        raise PackMismatchError(
            f"{dictionary.name} belongs to a model with weights {dictionary.model_sha256[:12]}..., {store.folder} was "
            f"collected from {store.header['model']!r} (weights {sha256[:12]}...)"
        )
    _check_width(dictionary, d_in, f"the activations in {store.folder}")
    return StoredWindows(store, point)


class StoredWindows:
    """Windows of an activation store."""

    def __init__(self, store: ActivationStore, hook_point: str) -> None:
        self.store, self.hook_point = store, hook_point
        self.clips: Sequence[Clip] | None = stored_clips(store)
        self.labels: Sequence[WindowLabels] = window_labels(store, self.clips)

    def __len__(self) -> int:
        return len(self.store)

    def frames(self, i: int) -> np.ndarray:
        return real_frames(self.store, i, self.hook_point)

    def padded(self, i: int) -> np.ndarray:
        """float32 [frame, d_in]: all frames of the window, padding included."""
        return self.store.window(i, self.hook_point).astype(np.float32)

    def describe(self, i: int) -> str:
        window = self.store.windows[i]
        if self.clips and window.get("clips"):
            names = " + ".join(self.clips[c].audio_path.name for c in window["clips"])
            return f"{window['treatment']} {window['source']}/{names}"
        return f"{window.get('treatment', '')} {window.get('generator') or window['source']} (window {i})".strip()


class ManifestWindows:
    """Clips of a labelled manifest, encoded when they are asked for: the first 30 s of each."""

    def __init__(self, manifest: str | Path, model: str, dictionary: Dictionary) -> None:
        self.clips = read_manifest(manifest)
        self.labels = [clip_labels(clip) for clip in self.clips]
        self.hook_point = dictionary.hook_point
        self.encoder: AudioEncoder = load_encoder(model)
        if dictionary.model_sha256 and dictionary.model_sha256 != self.encoder.sha256:
            raise PackMismatchError(
                f"{dictionary.name} belongs to a model with weights {dictionary.model_sha256[:12]}..., "
                f"{model!r} has {self.encoder.sha256[:12]}..."
            )
        _check_width(dictionary, self.frames(0).shape[1], f"{model!r} at {self.hook_point!r}")

    def __len__(self) -> int:
        return len(self.clips)

    def frames(self, i: int) -> np.ndarray:
        wave = decode_audio(self.clips[i].audio_path)[: int(WINDOW_S * SAMPLE_RATE_HZ)]
        [window] = self.encoder.capture([wave], [self.hook_point])
        return window.activations[self.hook_point][: max(1, window.n_real_frames)]

    def describe(self, i: int) -> str:
        return f"{self.clips[i].source}/{self.clips[i].audio_path.name}".lstrip("/")


def check_model(windows: StoredWindows, model: ModelFiles) -> None:
    """Raises `PackMismatchError` unless the store was collected from this model."""
    theirs = str(windows.store.header.get("model_sha256"))
    if theirs != model.sha256:
        raise PackMismatchError(
            f"{windows.store.folder} was collected from {windows.store.header['model']!r} (weights {theirs[:12]}...), "
            f"the model is {model.name!r} (weights {model.sha256[:12]}...)"
        )


def _check_width(dictionary: Dictionary, d_in: int, what: str) -> None:
    if dictionary.features.d_in != d_in:
        raise PackMismatchError(
            f"{dictionary.name} is {dictionary.features.d_in} wide, {what} are {d_in}; give the SAE that was fitted "
            "on them"
        )
