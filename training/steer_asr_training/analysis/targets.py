"""What a probe is to tell: a label of each window, from the store or from any column of the manifests.

values = target_values(windows, "gender", manifests)        # ["f", "m", None, ...], None where it is not known
values = target_values(windows, "label:rain", manifests)    # ["rain", "other", ...]
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from steer_asr.errors import SteerOptionError, unknown_name
from steer_asr.manifest import read_manifest
from steer_asr_training.analysis.inputs import ManifestWindows, StoredWindows
from steer_asr_training.analysis.labels import HEARD_WHOLE, find_tag, with_tag

NOT_LABELS = ("audio_filepath", "alignment_filepath", "text", "duration", "speech", "clips", "seed", "offset")
MAX_CLASSES = 50
"""A column with more values names windows (a speaker, say) and does not sort them."""


def target_values(
    windows: StoredWindows | ManifestWindows, name: str, manifests: Sequence[str | Path]
) -> list[str | None]:
    """The value of every window. `name` is a column (`lang`, `treatment`, `gender`), or a tag against all else.

    A window of several clips has a value when all that are sure to be heard agree. Raises `SteerOptionError` for a name
    that nothing carries, with the nearest ones, and for a column that sorts nothing.
    """
    if ":" in name:
        tag = find_tag(windows.labels, name)
        return [tag.partition(":")[2] if carries else "other" for carries in with_tag(windows.labels, tag)]
    columns = _columns(windows, manifests)
    known = sorted({key for row in columns for key in row})
    if name not in known:
        raise SteerOptionError(unknown_name("label", name, known))
    values = [row.get(name) for row in columns]
    n_values = len(set(values) - {None})
    if not 2 <= n_values <= MAX_CLASSES:
        raise SteerOptionError(
            f"{name} has {n_values} different value(s) here; a probe tells 2 to {MAX_CLASSES} classes apart"
        )
    return values


def _columns(windows: StoredWindows | ManifestWindows, manifests: Sequence[str | Path]) -> list[dict[str, str]]:
    """Per window its label-like columns."""
    if isinstance(windows, ManifestWindows):
        return manifest_columns(manifests)
    clips = manifest_columns(manifests) if windows.clips else []
    rows = []
    for window in windows.store.windows:
        chosen = window.get("clips", ()) if clips else ()
        heard = chosen if window.get("treatment") in HEARD_WHOLE else chosen[:1]
        rows.append(_agreed([clips[i] for i in heard]) | _label_like(window))
    return rows


def manifest_columns(manifests: Sequence[str | Path]) -> list[dict[str, str]]:
    """The label-like columns of every clip, all manifests one after the other; `ManifestError` as `read_manifest`."""
    rows = []
    for manifest in manifests:
        read_manifest(manifest)  # says what is wrong with a broken line
        for line in Path(manifest).read_text(encoding="utf-8-sig").split("\n"):
            if line.strip():
                rows.append(_label_like(json.loads(line)))
    return rows


def _label_like(row: Mapping[str, Any]) -> dict[str, str]:
    """Text that is not empty, whole numbers and truth values; everything else is no class."""
    return {
        key: str(value)
        for key, value in row.items()
        if key not in NOT_LABELS and isinstance(value, str | bool | int) and value != ""
    }


def _agreed(rows: Sequence[Mapping[str, str]]) -> dict[str, str]:
    if not rows:
        return {}
    return {key: value for key, value in rows[0].items() if all(row.get(key) == value for row in rows[1:])}
