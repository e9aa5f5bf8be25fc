"""`steer-asr-train describe`: descriptions of features by a function of yours, which hears their top clips.

    narrate("features.json", lambda heard: f"{len(heard.clips)} clips", "described")
    describer = captioned(my_audio_captioner, my_language_model)     # AudioSAE's way

No model comes with it and none is called: an audio captioner, a language model, a service or a person at a keyboard is
whatever the function makes of what it is given.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from steer_asr._files import write_text
from steer_asr._progress import Progress
from steer_asr.audio import SAMPLE_RATE_HZ
from steer_asr.errors import SteerASRError, SteerOptionError
from steer_asr_training.analysis import tables
from steer_asr_training.encoders import SAMPLES_PER_FRAME
from steer_asr_training.lab.browser import chosen_features, load_features_report, sources_of
from steer_asr_training.lab.excerpts import span, wave_of

WAVES_KEPT = 32
"""Windows of sound in memory, at most 2 MB each."""
DONE_FILE = "described.json"
"""What is described so far; gone once all are."""
PROMPT = """These are captions of the short sounds on which one feature of a speech model fires most strongly:

{captions}

It fires on {share:.2%} of all frames. Statistics say: {rules}.
What do the sounds have in common? Answer with a short phrase, or with "unclear"."""


@dataclass(frozen=True, eq=False)
class HeardClip:
    """A moment at which a feature is strong."""

    wave: np.ndarray
    """float32 [n_samples] at 16 kHz."""
    peak_s: float
    """When in `wave` the feature is strongest."""
    activation: float
    labels: tuple[str, ...]
    """What the manifest says of the recording, such as "label:rain"."""
    text: str
    """What is said in the whole window; empty for non-speech."""
    origin: str


@dataclass(frozen=True, eq=False)
class HeardFeature:
    """A feature and its strongest moments, the strongest first."""

    feature: int
    hook_point: str
    share: float
    """Of frames on which it fires."""
    rules: str
    """Its description by rules, from labels and acoustics."""
    clips: tuple[HeardClip, ...]


Describer = Callable[[HeardFeature], str]


def captioned(caption: Callable[[np.ndarray], str], complete: Callable[[str], str], prompt: str = PROMPT) -> Describer:
    """AudioSAE's way: `caption` says what is heard in a waveform (float32, 16 kHz), `complete` answers a prompt.

    `prompt` may use {captions}, {share} and {rules}.
    """

    def describe(heard: HeardFeature) -> str:
        captions = "\n".join(f"- {' '.join(caption(clip.wave).split())}" for clip in heard.clips)
        return complete(prompt.format(captions=captions, share=heard.share, rules=heard.rules))

    return describe


def narrate(
    report: str | Path,
    describer: Describer,
    out: str | Path,
    *,
    max_features: int = 100,
    top: int = 3,
    seconds: float = 3.0,
    sae: str | Path | None = None,
    activations: str | Path | None = None,
) -> Path:
    """Writes `features.json` and `features.md` with descriptions by `describer`; returns the former.

    `max_features` are described, those that tell a label best first (0: all that fire), from `top` excerpts of
    `seconds` each; the others keep theirs. The description by rules stays in the field `rules`. What is described is
    kept, so that an interrupted run goes on.

    Raises `SteerOptionError` for what `describer` raises, for an answer that is no text, and as `browse` does for a
    report without its data.
    """
    if max_features < 0 or top < 1 or not 0.2 <= seconds <= 30:
        raise SteerOptionError("describe: max_features >= 0, top >= 1 and 0.2 to 30 seconds are needed")
    report, out = Path(report), Path(out)
    content = load_features_report(report)
    _, windows = sources_of(content, report, sae, activations)
    alive = [row for row in content["features"] if row["top"]]
    chosen = chosen_features(alive, content, max_features)
    done = _done_before(out / DONE_FILE, content)

    @lru_cache(WAVES_KEPT)
    def wave(i: int) -> np.ndarray | None:
        return wave_of(windows, i)

    with Progress(total=len(chosen), unit="feature", label="describe") as progress:
        for row in chosen:
            if str(row["feature"]) not in done:
                clips = [
                    _clip(moment, heard, str(windows.store.windows[moment["window"]].get("text", "")), seconds)
                    for moment in row["top"][:top]
                    if (heard := wave(moment["window"])) is not None
                ]
                done[str(row["feature"])] = _asked(describer, _heard(content["hook_point"], row, clips))
                _keep(out / DONE_FILE, content, done)
            progress.advance(note=str(row["feature"]))
    for row in content["features"]:
        if str(row["feature"]) in done:
            row |= {"rules": _rules(row), "description": done[str(row["feature"])]}
    tables.write_report(out, "features", content, tables.features_markdown(content))
    (out / DONE_FILE).unlink(missing_ok=True)
    return out / "features.json"


def load_describer(name: str) -> Any:
    """The `Describer` that MODULE:FUNCTION names; modules in the current folder are found, too.

    Raises `SteerOptionError` when there is none.
    """
    module_name, colon, function = name.partition(":")
    if not colon or not module_name or not function:
        raise SteerOptionError(f"{name!r} names no function; give MODULE:FUNCTION, for example my_captions:describe")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
        for part in function.split("."):
            found = getattr(found, part)
    except SteerASRError:
        raise
    except Exception as error:  # a module of the user's can raise anything
        raise SteerOptionError(f"{name}: cannot be loaded ({type(error).__name__}: {error})") from error
    if not callable(found):
        raise SteerOptionError(f"{name} is no function but {type(found).__name__}")
    return found


def _clip(moment: Mapping[str, Any], wave: np.ndarray, text: str, seconds: float) -> HeardClip:
    first, n = span(moment["time_s"], seconds, -(-len(wave) // SAMPLES_PER_FRAME))
    start = first * SAMPLES_PER_FRAME
    return HeardClip(
        wave=wave[start : start + n * SAMPLES_PER_FRAME],
        peak_s=moment["time_s"] - start / SAMPLE_RATE_HZ,
        activation=moment["activation"],
        labels=tuple(moment["labels"]),
        text=text,
        origin=moment["from"],
    )


def _heard(hook_point: str, row: Mapping[str, Any], clips: Sequence[HeardClip]) -> HeardFeature:
    if not clips:
        raise SteerOptionError(f"feature {row['feature']}: the audio of its top clips is not there any more")
    return HeardFeature(row["feature"], hook_point, row["fires"]["all"], _rules(row), tuple(clips))


def _rules(row: Mapping[str, Any]) -> str:
    """The description by rules, in a report that has been through here before, too."""
    return row.get("rules", row["description"])


def _asked(describer: Describer, heard: HeardFeature) -> str:
    try:
        said = describer(heard)
    except Exception as error:  # whatever it calls; what is described is kept
        raise SteerOptionError(f"feature {heard.feature}: describer raised {type(error).__name__}: {error}") from error
    if not isinstance(said, str) or not said.strip():
        raise SteerOptionError(f"feature {heard.feature}: the describer has to return a text; it returned {said!r}")
    return " ".join(said.split())


def _done_before(path: Path, content: Mapping[str, Any]) -> dict[str, str]:
    """Feature to description, of a run on the same report that was interrupted."""
    if not path.is_file():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    if found["dictionary"] != content["dictionary"] or found["activations"] != content["activations"]:
        raise SteerOptionError(f"{path} is of {found['dictionary']}; give another folder, or delete it")
    return found["described"]


def _keep(path: Path, content: Mapping[str, Any], done: Mapping[str, str]) -> None:
    kept = {"dictionary": content["dictionary"], "activations": content["activations"], "described": done}
    write_text(path, json.dumps(kept, indent=1) + "\n")
