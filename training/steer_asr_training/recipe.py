"""Recipes: one YAML file says everything about how a pack is made.

    recipe = load_recipe("training/recipes/base.yaml")

Sections `collect`, `fit`, `learn` hold the fields of `CollectConfig`, `FitConfig` and `LearnConfig`; what is left out
keeps its default. An unknown field is an error, never ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml

from steer_asr.errors import SteerOptionError, unknown_name
from steer_asr_training.collect import CollectConfig
from steer_asr_training.fit import FitConfig
from steer_asr_training.learn_config import LearnConfig

Config = TypeVar("Config")


@dataclass(frozen=True)
class Recipe:
    """How one pack is made."""

    name: str
    """Name of the pack."""
    collect: CollectConfig
    fit: FitConfig
    learn: LearnConfig
    dev_manifests: tuple[str, ...] = ()
    """Held-out manifests on which the strength curve is measured."""
    calibration_windows: int = 64
    """How many held-out windows the strength curve is measured on."""
    calibration_strengths: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)


def load_recipe(path: str | Path, *, data: str | Path | None = None) -> Recipe:
    """Reads a recipe; `data` replaces `{data}` in the manifest paths.

    Raises `SteerOptionError` that names the file and the field when it is missing, broken, or has an unknown field.
    """
    content = read_yaml(path, data=data, sections="name, collect, fit, learn")
    return build(Recipe, content, f"{path}")


def read_yaml(path: str | Path, *, data: str | Path | None, sections: str) -> Mapping[str, Any]:
    """The mapping in a recipe file, `{data}` filled in; `SteerOptionError` that names the file when it holds none."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SteerOptionError(f"{path}: cannot be read as a recipe ({error})") from error
    if not isinstance(content, Mapping):
        raise SteerOptionError(f"{path}: a recipe is a mapping with {sections}")
    return _fill(content, str(data or "."))


def build(config: type[Config], content: Mapping[str, Any], where: str) -> Config:
    """A (nested) config dataclass from plain data, with errors that say where the fault is."""
    hints = get_type_hints(config)
    known = {field.name for field in fields(config)}  # pyright: ignore[reportArgumentType]
    values: dict[str, Any] = {}
    for key, value in content.items():
        if key not in known:
            raise SteerOptionError(f"{where}: {unknown_name('field', str(key), known)}")
        if is_dataclass(hints[key]) and isinstance(value, Mapping):
            value = build(hints[key], value, f"{where}: {key}")  # pyright: ignore[reportArgumentType]
        values[key] = tuple(value) if isinstance(value, list) else value
    try:
        return config(**values)
    except TypeError as error:
        raise SteerOptionError(f"{where}: {error}") from error


def _fill(value: Any, data: str) -> Any:
    if isinstance(value, str):
        return value.replace("{data}", data)
    if isinstance(value, Mapping):
        return {key: _fill(item, data) for key, item in value.items()}
    return [_fill(item, data) for item in value] if isinstance(value, list) else value
