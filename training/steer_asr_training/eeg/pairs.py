"""Which stretch of which recording goes with which audio.

    pairs = find_pairs("Natural Speech/EEG", audio="stimuli")     # Broderick's Subject3_Run7.mat and *7.wav
    pairs = find_pairs("ds004408")                                # BIDS: events with a stim_file
    pairs = find_pairs("pairs.jsonl")                             # one pair a line

A line of a pairs file: {"eeg": path, "audio_filepath": path, "subject": "3"}, paths relative to the file. "start_s"
says where in the recording the audio begins, when the recording holds more than that; "rate_hz" is for .mat files that
do not say theirs.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steer_asr._files import write_text
from steer_asr.errors import ManifestError, SteerOptionError

AUDIO_ENDINGS = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a")
BIDS_ENDINGS = (".vhdr", ".edf", ".bdf", ".set")
BRODERICK = re.compile(r"Subject(\d+)_Run(\d+)\.mat", re.IGNORECASE)


@dataclass(frozen=True)
class Pair:
    """One trial: somebody heard an audio file."""

    eeg: Path
    audio: Path
    subject: str
    start_s: float | None = None
    """When the audio begins in the recording; None: the recording is the trial."""
    rate_hz: float | None = None
    """For a file that does not state its sampling rate."""


def find_pairs(eeg: str | Path, audio: str | Path | None = None) -> list[Pair]:
    """The pairs of a JSON Lines file, a BIDS folder, or a folder of Broderick's .mat files (with `audio`, a folder).

    Raises `ManifestError` for a broken file and where nothing pairs up, `SteerOptionError` for what is none of these.
    """
    path = Path(eeg)
    if path.is_file():
        return read_pairs(path)
    if not path.is_dir():
        raise SteerOptionError(f"{path}: there is no such file or folder; give a pairs file or a folder of recordings")
    if (path / "dataset_description.json").is_file():
        return _bids_pairs(path)
    return _broderick_pairs(path, audio)


def read_pairs(path: Path) -> list[Pair]:
    """Raises `ManifestError` that names file and line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: cannot be read as a pairs file ({error})") from error
    pairs = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                pairs.append(_pair(json.loads(line), path.parent))
            except (ValueError, TypeError, KeyError) as error:
                reason = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
                raise ManifestError(f"{path}:{number}: {reason}") from error
    if not pairs:
        raise ManifestError(f"{path}: no pair in it; one JSON object per line is expected")
    return pairs


def _pair(row: Any, folder: Path) -> Pair:
    if not isinstance(row, Mapping):
        raise TypeError("not a JSON object")
    for key in ("eeg", "audio_filepath", "subject"):
        if not isinstance(row[key], str) or not row[key]:
            raise TypeError(f"{key} must be text")
    numbers: dict[str, float | None] = {}
    for key, least in (("start_s", 0.0), ("rate_hz", 1.0)):
        value = row.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or value < least):
            raise ValueError(f"{key} {value!r} is not a number of at least {least:g}")
        numbers[key] = None if value is None else float(value)
    return Pair(folder / row["eeg"], folder / row["audio_filepath"], row["subject"], **numbers)


def write_pairs(path: Path, pairs: list[Pair]) -> None:
    """What `read_pairs` reads, with absolute paths."""
    rows = []
    for pair in pairs:
        row: dict[str, Any] = {
            "eeg": str(pair.eeg.resolve()),
            "audio_filepath": str(pair.audio.resolve()),
            "subject": pair.subject,
        }
        row |= {key: value for key in ("start_s", "rate_hz") if (value := getattr(pair, key)) is not None}
        rows.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_text(path, "".join(rows))


def _broderick_pairs(folder: Path, audio: str | Path | None) -> list[Pair]:
    """Subject3_Run7.mat goes with the audio file whose name's last number is 7."""
    files = {path: match for path in sorted(folder.rglob("*.mat")) if (match := BRODERICK.fullmatch(path.name))}
    if not files:
        raise ManifestError(
            f"{folder}: neither a BIDS folder (dataset_description.json) nor one with Subject<n>_Run<m>.mat files; "
            "describe the trials in a pairs file"
        )
    if audio is None or not Path(audio).is_dir():
        raise SteerOptionError(f"{folder} holds no audio: give the folder of the stimuli with --audio")
    stimuli: dict[int, Path] = {}
    for path in sorted(Path(audio).iterdir()):
        if path.suffix.lower() in AUDIO_ENDINGS and (numbers := re.findall(r"\d+", path.stem)):
            if other := stimuli.get(int(numbers[-1])):
                raise ManifestError(f"{other} and {path} are both stimulus {int(numbers[-1])}; write a pairs file")
            stimuli[int(numbers[-1])] = path
    pairs = []
    for path, match in files.items():
        if (run := int(match[2])) not in stimuli:
            raise ManifestError(f"{path}: no audio file of run {run} in {audio} (for example audio{run}.wav)")
        pairs.append(Pair(path, stimuli[run], match[1]))
    return sorted(pairs, key=lambda pair: (int(pair.subject), pair.audio.name, pair.eeg.name))


def _bids_pairs(root: Path) -> list[Pair]:
    """Every event whose `stim_file` is audio, at its onset."""
    pairs = []
    recordings = [path for path in sorted(root.rglob("*_eeg.*")) if path.suffix in BIDS_ENDINGS]
    for recording in recordings:
        subject = re.match(r"sub-([^_]+)_", recording.name)
        events = recording.with_name(f"{recording.stem.removesuffix('_eeg')}_events.tsv")
        if subject is None or not events.is_file():
            continue
        with events.open(encoding="utf-8-sig", newline="") as file:
            for number, row in enumerate(csv.DictReader(file, delimiter="\t"), start=2):
                stimulus = row.get("stim_file") or ""
                if Path(stimulus).suffix.lower() in AUDIO_ENDINGS:
                    pairs.append(Pair(recording, root / "stimuli" / stimulus, subject[1], _onset(row, events, number)))
    if not pairs:
        raise ManifestError(
            f"{root}: no event of its {len(recordings)} EEG recordings names an audio file in the column stim_file; "
            "describe the trials in a pairs file"
        )
    return pairs


def _onset(row: Mapping[str, str | None], events: Path, number: int) -> float:
    try:
        onset = float(row.get("onset") or "")
    except ValueError:
        onset = -1.0
    if not 0 <= onset < 1e7:
        raise ManifestError(f"{events}:{number}: onset {row.get('onset')!r} is not a time in seconds")
    return onset
