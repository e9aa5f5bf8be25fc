"""When which phone and which word is said: files of forced aligners, and labels of 20-ms frames.

    alignment = read_alignment("84-121123-0001.TextGrid")
    alignment.phones[3]                              # Interval(start_s=0.31, end_s=0.38, label="AA")
    frame_phones(alignment, n_frames=500)            # ["", "", ..., "AA", "AA"]; "" where nobody speaks

| suffix | format |
| --- | --- |
| `.TextGrid` | Praat, with a tier for phones and, if there is one, for words (Montreal Forced Aligner) |
| `.csv` | Montreal Forced Aligner: columns Begin, End, Label, Type (`words` or `phones`) |
| `.ctm` | NIST / Kaldi / NeMo: utterance, channel, start, duration, label; the labels are taken for phones |
| `.tsv` | Audacity label track: start, end, label, parted by tabs; the labels are taken for phones |
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from steer_asr.errors import ManifestError
from steer_asr_training.analysis.inputs import FRAME_S

SILENCES = frozenset({"", "sil", "sp", "<eps>", "<sil>", "silence", "pau", "h#"})
"""What aligners write where nobody speaks."""
UNKNOWN = "spn"
"""Somebody makes a noise that is no known word: neither a phone nor silence."""
TIERS = {"phones": ("phones", "phone", "phonemes"), "words": ("words", "word", "orthography")}
CENTRE_S = {"waveform": 0.0125}
"""Centre of the first frame, by front end. A Whisper frame is centred on a multiple of 20 ms (mel frames are, and both
convolutions are symmetric); a HuBERT frame sees 25 ms from there on."""


class Interval(NamedTuple):
    """A stretch of a recording and what is said in it."""

    start_s: float
    end_s: float
    label: str


@dataclass(frozen=True)
class Alignment:
    """Phones and words of a recording, in order. A label is "" where nobody speaks; `words` may be empty."""

    phones: tuple[Interval, ...]
    words: tuple[Interval, ...] = ()

    def speech(self, min_pause_s: float) -> list[tuple[float, float]]:
        """(start, end) of every stretch of speech; silences shorter than `min_pause_s` do not part two."""
        spoken = [i for i in (self.words or self.phones) if i.label]
        found: list[tuple[float, float]] = []
        for interval in spoken:
            if found and interval.start_s - found[-1][1] < min_pause_s:
                found[-1] = (found[-1][0], max(found[-1][1], interval.end_s))
            else:
                found.append((interval.start_s, interval.end_s))
        return found


def read_alignment(path: str | Path, *, stress: bool = False) -> Alignment:
    """An alignment file, by suffix. ARPAbet stress marks are dropped (AH0 and AH1 are AH) unless `stress`.

    Raises `ManifestError` for a file that is missing or broken, of an unknown format, or without a phone.
    """
    path = Path(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ManifestError(f"{path}: unknown sort of alignment; readable are {', '.join(READERS)}")
    try:
        tiers = reader(path)
    except (OSError, UnicodeError, ValueError, KeyError, IndexError) as error:
        raise ManifestError(f"{path}: cannot be read as an alignment ({error or type(error).__name__})") from error
    phones = [Interval(i.start_s, i.end_s, phone_name(i.label, stress)) for i in tiers.get("phones", ())]
    words = [Interval(i.start_s, i.end_s, phone_name(i.label, True)) for i in tiers.get("words", ())]
    for interval in (*phones, *words):
        if not 0 <= interval.start_s <= interval.end_s < 1e7:
            raise ManifestError(f"{path}: {interval.label!r} from {interval.start_s} to {interval.end_s} s is no time")
    if not any(interval.label for interval in phones):
        raise ManifestError(f"{path}: no phone in it; a tier or type named {TIERS['phones'][0]!r} is expected")
    return Alignment(tuple(sorted(phones)), tuple(sorted(words)))


def phone_name(label: str, stress: bool = False) -> str:
    """ "" for every name of silence; ARPAbet without its stress mark."""
    label = label.strip()
    if label.lower() in SILENCES:
        return ""
    return label[:-1] if not stress and len(label) > 2 and label[-1] in "012" and label[:-1].isupper() else label


def frame_phones(alignment: Alignment, n_frames: int, *, centre_s: float = 0.0) -> list[str | None]:
    """The phone at the centre of each frame, `centre_s` + 20 ms times its number: "" for silence.

    None where nothing is known: outside the aligned stretch, and in noises that the aligner gave no word.
    """
    starts = np.array([i.start_s for i in alignment.phones])
    times = centre_s + FRAME_S * np.arange(n_frames)
    at = np.searchsorted(starts, times + 1e-9, side="right") - 1
    labels: list[str | None] = []
    for i, time in zip(at, times, strict=True):
        interval = alignment.phones[i] if i >= 0 else None
        known = interval is not None and time < interval.end_s and interval.label != UNKNOWN
        labels.append(interval.label if interval is not None and known else None)
    return labels


def _textgrid(path: Path) -> dict[str, list[Interval]]:
    from praatio import textgrid
    from praatio.utilities.errors import PraatioException

    try:
        grid = textgrid.openTextgrid(str(path), includeEmptyIntervals=True)
    except (PraatioException, AttributeError, TypeError) as error:  # the last two: what it does with broken files
        raise ValueError(f"not a TextGrid: {error}") from error
    tiers: dict[str, list[Interval]] = {}
    for name in grid.tierNames:
        tier, entries = _tier(name), grid.getTier(name).entries
        if tier is not None and tier not in tiers:
            tiers[tier] = [Interval(float(start), float(end), label) for start, end, label in entries]  # pyright: ignore
    return tiers


def _csv(path: Path) -> dict[str, list[Interval]]:
    tiers: dict[str, list[Interval]] = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            tier = _tier(row["Type"])
            if tier is not None:
                tiers.setdefault(tier, []).append(Interval(float(row["Begin"]), float(row["End"]), row["Label"]))
    return tiers


def _ctm(path: Path) -> dict[str, list[Interval]]:
    rows = [line.split() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    intervals = [
        Interval(float(row[2]), float(row[2]) + float(row[3]), row[4]) for row in rows if row and row[0][:2] != ";;"
    ]
    return {"phones": intervals}


def _tsv(path: Path) -> dict[str, list[Interval]]:
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    # Audacity writes a second line, which begins with a backslash, for a label that has a range of frequencies.
    return {"phones": [Interval(float(r[0]), float(r[1]), r[2]) for r in rows if not r[0].startswith("\\")]}


def _tier(name: str) -> Literal["phones", "words"] | None:
    """Which tier a name means; the aligner writes "speaker - phones" where it knows the speaker."""
    last = name.rpartition("-")[2].strip().lower()
    return "phones" if last in TIERS["phones"] else "words" if last in TIERS["words"] else None


READERS: dict[str, Callable[[Path], dict[str, list[Interval]]]] = {
    ".textgrid": _textgrid,
    ".csv": _csv,
    ".ctm": _ctm,
    ".tsv": _tsv,
}


def tokens(phones: Sequence[str | None]) -> np.ndarray:
    """int64 [frame]: number of the run of equal labels that each frame belongs to, from 0."""
    changes = [a != b for a, b in zip(phones[1:], phones[:-1], strict=True)]
    return np.concatenate([[0], np.cumsum(changes)]).astype(np.int64) if len(phones) else np.zeros(0, np.int64)
