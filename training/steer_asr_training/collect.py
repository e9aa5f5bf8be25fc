"""`steer-asr-train collect`: audio manifests to encoder activations on disk.

    collect(CollectConfig(model="base", manifests=("train.jsonl",)), "acts/base")

Resumable: a shard that is there and whole is not made again, and a folder made with other settings is refused.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from steer_asr._progress import Progress
from steer_asr.errors import HookPointError, unknown_name
from steer_asr.hooks import OUTPUT_HOOK_POINT
from steer_asr.manifest import read_manifest
from steer_asr_training.encoders import AudioEncoder, Window, load_encoder
from steer_asr_training.store import has_shard, open_store, write_shard
from steer_asr_training.windows import DataConfig, WindowSpec, plan_windows, render

WINDOWS_PER_SHARD = 64


@dataclass(frozen=True)
class CollectConfig:
    """What to collect. Everything here is written to `store.json`, and decides whether a folder can be resumed."""

    model: str
    """A Whisper (name or CTranslate2 directory) or a HuBERT directory."""
    manifests: tuple[str, ...]
    """NeMo-style JSONL manifests with speech and non-speech."""
    hook_points: tuple[str, ...] = (OUTPUT_HOOK_POINT,)
    """Where to read, for example "encoder.layers.3"; "encoder.output" is the final output."""
    data: DataConfig = field(default_factory=DataConfig)
    precision: str = "auto"
    """float32, bfloat16, or auto."""
    seed: int = 0
    batch_size: int = 1
    """Windows per forward pass. More than one pays on a GPU only."""


def collect(config: CollectConfig, folder: str | Path, *, part: tuple[int, int] = (0, 1)) -> Path:
    """Runs every planned window through the encoder and writes its activations, padding frames marked.

    `part` (i, n) does every n-th shard from the i-th on, so that n processes can share one folder.

    Raises `HookPointError`, `ManifestError`, `ModelError`, `AudioError`, or `SteerOptionError` when the folder holds
    activations that were collected with other settings.
    """
    folder, collector = Path(folder), Collector(config)
    open_store(folder, collector.header)
    todo = [index for index in range(part[0], collector.n_shards, part[1]) if not has_shard(folder, index)]
    label = f"collect {collector.encoder.name}"
    with Progress(total=len(todo) * WINDOWS_PER_SHARD, unit="window", label=label) as progress:
        for index in todo:
            collector.write(folder, index, progress.advance)
    return folder


class Collector:
    """All that is needed to make any of the shards. `precision` replaces the config's where that is "auto"."""

    def __init__(self, config: CollectConfig, *, precision: str | None = None) -> None:
        self.config = config
        self.clips = [clip for manifest in config.manifests for clip in read_manifest(manifest)]
        self.plan = plan_windows(self.clips, config.data, config.seed)
        self.n_shards = -(-len(self.plan) // WINDOWS_PER_SHARD)
        self.encoder: AudioEncoder = load_encoder(config.model, precision=precision or config.precision)
        known = self.encoder.hook_points()
        if unknown := sorted(set(config.hook_points) - set(known)):
            raise HookPointError(f"{self.encoder.name}: {unknown_name('hook point', unknown[0], known)}")
        self.header = self._header()
        """What `store.json` says: two collectors of the same header make the same activations."""

    def write(self, folder: Path, index: int, advance: Callable[[int], object] | None = None) -> None:
        """Makes one shard; `advance` is told how many more windows are done."""
        specs = self.plan[index * WINDOWS_PER_SHARD : (index + 1) * WINDOWS_PER_SHARD]
        windows: list[Window] = []
        for start in range(0, len(specs), self.config.batch_size):
            batch = specs[start : start + self.config.batch_size]
            waves = [render(spec, self.clips) for spec in batch]
            windows += self.encoder.capture(waves, self.config.hook_points)
            if advance is not None:
                advance(len(batch))
        write_shard(folder, index, windows, [self._described(spec) for spec in specs])

    def _described(self, spec: WindowSpec) -> dict[str, object]:
        said = [self.clips[i].text for i in spec.clips if self.clips[i].kind == "speech"]
        return spec.to_json() | {"text": " ".join(said)}

    def _header(self) -> dict[str, object]:
        planned = json.dumps([spec.to_json() for spec in self.plan], sort_keys=True)
        return json.loads(json.dumps(asdict(self.config))) | {
            "model": self.encoder.name,
            "model_sha256": self.encoder.sha256,
            "front_end": self.encoder.front_end,
            "n_windows": len(self.plan),
            "n_shards": self.n_shards,
            "windows_sha256": hashlib.sha256(planned.encode()).hexdigest(),
        }


def estimate_seconds(config: CollectConfig, n_probe: int = 3) -> tuple[int, float]:
    """Number of windows and the time that encoding them will take on this machine, measured on a few of them."""
    clips = [clip for manifest in config.manifests for clip in read_manifest(manifest)]
    plan = plan_windows(clips, config.data, config.seed)
    encoder = load_encoder(config.model, precision=config.precision)
    encoder.capture([render(plan[0], clips)], config.hook_points)
    started = time.perf_counter()
    for spec in plan[1 : n_probe + 1]:
        encoder.capture([render(spec, clips)], config.hook_points)
    return len(plan), (time.perf_counter() - started) / n_probe * len(plan)
