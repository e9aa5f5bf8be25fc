"""What is known of each window: who or what sounds in it.

    labels = window_labels(store)
    labels[0].tags                      # {"kind:nonspeech", "source:esc10", "category:water", "label:rain"}
    with_tag(labels, "rain")            # bool [window]

A store keeps kind and source of its windows. Category and label come from the manifests that it was collected from,
where they are still there and still the same; without them, searches and domains do with less.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from steer_asr.errors import ManifestError, SteerOptionError, unknown_name
from steer_asr.manifest import Clip, read_manifest
from steer_asr_training.store import ActivationStore
from steer_asr_training.windows import WindowSpec

Domain = Literal["speech", "music", "sounds"]
DOMAINS: tuple[Domain, ...] = ("speech", "music", "sounds")
MUSIC = ("music", "synth")
"""Categories, and synthetic generators, that are music; every other known one is "sounds"."""
HEARD_WHOLE = ("plain", "varied", "placed")
"""Treatments in which every clip of the window is sure to be heard; in the others only the first one is."""


@dataclass(frozen=True)
class WindowLabels:
    """What is known of one window."""

    kind: str
    """"speech" or "nonspeech"; "mixed" for a recording with both."""
    tags: frozenset[str]
    """`namespace:name`, for example "label:rain"; namespaces are kind, source, category, label and generator."""
    domain: Domain | None
    """None where several sorts sound together, and where nothing says what non-speech is."""
    group: str
    """Speaker or original recording: halves of the data are split by it."""


def window_labels(store: ActivationStore, clips: Sequence[Clip] | None = None) -> list[WindowLabels]:
    """Labels of every window; `clips` are those of the store's manifests (`stored_clips`)."""
    return [_of_window(i, window, clips) for i, window in enumerate(store.windows)]


def clip_labels(clip: Clip) -> WindowLabels:
    """Labels of one whole clip."""
    tags = {f"kind:{clip.kind}"} | _clip_tags(clip)
    return WindowLabels(clip.kind, frozenset(tags), _domain(clip.kind, clip.category), clip.group)


def stored_clips(store: ActivationStore) -> list[Clip] | None:
    """The clips that a store's windows are made of; None when the manifests are gone or have changed since."""
    manifests = store.header.get("manifests", ())
    if not manifests or not all(Path(manifest).is_file() for manifest in manifests):
        return None
    try:
        clips = [clip for manifest in manifests for clip in read_manifest(manifest)]
    except ManifestError:
        return None
    return clips if all(_agrees(window, clips) for window in store.windows) else None


def window_spec(window: Mapping[str, Any]) -> WindowSpec:
    """The plan of a stored window, from which its audio can be made again."""
    names = {field.name for field in fields(WindowSpec)}
    values: dict[str, Any] = {name: value for name, value in window.items() if name in names}
    values["clips"] = tuple(values["clips"])
    return WindowSpec(**values)


def with_tag(labels: Sequence[WindowLabels], tag: str) -> np.ndarray:
    """bool [window]: which windows carry a tag of `all_tags`, as `find_tag` returns it."""
    return np.array([tag in window.tags for window in labels], bool)


def all_tags(labels: Sequence[WindowLabels]) -> list[str]:
    """Every tag that some window carries, the most frequent first."""
    counts = Counter(tag for window in labels for tag in window.tags)
    return sorted(counts, key=lambda tag: (-counts[tag], tag))


def find_tag(labels: Sequence[WindowLabels], name: str) -> str:
    """The tag that `name` means: "label:rain", or "rain" alone where no other namespace has one of that name.

    Raises `SteerOptionError` for an unknown name, with the nearest ones, and for one that several namespaces have.
    """
    tags = all_tags(labels)
    if name in tags:
        return name
    found = [tag for tag in tags if tag.partition(":")[2] == name]
    if len(found) > 1:
        raise SteerOptionError(f"label {name!r} stands for several things; give one of {', '.join(sorted(found))}")
    if not found:
        known = tags if ":" in name else [tag.partition(":")[2] for tag in tags]
        raise SteerOptionError(unknown_name("label", name, set(known)))
    return found[0]


def _of_window(i: int, window: Mapping[str, Any], clips: Sequence[Clip] | None) -> WindowLabels:
    kind, generator = window["kind"], window.get("generator", "")
    heard = _heard(window, clips)
    tags = {f"kind:{kind}", *(f"{key}:{window[key]}" for key in ("source", "category", "label") if window.get(key))}
    for clip in heard:
        tags |= _clip_tags(clip)
    if generator:
        tags.add(f"generator:{generator}")
    group = window.get("group") or f"window {i}"
    return WindowLabels(kind, frozenset(tags), _window_domain(window, clips), group)


def _heard(window: Mapping[str, Any], clips: Sequence[Clip] | None) -> list[Clip]:
    chosen = window.get("clips", ()) if clips else ()
    heard = chosen if window.get("treatment") in HEARD_WHOLE else chosen[:1]
    return [clips[i] for i in heard] if clips else []


def _window_domain(window: Mapping[str, Any], clips: Sequence[Clip] | None) -> Domain | None:
    if window.get("treatment") == "noisy":
        return None
    if not clips or not window.get("clips"):
        return _domain(window["kind"], window.get("generator") or window.get("category", ""))
    found: set[Domain | None] = {_domain(clips[i].kind, clips[i].category) for i in window["clips"]}
    return found.pop() if len(found) == 1 else None


def _domain(kind: str, category: str) -> Domain | None:
    if kind == "speech":
        return "speech"
    if kind == "mixed" or not category:
        return None
    return "music" if category in MUSIC else "sounds"


def _clip_tags(clip: Clip) -> set[str]:
    return {f"{key}:{value}" for key in ("source", "category", "label") if (value := getattr(clip, key))}


def _agrees(window: Mapping[str, Any], clips: Sequence[Clip]) -> bool:
    chosen = window.get("clips", ())
    if not chosen:
        return True
    if max(chosen) >= len(clips):
        return False
    text = " ".join(clips[i].text for i in chosen if clips[i].kind == "speech")
    return clips[chosen[0]].source == window["source"] and text == window.get("text", text)
