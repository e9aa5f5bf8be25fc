"""Manifest lines of a mix: what `steer_asr.manifest` reads, and in further keys where each one comes from.

| key | meaning |
| --- | --- |
| `snr_db` | as planned; the definition stands in `levels.py` |
| `speech` | of a long recording: [start_s, end_s, text] of each utterance |
| `level_dbfs` | of the speech (active) or the noise; null is digital silence |
| `codec` | "opus:12": which, and kbit/s |
| `made_of` | the clips: manifest file and audio path |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from steer_asr_benchmarks.clips import BenchClip
from steer_asr_benchmarks.mix.plan import Copy, Item, Overlay, Recording, Stretch
from steer_asr_benchmarks.mix.recipes import Recipe
from steer_asr_benchmarks.mix.render import Rendered
from steer_asr_benchmarks.scoring import NOT_VERBATIM

ABOUT_KEYS = ("text", "kind", "label", "category", "source", "group", "lang")
COMPUTED_LICENCE = "none (computed)"


def audio_name(item: Item) -> str:
    """Path of its file inside the test set."""
    return f"audio/{item.name}.flac"


def make_row(item: Item, rendered: Rendered, recipe: Recipe, split: str) -> dict[str, Any]:
    """The manifest line of one item."""
    match item:
        case Overlay():
            parts = [item.speech, item.noise.named]
            about = _about_speech([item.speech]) | {"kind": "speech", "category": item.noise.named.clip.category}
            extra = {"snr_db": float(item.snr_db), "level_dbfs": _level(rendered)}
        case Recording():
            said = [utterance.named for utterance in item.utterances]
            parts = [*said, *item.noises]
            about = _about_speech(said) | {"kind": "mixed", "category": "long"}
            spans = [[span.start_s, span.end_s, span.text] for span in rendered.spans]
            extra = {"snr_db": float(item.snr_db), "level_dbfs": _level(rendered), "speech": spans}
        case Stretch():
            parts = [item.recorded.named] if item.recorded else []
            about = _about_stretch(item)
            extra = {"level_dbfs": _level(rendered)}
        case Copy():
            parts = [item.named]
            about = _about_copy(item.named)
            extra = _extra_of_copy(item)
    about["source"] = f"mix/{recipe.name}/{about['source']}"
    return {
        "audio_filepath": audio_name(item),
        "duration": round(rendered.duration_s, 4),
        **{key: about[key] for key in ABOUT_KEYS},
        "split": split or "test",
        "licence": "; ".join(_unique(part.clip.licence for part in parts)) if parts else COMPUTED_LICENCE,
        "shippable": all(part.clip.shippable for part in parts),
        **extra,
        "made_of": _unique(part.id for part in parts),
    }


def _about_speech(said: Sequence[BenchClip]) -> dict[str, Any]:
    clips = [named.clip for named in said]
    inexact = any(clip.label == NOT_VERBATIM for clip in clips)
    return {
        "text": " ".join(clip.text for clip in clips if clip.text),
        "label": NOT_VERBATIM if inexact else clips[0].label,
        "source": clips[0].source,
        "group": clips[0].group,
        "lang": clips[0].lang,
    }


def _about_stretch(item: Stretch) -> dict[str, Any]:
    """Computed sounds of one sort are one group: as many lengths as one likes are still one sound."""
    about = {"text": "", "kind": "nonspeech", "lang": ""}
    if item.recorded is None:
        kind = "silence" if item.sound == "digital_silence" else "noise"
        return about | {"label": item.sound, "category": kind, "source": item.sound, "group": f"mix/{item.sound}"}
    clip = item.recorded.named.clip
    return about | {"label": clip.label, "category": clip.category, "source": clip.source, "group": clip.group}


def _about_copy(named: BenchClip) -> dict[str, Any]:
    return {key: getattr(named.clip, key) for key in ABOUT_KEYS}


def _extra_of_copy(item: Copy) -> dict[str, Any]:
    clip = item.named.clip
    extra: dict[str, Any] = {} if item.codec is None else {"codec": str(item.codec)}
    if clip.snr_db is not None:
        extra["snr_db"] = clip.snr_db
    if clip.spans:
        extra["speech"] = [[span.start_s, span.end_s, span.text] for span in clip.spans]
    return extra


def _level(rendered: Rendered) -> float | None:
    return None if rendered.level_dbfs is None else round(rendered.level_dbfs, 2)


def _unique(values: Any) -> list[str]:
    return [value for value in dict.fromkeys(values) if value]
