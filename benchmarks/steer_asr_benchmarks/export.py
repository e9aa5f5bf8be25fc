"""Results in other people's formats: the Open ASR Leaderboard's JSONL manifests.

    export_open_asr(Path("results"), Path("results/open-asr"))      # from predictions.jsonl alone

One file per system, mode and source, `MODEL_steer_asr-base-steered-timestamps_DATASET_librispeech_test.clean.jsonl`, of
lines {"audio_filepath", "duration", "time", "text", "pred_text"}, in seconds and raw text: `write_manifest` and
`score_results` of huggingface/open_asr_leaderboard, `normalizer/eval_utils.py`. Its scorer normalises, and takes what
stands before the first "-" for the model's author. Only what has a say in WER goes in: speech with an exact transcript.
"""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from steer_asr._files import write_text
from steer_asr.errors import ManifestError, SteerOptionError, unknown_name
from steer_asr_benchmarks.clips import load_clips
from steer_asr_benchmarks.predictions import read_predictions
from steer_asr_benchmarks.runner import RUN_FILE, read_run
from steer_asr_benchmarks.scoring import NOT_VERBATIM

FORMATS = ("open-asr",)
AUTHOR = "steer_asr"
DATASET_NAMES = {
    f"librispeech/{part}-{kind}": f"librispeech_{part}.{kind}"
    for part in ("dev", "test")
    for kind in ("clean", "other")
}
"""Sources that the leaderboard knows by another name: "librispeech_test.clean"."""


def check_format(name: str) -> None:
    """Raises `SteerOptionError` for a format that there is not."""
    if name not in FORMATS:
        raise SteerOptionError(unknown_name("export format", name, FORMATS))


def export_open_asr(folder: Path, out: Path) -> list[Path]:
    """Writes the predictions of a run's folder to files in `out`, sorted by clip; returns them.

    `time` is null where systems shared an encoder pass, which makes it meaningless. Raises `ManifestError` when the
    predictions are broken or none is of speech with a transcript, `SteerOptionError` when two systems would get one
    name, `OutputError`.
    """
    model = (read_run(folder).get("model") or {}) if (folder / RUN_FILE).exists() else {}
    by_key: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for where, record in read_predictions(folder):
        try:
            if _counts(record["kind"], record["label"], record["reference"]):
                by_key[record["system"], record["mode"], record["source"]].append(_row(record, model))
        except (KeyError, TypeError, AttributeError) as error:
            raise ManifestError(f"{where}: not a prediction ({type(error).__name__}: {error})") from error
    if not by_key:
        raise ManifestError(f"{folder}: no predictions of speech with an exact transcript, and only they are exported")
    named: dict[str, list[dict[str, Any]]] = {}
    for (system, mode, source), rows in by_key.items():
        name = file_name(str(model.get("name") or "unknown"), system, mode, source)
        if name in named:
            raise SteerOptionError(f"two systems or sources would both be written to {name}; export them one by one")
        named[name] = sorted(rows, key=lambda row: row["audio_filepath"])
    for name, rows in named.items():
        write_text(out / name, _lines(rows))
    return [out / name for name in named]


def export_clips(sources: Sequence[str | Path], out: Path) -> int:
    """Writes the speech of manifests and dataset roots as one such manifest without predictions (`time` is null,
    `pred_text` is empty), paths relative to it; returns the number of clips.

    Raises as `load_clips`, and `ManifestError` when no clip is speech with an exact transcript.
    """
    clips = [named.clip for named in load_clips(sources)]
    rows = [
        {
            "audio_filepath": Path(os.path.relpath(clip.audio_path, out.parent)).as_posix(),
            "duration": clip.duration_s,
            "time": None,
            "text": clip.text,
            "pred_text": "",
        }
        for clip in clips
        if _counts(clip.kind, clip.label, clip.text)
    ]
    if not rows:
        raise ManifestError(
            f"none of {len(clips)} clips is speech with an exact transcript, and only they are exported"
        )
    write_text(out, _lines(rows))
    return len(rows)


def file_name(model: str, system: str, mode: str, source: str) -> str:
    """`MODEL_{author}-{model}-{system}-{mode}_DATASET_{source}.jsonl`, in characters that every file system takes."""
    dataset = DATASET_NAMES.get(source, source.replace("/", "_")) or "unknown"
    made = _plain(f"{model}-{system}-{mode}")
    return f"MODEL_{AUTHOR}-{made}_DATASET_{_plain(dataset)}.jsonl"


def _counts(kind: str, label: str, text: str) -> bool:
    return kind == "speech" and label != NOT_VERBATIM and bool(text.strip())


def _row(record: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "audio_filepath": record["clip"],
        "duration": record["duration_s"],
        "time": None if model.get("shared_encoder") else record["seconds"],
        "text": record["reference"],
        "pred_text": record["text"],
    }


def _lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


def _plain(text: str) -> str:
    return re.sub(r"[^\w.+@=-]+", "-", text)
