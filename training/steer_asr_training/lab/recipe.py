"""Recipes of the laboratory: which audio, which layers and seeds, which analyses.

    recipe = load_lab_recipe("training/recipes/lab-base.yaml", data="/data")

Options of an analysis are those of its command: `features: {top: 3}` is `steer-asr-train features --top 3`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from steer_asr.errors import SteerOptionError, unknown_name
from steer_asr_training.analysis import commands, concept_commands
from steer_asr_training.collect import CollectConfig
from steer_asr_training.fit import FitConfig
from steer_asr_training.recipe import build, read_yaml
from steer_asr_training.windows import DataConfig

ALL = "all"
COMMANDS: dict[str, Callable[..., None]] = {
    "evaluate": commands.evaluate_command,
    "stability": commands.stability_command,
    "features": commands.features_command,
    "search": commands.search_command,
    "phonemes": concept_commands.phonemes_command,
    "boundaries": concept_commands.boundaries_command,
    "probe": concept_commands.probe_command,
    "erase": concept_commands.erase_command,
}
"""The analyses, in the order in which they run."""
GIVEN = ("sae", "sae_a", "sae_b", "dictionary", "activations", "manifest", "model", "out", "hook_point")
"""Arguments that the laboratory fills in itself."""
SEVERAL = ("probe", "erase")
"""Analyses that are asked several things: a recipe may hold a list for them."""


@dataclass(frozen=True)
class Audio:
    """Recordings, and how many windows of each sort are made of them."""

    manifests: tuple[str, ...]
    data: DataConfig = field(default_factory=DataConfig)
    min_clip_s: float = 0.0
    """Leave out shorter clips. Encoding a clip of 1 s costs as much as one of 30 s, and gives a thirtieth."""
    seed: int = 0


@dataclass(frozen=True)
class LabRecipe:
    """One run of the laboratory. Raises `SteerOptionError` for settings that cannot be."""

    name: str
    model: str
    """A Whisper (name or CTranslate2 directory) or a HuBERT directory."""
    train: Audio
    """What the dictionaries are fitted on."""
    dev: Audio
    """What everything is measured on: other recordings."""
    fit: FitConfig
    hook_points: tuple[str, ...] = (ALL,)
    seeds: Mapping[int, Any] = field(default_factory=lambda: {0: [ALL]})
    """Hook points by seed; the first seed is the one that is analysed, the others tell how stable it is."""
    analyses: Mapping[str, Any] = field(default_factory=dict)
    """Options by analysis, a list of them for probe and erase; `hook_points` limits it to some layers. The order does
    not matter, and `stability` compares the first seed with every other one."""
    precision: str = "auto"

    def __post_init__(self) -> None:
        if not self.seeds or not all(isinstance(seed, int) and seed >= 0 for seed in self.seeds):
            raise SteerOptionError(f"{self.name}: seeds maps whole numbers to hook points; got {dict(self.seeds)}")
        for seed, points in self.seeds.items():
            if not isinstance(points, list | tuple) or not points:
                raise SteerOptionError(f"{self.name}: seed {seed}: give a list of hook points, or [{ALL}]")
        for analysis, options in self.analyses.items():
            if analysis not in COMMANDS:
                raise SteerOptionError(f"{self.name}: {unknown_name('analysis', str(analysis), COMMANDS)}")
            if isinstance(options, list | tuple) and analysis not in SEVERAL:
                raise SteerOptionError(f"{self.name}: {analysis} is done once, so give a mapping and not a list")
            for each in self.asked(analysis):
                _check_options(self.name, analysis, each)

    def asked(self, analysis: str) -> list[dict[str, Any]]:
        """The options of an analysis, one mapping per time that it is done; empty when it is not."""
        if analysis not in self.analyses:
            return []
        options = self.analyses[analysis]
        return [dict(each or {}) for each in (options if isinstance(options, list | tuple) else [options])]

    def points_of(self, seed: int, known: list[str]) -> list[str]:
        """Hook points at which a seed is fitted, in the order of the model."""
        return chosen(self.seeds[seed], chosen(self.hook_points, known, self.name), f"{self.name}: seed {seed}")

    def collect_config(self, audio: Audio, manifests: tuple[str, ...], points: list[str]) -> CollectConfig:
        return CollectConfig(self.model, manifests, tuple(points), audio.data, self.precision, audio.seed)


def load_lab_recipe(path: str | Path, *, data: str | Path | None = None) -> LabRecipe:
    """Reads a recipe; `data` replaces `{data}`. Raises `SteerOptionError` that names the file and the field."""
    content = read_yaml(path, data=data, sections="name, model, train, dev, fit, seeds, analyses")
    return build(LabRecipe, content, f"{path}")


def chosen(wanted: Any, known: list[str], where: str) -> list[str]:
    """The hook points that `wanted` names; raises `SteerOptionError` for one that is not there."""
    if list(wanted) == [ALL]:
        return list(known)
    for point in wanted:
        if point not in known:
            raise SteerOptionError(f"{where}: {unknown_name('hook point', str(point), known)}")
    return [point for point in known if point in wanted]


def _check_options(name: str, analysis: str, options: Mapping[str, Any]) -> None:
    parameters = inspect.signature(COMMANDS[analysis]).parameters
    known = {p for p in parameters if p not in GIVEN} | {"hook_points"}
    known |= {"splice"} if analysis == "evaluate" else set()
    for option in options:
        if option not in known:
            raise SteerOptionError(f"{name}: {analysis}: {unknown_name('option', str(option), known)}")
    if not isinstance(options.get("splice", True), bool | list | tuple):
        raise SteerOptionError(f"{name}: splice is true, false, or a list of hook points; got {options['splice']!r}")
    needed = {p for p, v in parameters.items() if v.default is inspect.Parameter.empty and p not in GIVEN}
    if missing := sorted(needed - set(options)):
        raise SteerOptionError(f"{name}: {analysis} needs {', '.join(missing)}")
