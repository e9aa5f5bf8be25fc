"""Where clips come from: a manifest, or the root folder of a dataset; all of it, or some splits.

Source.parse("test.jsonl"), Source.parse("/data/LibriSpeech::test-clean"), Source.parse("ESC-50-master::fold4,fold5")
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from steer_asr.errors import ManifestError, SteerOptionError, unknown_name
from steer_asr.manifest import Clip, read_manifest
from steer_asr_benchmarks.datasets.base import DatasetError, Layout, LeftOut
from steer_asr_benchmarks.datasets.folder import Folder
from steer_asr_benchmarks.datasets.layouts import recognise

MARK = "::"


@dataclass(frozen=True)
class Source:
    """A manifest or a dataset root, and the splits of it that are meant; none are all."""

    path: Path
    splits: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str | os.PathLike[str]) -> Source:
        """`PATH` or `PATH::SPLIT`, several splits with commas. Raises `SteerOptionError` when either side is empty."""
        text = os.fspath(text)
        if MARK not in text or Path(text).exists():
            return cls(Path(text))
        path, _, splits = text.rpartition(MARK)
        named = tuple(dict.fromkeys(part.strip() for part in splits.split(",") if part.strip()))
        if not path or not named:
            raise SteerOptionError(f"{text!r} is not PATH or PATH::SPLIT, for example LibriSpeech::test-clean")
        return cls(Path(path), named)

    @property
    def name(self) -> str:
        """File or folder name, and splits: `"LibriSpeech::test-clean"`."""
        return Path(os.path.abspath(self.path)).name + (MARK + ",".join(self.splits) if self.splits else "")


@dataclass(frozen=True)
class Contents:
    """What a source holds. Clips of a dataset have the duration NaN where it states none; see `measured`."""

    name: str
    """What its clips' names start with: the manifest's file name, or the layout's name. The same on every machine."""
    base: Path
    """What the audio paths in clips' names are relative to."""
    clips: list[Clip]
    left_out: list[LeftOut] = field(default_factory=list)
    layout: Layout | None = None
    """None for a manifest."""

    def id_of(self, clip: Clip) -> str:
        """`"librispeech:test-clean/61/70968/61-70968-0000.flac"`."""
        return f"{self.name}:{Path(os.path.relpath(clip.audio_path, self.base)).as_posix()}"

    def reasons(self) -> dict[str, int]:
        """Why clips were left out, and how many, the most frequent first."""
        return dict(Counter(row.reason for row in self.left_out).most_common())


def read_source(source: Source) -> Contents:
    """Everything in a source, in a fixed order. No audio is opened.

    Raises `ManifestError` for a manifest that is broken and a split that is not there, and `DatasetError`, which is
    one, for a folder that is no dataset or half of one.
    """
    whole = _dataset(source.path) if source.path.is_dir() else _manifest(source.path)
    if not source.splits:
        return whole
    there = {clip.split for clip in whole.clips} - {""}
    if not there:
        raise ManifestError(f"{source.path}: its clips have no splits; give it without {MARK}{','.join(source.splits)}")
    for split in source.splits:
        if split not in there:
            raise ManifestError(f"{source.path}: {unknown_name('split', split, there)}")
    clips = [clip for clip in whole.clips if clip.split in source.splits]
    left_out = [row for row in whole.left_out if row.split in source.splits]
    return Contents(whole.name, whole.base, clips, left_out, whole.layout)


def _manifest(path: Path) -> Contents:
    return Contents(path.name, path.parent, read_manifest(path))


def _dataset(path: Path) -> Contents:
    root = Path(os.path.abspath(path))
    layout, base = recognise(root)
    try:
        rows = list(layout.rows(base, root))
    except (ValueError, IndexError) as error:
        raise DatasetError(f"{path}: a table of {layout.title} holds what does not belong there ({error})") from error
    name = base.name if isinstance(layout, Folder) else layout.name
    contents = Contents(
        name,
        base,
        [row for row in rows if isinstance(row, Clip)],
        [row for row in rows if isinstance(row, LeftOut)],
        layout,
    )
    if not contents.clips:
        why = "; ".join(f"{reason}: {n}" for reason, n in contents.reasons().items())
        raise DatasetError(f"{path} is {layout.title}, but no clip of it can be used ({why or 'its tables are empty'})")
    return contents
