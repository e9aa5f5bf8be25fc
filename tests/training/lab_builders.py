"""A run of the laboratory on a tiny random Whisper and on sounds that anybody can make."""

from __future__ import annotations

from pathlib import Path

import yaml

from steer_asr_training.lab.recipe import LabRecipe, load_lab_recipe
from tests.training.analysis_builders import write_clips

PLAIN = {
    "varied_nonspeech": 0,
    "synthetic_nonspeech": 2,
    "noisy_speech": 0,
    "placed_speech": 0,
    "disguised_speech": 0,
    "disguised_nonspeech": 0,
    "max_music_share": 0.99,
    "only_shippable": False,
}
LAYER, POINT = "encoder.layers.1", "encoder.output"


def recipe_content(model: Path, manifest: Path) -> dict[str, object]:
    audio = {"manifests": [str(manifest)], "data": PLAIN}
    return {
        "name": "tiny",
        "model": str(model),
        "precision": "float32",
        "train": audio,
        "dev": audio | {"min_clip_s": 0.6},
        "hook_points": [LAYER, POINT],
        "fit": {"d_sae": 48, "k": 6, "k_start": 8, "steps": 30, "batch_frames": 128, "windows_in_buffer": 8},
        "seeds": {0: ["all"], 1: [POINT]},
        "analyses": {
            "evaluate": {"splice": True, "windows": 2, "hook_points": [POINT]},
            "features": {"effect_windows": 1, "top": 2},
            "search": {"best": 2},
            "phonemes": {"hook_points": [POINT]},
            "stability": {},
            "probe": {"target": "kind", "k": [1, 4, 16], "folds": 2},
        },
    }


def write_recipe(folder: Path, model: Path, **changes: object) -> Path:
    """A recipe beside the audio that it names; `changes` replace parts of it."""
    manifest = folder / "audio" / "clips.jsonl"
    if not manifest.is_file():
        manifest = write_clips(folder / "audio")
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe_content(model, manifest) | changes), encoding="utf-8")
    return path


def tiny_recipe(folder: Path, model: Path, **changes: object) -> LabRecipe:
    return load_lab_recipe(write_recipe(folder, model, **changes))
