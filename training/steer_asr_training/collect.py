"""`steer-asr-train collect`: audio manifests to encoder activations on disk.

    collect(CollectConfig(model="base", manifests=("train.jsonl",)), "acts/base")

Resumable: a shard that is there and whole is not made again, and a folder made with other settings is refused.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from steer_asr._progress import Progress
from steer_asr.errors import HookPointError, unknown_name
from steer_asr.hooks import OUTPUT_HOOK_POINT
from steer_asr.manifest import Clip, read_manifest
from steer_asr_training.encoders import AudioEncoder, load_encoder
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
    folder = Path(folder)
    clips = [clip for manifest in config.manifests for clip in read_manifest(manifest)]
    plan = plan_windows(clips, config.data, config.seed)
    encoder = load_encoder(config.model, precision=config.precision)
    if unknown := sorted(set(config.hook_points) - set(encoder.hook_points())):
        raise HookPointError(f"{encoder.name}: {unknown_name('hook point', unknown[0], encoder.hook_points())}")
    n_shards = -(-len(plan) // WINDOWS_PER_SHARD)
    open_store(folder, _header(config, encoder, plan, n_shards))
    todo = [index for index in range(part[0], n_shards, part[1]) if not has_shard(folder, index)]
    with Progress(total=len(todo) * WINDOWS_PER_SHARD, unit="window", label=f"collect {encoder.name}") as progress:
        for index in todo:
            specs = plan[index * WINDOWS_PER_SHARD : (index + 1) * WINDOWS_PER_SHARD]
            _collect_shard(config, folder, index, specs, clips, encoder, progress)
    return folder


def _collect_shard(
    config: CollectConfig,
    folder: Path,
    index: int,
    specs: list[WindowSpec],
    clips: list[Clip],
    encoder: AudioEncoder,
    progress: Progress,
) -> None:
    windows = []
    for start in range(0, len(specs), config.batch_size):
        batch = specs[start : start + config.batch_size]
        windows += encoder.capture([render(spec, clips) for spec in batch], config.hook_points)
        progress.advance(len(batch))
    described = [
        spec.to_json() | {"text": " ".join(clips[i].text for i in spec.clips if clips[i].kind == "speech")}
        for spec in specs
    ]
    write_shard(folder, index, windows, described)


def _header(config: CollectConfig, encoder: AudioEncoder, plan: list[WindowSpec], n_shards: int) -> dict[str, object]:
    planned = json.dumps([spec.to_json() for spec in plan], sort_keys=True)
    return json.loads(json.dumps(asdict(config))) | {
        "model": encoder.name,
        "model_sha256": encoder.sha256,
        "front_end": encoder.front_end,
        "n_windows": len(plan),
        "n_shards": n_shards,
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
