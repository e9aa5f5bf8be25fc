"""MUSAN (Snyder et al. 2015): music, noise and speech; any of the three folders will do.

Music goes by `ANNOTATIONS` ("CLIP GENRES VOCALS ARTIST"): with vocals, or without a line, it is left out. Speech has no
transcript, only a language, so it counts for what is missed and not for word errors. Noise has no intelligible speech
in it, says the paper, but some crowds.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from steer_asr_benchmarks.datasets.base import LeftOut, Row, first, nonspeech, read_lines, require, speech

PARTS = ("music", "noise", "speech")
LANGUAGES = {
    "arabic": "ar",
    "chinese": "zh",
    "danish": "da",
    "dutch": "nl",
    "english": "en",
    "french": "fr",
    "german": "de",
    "hebrew": "he",
    "hungarian": "hu",
    "italian": "it",
    "japanese": "ja",
    "latin": "la",
    "polish": "pl",
    "portuguese": "pt",
    "russian": "ru",
    "spanish": "es",
    "tagalog": "tl",
}


class Musan:
    name = "musan"
    title = "MUSAN"
    looks_like = "music/, noise/ or speech/ with SOURCE/PART-SOURCE-0000.wav; music/SOURCE/ANNOTATIONS"
    holds = (
        "splits music, noise, speech: noise and music without vocals are non-speech, music with vocals or without "
        "annotation is left out, speech has no transcript (not in WER)"
    )
    licence = "CC BY 4.0 as a whole; LICENSE files state each source's"
    home = "https://www.openslr.org/17"

    def find(self, root: Path) -> Path | None:
        if root.name in PARTS and first(root, f"*/{root.name}-*.wav") is not None:
            base, parts = root.parent, [root.name]
        else:
            base, parts = root, [part for part in PARTS if first(root, f"{part}/*/{part}-*.wav") is not None]
        if not parts:
            return None
        if "music" in parts:
            require(self.title, base, {"music/*/ANNOTATIONS": "music/SOURCE/ANNOTATIONS (who sings)"})
        return base

    def rows(self, base: Path, root: Path) -> Iterator[Row]:
        for part in PARTS if root == base else [root.name]:
            for folder in sorted(path for path in (base / part).glob("*") if path.is_dir()):
                notes = _annotations(folder)
                for path in sorted(folder.glob("*.wav")):
                    yield self._row(part, path, notes.get(path.stem, []))

    def _row(self, part: str, path: Path, note: list[str]) -> Row:
        about = {"source": f"{self.name}/{part}", "split": part, "licence": "CC BY 4.0"}
        own_group = f"{self.name}/{path.stem}"
        match part, note:
            case "music", [genres, "N", *artist]:
                group = f"{self.name}/{artist[0]}" if artist else own_group
                return nonspeech(path, label=genres, category="music", group=group, **about)
            case "music", [_, "Y", *_]:
                return LeftOut(path, "music with vocals", part)
            case "music", _:
                return LeftOut(path, "music without an annotation on vocals", part)
            case "speech", _:
                language = LANGUAGES.get(note[1].lower(), "") if len(note) > 1 else ""
                return speech(
                    path, "", label="no transcript", category="speech", group=own_group, lang=language, **about
                )
            case _:
                return nonspeech(path, label=path.parent.name, category="noise", group=own_group, **about)


def _annotations(folder: Path) -> dict[str, list[str]]:
    """Fields of each clip's line, its name taken off."""
    path = folder / "ANNOTATIONS"
    lines = [line.split() for line in read_lines(path)] if path.is_file() else []
    return {name: fields for name, *fields in lines}
