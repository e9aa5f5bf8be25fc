"""Parts a manifest of speech for run_harm.sh: `python benchmarks/harm_manifests.py SPEECH.jsonl FOLDER`.

Writes `english` (whole utterances), `other_languages` (the same), `short` (up to a second, all languages) and
`short_english`, each .jsonl, with paths relative to FOLDER. Parts without a clip are not written.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from steer_asr._files import write_text

SHORT_S = 1.0
Row = dict[str, Any]
PARTS: dict[str, Callable[[Row], bool]] = {
    "english": lambda row: row["lang"] == "en" and row["duration"] > SHORT_S,
    "other_languages": lambda row: row["lang"] != "en" and row["duration"] > SHORT_S,
    "short": lambda row: row["duration"] <= SHORT_S,
    "short_english": lambda row: row["lang"] == "en" and row["duration"] <= SHORT_S,
}
PATHS = ("audio_filepath", "alignment_filepath")


def part(manifest: Path, folder: Path) -> dict[str, int]:
    """Writes the parts of `manifest` into `folder`; returns how many clips each has."""
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines() if line.strip()]
    for row in rows:
        for key in PATHS:
            if row.get(key):
                row[key] = os.path.relpath(manifest.parent / row[key], folder)
    counts = {}
    for name, belongs in PARTS.items():
        chosen = [row for row in rows if belongs(row)]
        counts[name] = len(chosen)
        if chosen:
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in chosen)
            write_text(folder / f"{name}.jsonl", text)
    return counts


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f"usage: {Path(sys.argv[0]).name} SPEECH.jsonl FOLDER")
    print(part(Path(sys.argv[1]), Path(sys.argv[2])))  # noqa: T201  (the result of the command)
