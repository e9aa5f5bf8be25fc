"""`steer-asr-train browse`: pages of features, from the file that `steer-asr-train features` wrote.

    browse("runs/lab-base/results/encoder.layers.3/features.json", "pages")     # open pages/index.html

Beside the table stand pages with the top windows of each feature: mel spectrogram, activation and, where it may be
passed on, sound. `ATTRIBUTION.md` names every recording that can be heard.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from steer_asr._files import atomic_path
from steer_asr.errors import SteerASRError, SteerOptionError
from steer_asr_training.analysis.inputs import Dictionary, StoredWindows, load_dictionary, stored_windows
from steer_asr_training.lab.browser_page import features_page, index_page
from steer_asr_training.lab.excerpts import CutOptions, Excerpt, cut
from steer_asr_training.lab.results import telling
from steer_asr_training.store import ActivationStore

MARK = "browser.json"
"""Says that a folder was made here, and may be made anew."""


@dataclass(frozen=True)
class BrowseOptions:
    """What is shown. Raises `SteerOptionError` for numbers that make no sense."""

    cut: CutOptions = field(default_factory=CutOptions)
    max_features: int = 0
    """Pages for so many features, those that tell a label best first; 0 is all that fire. The table has all."""
    top: int = 3
    """Excerpts per feature."""
    per_page: int = 25

    def __post_init__(self) -> None:
        if self.max_features < 0 or self.top < 1 or self.per_page < 1:
            raise SteerOptionError(
                f"max_features {self.max_features}, top {self.top}, per_page {self.per_page}: numbers of features and "
                "excerpts are positive (max_features 0 is all)"
            )


def browse(
    report: str | Path,
    out: str | Path,
    options: BrowseOptions | None = None,
    *,
    sae: str | Path | None = None,
    activations: str | Path | None = None,
) -> Path:
    """Writes the pages into the folder `out` and returns its index.

    `report` is a `features.json`; dictionary and activations are those that it names, unless given. Raises
    `SteerOptionError` when they are not there or the report is of others, and for an `out` that holds something else.
    """
    options, out, report = options or BrowseOptions(), Path(out), Path(report)
    if out.exists() and not (out / MARK).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise SteerOptionError(f"{out} is there and was not made by browse; give another folder")
    content = load_features_report(report)
    dictionary, windows = sources_of(content, report, sae, activations)
    alive = [row for row in content["features"] if row["top"]]
    chosen = chosen_features(alive, content, options.max_features)
    with atomic_path(out) as temporary:
        temporary.mkdir()
        wanted = {row["feature"]: row["top"][: options.top] for row in chosen}
        excerpts = cut(windows, dictionary, wanted, temporary, options.cut)
        _write_pages(temporary, content, alive, chosen, excerpts, options.per_page)
    return out / "index.html"


def _write_pages(
    folder: Path,
    content: Mapping[str, Any],
    alive: Sequence[Mapping[str, Any]],
    chosen: Sequence[Mapping[str, Any]],
    excerpts: Mapping[int, Sequence[Excerpt]],
    per_page: int,
) -> None:
    shards = [chosen[start : start + per_page] for start in range(0, len(chosen), per_page)]
    names = [f"features-{n:03d}.html" for n in range(len(shards))]
    links = {
        row["feature"]: f"{name}#f{row['feature']}" for name, shard in zip(names, shards, strict=True) for row in shard
    }
    title = f"Features at {content['hook_point']}"
    for n, (name, shard) in enumerate(zip(names, shards, strict=True)):
        before, after = names[n - 1] if n else None, names[n + 1] if n + 1 < len(names) else None
        page = features_page(f"{title}, page {n + 1} of {len(names)}", shard, excerpts, before=before, after=after)
        (folder / name).write_text(page, encoding="utf-8")
    heard = sum(excerpt.sound is not None for of in excerpts.values() for excerpt in of)
    shown = sum(map(len, excerpts.values()))
    facts = [
        f"{len(alive)} of {content.get('n_features', len(content['features']))} features fire somewhere in "
        f"{content['windows']} windows ({content['frames']} frames that hear audio). {len(chosen)} have a page.",
        f"{shown} excerpts, {heard} with sound. Descriptions are put together by rules from labels and acoustics; "
        "end of text is the slope of its log probability on non-speech per unit of the decoder row.",
    ]
    (folder / "index.html").write_text(index_page(title, facts, alive, links), encoding="utf-8")
    (folder / "ATTRIBUTION.md").write_text(_attribution(excerpts), encoding="utf-8")
    mark = {"dictionary": content["dictionary"], "hook_point": content["hook_point"], "features": len(chosen)}
    (folder / MARK).write_text(json.dumps(mark) + "\n", encoding="utf-8")


def _attribution(excerpts: Mapping[int, Sequence[Excerpt]]) -> str:
    """Every recording that can be heard, once."""
    credits = sorted({excerpt.credit for of in excerpts.values() for excerpt in of if excerpt.sound})
    lines = "\n".join(f"- {' '.join(credit.split())}" for credit in credits)
    return (
        f"# Recordings heard in these pages\n\nShort excerpts, as MP3. Source, file, licence:\n\n{lines or '- none'}\n"
    )


def chosen_features(
    alive: Sequence[Mapping[str, Any]], content: Mapping[str, Any], limit: int
) -> list[Mapping[str, Any]]:
    """The `limit` rows that tell a label best, or else fire most; all for 0."""
    if not limit or limit >= len(alive):
        return list(alive)
    best = [row for row in telling(content, limit) if row["top"]]
    named = {row["feature"] for row in best}
    often = sorted((r for r in alive if r["feature"] not in named), key=lambda r: (-r["fires"]["all"], r["feature"]))
    return [*best, *often][:limit]


def load_features_report(report: Path) -> dict[str, Any]:
    """A `features.json`; raises `SteerOptionError` for anything else."""
    try:
        content = json.loads(report.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SteerOptionError(
            f"{report}: cannot be read; give the features.json of steer-asr-train features ({error})"
        ) from error
    if not isinstance(content, dict) or not {"features", "dictionary", "activations", "hook_point"} <= set(content):
        raise SteerOptionError(f"{report}: no report of steer-asr-train features")
    return content


def sources_of(
    content: Mapping[str, Any], report: Path, sae: str | Path | None, activations: str | Path | None
) -> tuple[Dictionary, StoredWindows]:
    """What a report is of, where it says it is unless given; raises `SteerOptionError` when that is not it."""
    try:
        dictionary = load_dictionary(sae or content["dictionary"], content["hook_point"])
        windows = stored_windows(ActivationStore(activations or content["activations"]), dictionary)
    except SteerASRError as error:
        raise SteerOptionError(
            f"{report} is of {content['dictionary']} on {content['activations']}; where these have moved, give --sae "
            f"and --activations ({error})"
        ) from error
    ids, asked = set(dictionary.ids), {row["feature"] for row in content["features"]}
    if len(windows) != content["windows"] or not asked <= ids:
        raise SteerOptionError(
            f"{report} is of {content['windows']} windows and features up to {max(asked, default=0)}; "
            f"{windows.store.folder} holds {len(windows)} windows, the dictionary {len(ids)} features"
        )
    return dictionary, windows
