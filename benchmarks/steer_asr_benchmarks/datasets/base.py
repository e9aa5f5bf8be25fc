"""What a dataset layout is: a folder in, clips out. One file beside this one per layout.

    layout = Esc50()                                  # name, title, looks_like, holds, licence, home
    base = layout.find(Path("ESC-50-master"))         # None for a folder that is something else
    for row in layout.rows(base, base): ...           # Clip or LeftOut

An adapter reads what a dataset states about itself (tables, file names) and opens no audio. What it does not yield as a
clip it yields as `LeftOut`, with the reason, so that nothing goes missing unseen.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from steer_asr.errors import ManifestError
from steer_asr.manifest import Clip

AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".webm", ".mp4", ".aiff", ".wv"})
UNKNOWN_S = math.nan
"""Duration of a clip whose table states none; `durations.measured` reads it from the file's header."""
VERBATIM = "verbatim"
"""Label of speech with an exact transcript."""

HUMAN = "human"
"""Category of sounds that people make without words: laughter, crying, coughs, steps. Counted as non-speech."""
VOICES = "voices"
"""Category of non-speech with people somewhere in it: children at play, a cafe, a street singer. Published non-speech
sets hold such clips, so they count as non-speech, but a word in one may be a right answer: look at them apart."""


class DatasetError(ManifestError):
    """A folder is no dataset of a known layout, or a part of its layout is missing; the message says which."""


@dataclass(frozen=True)
class LeftOut:
    """A file that is in a dataset but not among its clips."""

    audio_path: Path
    reason: str
    split: str = ""


Row = Clip | LeftOut


class Layout(Protocol):
    """How one public dataset lies on a disk."""

    name: str
    """Short, stable: clip names and sources in the results start with it."""
    title: str
    looks_like: str
    """By what it is recognised."""
    holds: str
    """What of it is speech, what is non-speech, what is left out."""
    licence: str
    home: str

    def find(self, root: Path) -> Path | None:
        """The folder that the layout's paths are relative to: `root`, or one above it when `root` is a part such as
        `LibriSpeech/test-clean`. None when `root`, an absolute path, is something else.

        Raises `DatasetError` when it is this layout, but half of it.
        """
        ...

    def rows(self, base: Path, root: Path) -> Iterator[Row]:
        """Everything under `root`, an absolute path, in a fixed order.

        Raises `DatasetError` for a table that cannot be read.
        """
        ...


def first(root: Path, *patterns: str) -> Path | None:
    """Something that matches one of the glob patterns, if anything does."""
    return next((path for pattern in patterns for path in root.glob(pattern)), None)


def require(title: str, root: Path, parts: Mapping[str, str]) -> None:
    """Raises `DatasetError` unless each glob pattern in `parts` matches something; the values name them."""
    missing = [what for pattern, what in parts.items() if first(root, pattern) is None]
    if missing:
        raise DatasetError(f"{root} looks like {title}, but {' and '.join(missing)} is missing")


def read_table(
    path: Path, columns: tuple[str, ...], *, delimiter: str = ",", quoted: bool = True
) -> list[dict[str, str]]:
    """Rows of a CSV or TSV file with a header. Raises `DatasetError` when it cannot be read or lacks a column."""
    quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter=delimiter, quoting=quoting, restval="")
            rows = list(reader)
            absent = [column for column in columns if column not in (reader.fieldnames or ())]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path}: cannot be read as a table ({error})") from error
    if absent:
        raise DatasetError(f"{path}: has no column {', '.join(absent)}; found {', '.join(reader.fieldnames or ())}")
    return rows


def read_lines(path: Path) -> list[str]:
    """Lines that are not blank. Raises `DatasetError` when the file cannot be read."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read ({error})") from error
    return [line for line in text.split("\n") if line.strip()]


def audio_files(root: Path) -> Iterator[Path]:
    """All audio under `root` by its ending, in sorted order; hidden files and folders are passed over."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if Path(name).suffix.lower() in AUDIO_SUFFIXES and not name.startswith("."):
                yield Path(folder, name)


def nonspeech(path: Path, **about: Any) -> Clip:
    """A clip in which nobody speaks."""
    return Clip(audio_path=path, duration_s=UNKNOWN_S, text="", kind="nonspeech", **about)


def speech(path: Path, text: str, **about: Any) -> Clip:
    """A clip of speech; without `text` it has no say in the word error rate, only in what is missed."""
    return Clip(**{"audio_path": path, "duration_s": UNKNOWN_S, "text": text.strip(), "kind": "speech"} | about)


WHISPER_CODES = {"cmn": "zh", "fil": "tl", "jv": "jw", "nb": "no"}


def whisper_language(tag: str) -> str:
    """Whisper's code for a language tag: `en_us` is "en", `cmn_hans_cn` is "zh", `zh-HK` is "yue"."""
    if tag.lower() in ("zh-hk", "zh_hk"):
        return "yue"
    code = tag.lower().replace("_", "-").partition("-")[0]
    return WHISPER_CODES.get(code, code)
