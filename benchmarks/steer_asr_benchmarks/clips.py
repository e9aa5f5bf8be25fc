"""The clips of a run: manifests in, a list of clips with stable names out.

clips = load_clips([Path("test_nonspeech.jsonl"), Path("test_speech.jsonl")], limit=20)
clips[0].id                          # "test_nonspeech.jsonl:../audio/rain.flac"
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from steer_asr.errors import AudioError, ManifestError, SteerOptionError
from steer_asr.manifest import Clip, read_manifest


@dataclass(frozen=True)
class BenchClip:
    """A clip and the name it goes by in the results: manifest file and audio path, the same on every machine."""

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


def load_clips(manifests: Sequence[Path], limit: int | None = None) -> list[BenchClip]:
    """The clips of all manifests, at most `limit` of each, spread evenly over it (neighbours share a source).

    Raises `ManifestError` for a broken manifest or a clip listed twice, and `AudioError` when audio is missing.
    """
    if limit is not None and limit < 1:
        raise SteerOptionError(f"limit {limit} is not at least 1")
    clips: dict[str, BenchClip] = {}
    for manifest in manifests:
        rows = read_manifest(manifest)
        n = len(rows) if limit is None else min(limit, len(rows))
        kept = [rows[i * len(rows) // n] for i in range(n)]
        for clip in kept:
            named = BenchClip(f"{manifest.name}:{os.path.relpath(clip.audio_path, manifest.parent)}", clip)
            if named.id in clips:
                raise ManifestError(f"{manifest}: {named.id} is listed twice; results are kept by that name")
            clips[named.id] = named
    missing = [named for named in clips.values() if not named.clip.audio_path.is_file()]
    if missing:
        raise AudioError(f"{missing[0].id}: there is no such file ({len(missing)} of {len(clips)} clips lack theirs)")
    return list(clips.values())
