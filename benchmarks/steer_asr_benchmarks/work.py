"""The work of a run and the process that does it: clips in, lines of predictions.jsonl out.

    transcriber = Transcriber(options)             # loads the models
    for record in transcriber.records(ClipWork(named, (Job("stock", "timestamps"),))):
        ...

A run has one transcriber in its own process, or one in each of its workers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from steer_asr.audio import SAMPLE_RATE_HZ, decode_audio
from steer_asr_benchmarks.clips import BenchClip, Shard
from steer_asr_benchmarks.predictions import Key, make_record
from steer_asr_benchmarks.provenance import versions
from steer_asr_benchmarks.systems import ModelOptions, Models, make_systems
from steer_asr_benchmarks.systems.base import MODES, Decoding, Mode, System

WARM_UP_S = 1.0
DESCRIBED = ("versions", "model", "systems")
"""What a transcriber says of itself."""


@dataclass(frozen=True)
class RunOptions:
    """One benchmark run."""

    manifests: tuple[str | Path, ...]
    """Manifests and dataset roots, PATH or PATH::SPLIT."""
    systems: tuple[str, ...] = ("stock", "steered")
    """Names as in `steer_asr_benchmarks.systems`; the first is what the others are compared with."""
    model: ModelOptions = field(default_factory=ModelOptions)
    steer: str = "default"
    """What the system `steered` means."""
    modes: tuple[Mode, ...] = MODES
    language: str = "en"
    """A language code, "auto" (detected) or "manifest" (each clip's own; detected where the manifest has none).
    English-only models take everything for English."""
    beam_size: int = 1
    limit: int | None = None
    """At most so many clips of each manifest: for trying out."""
    shard: Shard = field(default_factory=Shard)
    jobs: int | None = None
    """Processes that transcribe, each with models of its own. None: this one alone; on Ray as many as it has CPUs."""
    ray: str | None = None
    """A Ray cluster whose workers transcribe: its address (HOST:PORT, "auto"), or "local" to start one here."""

    def decoding(self, named: BenchClip, mode: Mode) -> Decoding:
        """How a clip is decoded in this run."""
        by_policy = {"auto": None, "manifest": named.clip.lang or None}
        return Decoding(mode, by_policy.get(self.language, self.language), self.beam_size)


@dataclass(frozen=True)
class Job:
    """One way to transcribe a clip."""

    system: str
    mode: Mode

    def key(self, named: BenchClip) -> Key:
        return named.id, self.system, self.mode


@dataclass(frozen=True)
class ClipWork:
    """What is left to do of one clip. Its jobs stay in one process: they share the decoded audio."""

    named: BenchClip
    jobs: tuple[Job, ...]


class Transcriber:
    """Models and systems of a run, in one process.

    It predicts the same, to the last bit, in every process: numpy's BLAS, which computes the mel features, rounds
    otherwise with another number of threads, so it has one here. CTranslate2's threads do not matter.

    Raises `ModelError`, `PackError`, `SteerOptionError`.
    """

    def __init__(self, options: RunOptions) -> None:
        self.options = options
        self.models = Models(options.model)
        self.systems: dict[str, System] = {
            system.name: system for system in make_systems(options.systems, self.models, options.steer)
        }
        self._warm: set[Job] = set()
        self._libraries = ThreadpoolController()

    def describe(self) -> dict[str, Any]:
        """What decides the predictions of this process, as JSON; keys `DESCRIBED`."""
        return {
            "versions": versions(),
            "model": self.models.describe(),
            "systems": {name: dict(system.options) for name, system in self.systems.items()},
        }

    def records(self, work: ClipWork) -> Iterator[dict[str, Any]]:
        """The lines for one clip, each when it is made. Raises `AudioError`."""
        audio = decode_audio(work.named.clip.audio_path)
        for job in work.jobs:
            self.warm_up(job)
            decoding = self.options.decoding(work.named, job.mode)
            with self._libraries.limit(limits=1, user_api="blas"):
                started = time.perf_counter()
                prediction = self.systems[job.system].transcribe(audio, decoding)
                seconds = time.perf_counter() - started
            yield make_record(work.named, job.system, decoding, prediction, seconds)

    def warm_up(self, job: Job) -> None:
        """Transcribes a little silence, once, so that first-call costs do not count as latency."""
        if job not in self._warm:
            silence = np.zeros(int(WARM_UP_S * SAMPLE_RATE_HZ), np.float32)
            self.systems[job.system].transcribe(silence, Decoding(job.mode, "en", self.options.beam_size))
            self._warm.add(job)


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Where two descriptions differ, as ["decoding.beam_size was 1, is 5", ...]."""
    old, new = _flat(before), _flat(now)
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return [f"{key} was {old.get(key)!r}, is {new.get(key)!r}" for key in changed]


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested JSON as {"decoding.beam_size": 1, ...}."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    return {
        name: leaf for key, inner in value.items() for name, leaf in _flat(inner, f"{prefix}.{key}".lstrip(".")).items()
    }
