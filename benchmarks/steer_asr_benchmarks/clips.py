"""The clips of a run: manifests and dataset roots in, a list of clips with stable names out.

clips = load_clips([Path("test_nonspeech.jsonl"), "/data/LibriSpeech::test-clean"], limit=20)
clips[0].id                          # "test_nonspeech.jsonl:../audio/rain.flac"
clips[20].id                         # "librispeech:test-clean/61/70968/61-70968-0000.flac"
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from steer_asr._files import sha256_of
from steer_asr.errors import AudioError, ManifestError, SteerOptionError
from steer_asr.manifest import Clip
from steer_asr_benchmarks.datasets.durations import measured
from steer_asr_benchmarks.datasets.source import Contents, Source, read_source


@dataclass(frozen=True)
class BenchClip:
    """A clip and the name it goes by in the results: its source and audio path, the same on every machine."""

    id: str
    clip: Clip


@dataclass(frozen=True)
class Shard:
    """Part `index` (from 1) of `count`: every `count`-th clip."""

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """`"2/4"`; raises `SteerOptionError` for anything that is not a part of a whole."""
        index, _, count = text.partition("/")
        if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
            raise SteerOptionError(f"shard {text!r} is not I/N with I from 1 to N, for example 1/2")
        return cls(int(index), int(count))

    def of(self, clips: Sequence[BenchClip]) -> list[BenchClip]:
        """This part's clips."""
        return list(clips[self.index - 1 :: self.count])


def load_clips(manifests: Sequence[str | os.PathLike[str]], limit: int | None = None) -> list[BenchClip]:
    """The clips of all manifests and dataset roots, `PATH` or `PATH::SPLIT`, at most `limit` of each, spread evenly
    over it (neighbours share a source).

    Raises `ManifestError` for a broken manifest, a folder that is no known dataset or a clip listed twice, and
    `AudioError` when audio is missing, or when no length is stated or found in it.
    """
    if limit is not None and limit < 1:
        raise SteerOptionError(f"limit {limit} is not at least 1")
    clips: dict[str, BenchClip] = {}
    for manifest in manifests:
        contents = read_source(Source.parse(manifest))
        rows = contents.clips
        n = len(rows) if limit is None else min(limit, len(rows))
        for clip in (rows[i * len(rows) // n] for i in range(n)):
            named = BenchClip(contents.id_of(clip), clip)
            if named.id in clips:
                raise ManifestError(f"{manifest}: {named.id} is listed twice; results are kept by that name")
            clips[named.id] = named
    missing = [named for named in clips.values() if not named.clip.audio_path.is_file()]
    if missing:
        raise AudioError(f"{missing[0].id}: there is no such file ({len(missing)} of {len(clips)} clips lack theirs)")
    lengths = measured([named.clip for named in clips.values()])
    return [BenchClip(id, clip) for id, clip in zip(clips, lengths, strict=True)]


def describe_source(manifest: str | os.PathLike[str]) -> dict[str, Any]:
    """A manifest or dataset root in a run's description: name, SHA-256, and what of it was not taken.

    The hash of a manifest is that of the file. Of a root it goes over the clips, in the order of their names: name,
    size of the audio in bytes, kind and text, so other files beside them do not matter, and `limit` neither.
    """
    source = Source.parse(manifest)
    contents = read_source(source)
    if contents.layout is None:
        return {"name": source.name, "sha256": sha256_of(source.path)}
    return {
        "name": source.name,
        "layout": contents.layout.name,
        "sha256": _sha256_of_clips(contents),
        "clips": len(contents.clips),
        "left_out": contents.reasons(),
    }


def _sha256_of_clips(contents: Contents) -> str:
    """A clip whose file is missing counts with size -1: with a limit, a run may not need it."""
    lines = []
    for clip in contents.clips:
        size = clip.audio_path.stat().st_size if clip.audio_path.is_file() else -1
        lines.append(f"{contents.id_of(clip)}\t{size}\t{clip.kind}\t{clip.text}\n")
    return hashlib.sha256("".join(sorted(lines)).encode("utf-8")).hexdigest()
