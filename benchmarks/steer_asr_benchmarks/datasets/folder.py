"""Any folder of audio: speech where `x.txt` lies beside `x.wav`, non-speech where it does not.

The text file is the transcript; an empty one says that nobody speaks. In a folder without any text files everything is
taken for NON-SPEECH: whatever is said in it will count as hallucination when it is transcribed. Where some files of a
folder have a transcript and others do not, nobody can tell what the others are, and that is an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from steer_asr_benchmarks.datasets.base import VERBATIM, DatasetError, Row, audio_files, nonspeech, read_lines, speech

SPLITS = frozenset({"train", "dev", "val", "valid", "validation", "test", "eval"})


class Folder:
    name = "folder"
    title = "folder of audio"
    looks_like = "audio files, in any folders, and nothing that another layout is known by"
    holds = (
        "speech where x.txt lies beside x.wav (its transcript; empty: nobody speaks), NON-SPEECH where there is none; "
        "split is a top folder called train, dev, test, ...; every file is a group"
    )
    licence = "unknown"
    home = ""

    def find(self, root: Path) -> Path | None:
        return root if next(audio_files(root), None) is not None else None

    def rows(self, base: Path, root: Path) -> Iterator[Row]:  # noqa: ARG002
        for folder, files in groupby(audio_files(base), key=lambda path: path.parent):
            paths = list(files)
            bare = [path for path in paths if not _transcript(path).is_file()]
            if bare and len(bare) < len(paths):
                raise DatasetError(
                    f"{folder}: {len(bare)} of {len(paths)} files have no transcript ({bare[0].name} lacks "
                    f"{_transcript(bare[0]).name}); add one, empty where nobody speaks, or move them to another folder"
                )
            for path in paths:
                text = "" if bare else " ".join(line.strip() for line in read_lines(_transcript(path)))
                yield self._row(base, path, text)

    def _row(self, base: Path, path: Path, text: str) -> Row:
        inside, source = path.relative_to(base), base.name
        about = {
            "source": source,
            "group": f"{source}/{inside.as_posix()}",
            "split": inside.parts[0] if inside.parts[0] in SPLITS else "",
        }
        if text:
            return speech(path, text, label=VERBATIM, category="utterance", **about)
        return nonspeech(path, label=inside.parent.name, category="sound", **about)


def _transcript(path: Path) -> Path:
    return path.with_suffix(".txt")
