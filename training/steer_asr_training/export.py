"""`steer-asr-train export`: a learned edit to a steer pack with its model card.

export(learned, store, model, "packs/base-quiet", name="base")
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from steer_asr import __version__
from steer_asr.edits import Edit
from steer_asr.errors import PackError
from steer_asr.gate import Gate
from steer_asr.hooks import OUTPUT_HOOK_POINT
from steer_asr.manifest import Clip
from steer_asr.models import ModelFiles
from steer_asr.pack import CURVE_FILE, FRONT_END, SteerPack, save_pack
from steer_asr.sae import load_features
from steer_asr_training.curve_picture import draw_curve
from steer_asr_training.learn import Learned, select

UNCHANGED = 1e-3
"""A scale this close to 1, or an addition this close to 0, is no edit; its feature may still serve the gate."""


def load_learned(folder: str | Path, sae: str | Path) -> Learned:
    """Reads what `learn` left in `folder`; raises `PackError` when it is missing or broken."""
    path = Path(folder) / "learned.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        ids = tuple(content["feature_ids"])
        gate = Gate.from_json(content["gate"], len(ids))
        scales, adds = (np.array(content[key], np.float32) for key in ("scales", "adds"))
    except (OSError, ValueError, KeyError) as error:
        raise PackError(f"{path}: no finished learning run ({error}); run steer-asr-train learn first") from error
    return Learned(ids, scales, adds, gate, select(load_features(Path(sae)), ids))


def build_pack(
    learned: Learned, model: ModelFiles, *, name: str, provenance: dict[str, Any], calibration: Sequence[dict] = ()
) -> SteerPack:
    """A pack of `scale` and `add` edits on the encoder output, for the model it was learned on."""
    edits: list[Edit] = []
    for feature, scale, add in zip(learned.feature_ids, learned.scales, learned.adds, strict=True):
        if abs(scale - 1) > UNCHANGED:
            edits.append(Edit(feature, "scale", round(float(scale), 6)))
        if abs(add) > UNCHANGED:
            edits.append(Edit(feature, "add", round(float(add), 6)))
    return SteerPack(
        name=name,
        base_model=model.name,
        base_sha256=model.sha256,
        hook_point=OUTPUT_HOOK_POINT,
        front_end=FRONT_END,
        feature_ids=learned.feature_ids,
        features=learned.features,
        edits=tuple(edits),
        gate=learned.gate,
        calibration=tuple(calibration),
        provenance=provenance,
    )


def provenance(clips: Sequence[Clip], recipe: dict[str, Any]) -> dict[str, Any]:
    """Where a pack comes from: sources with their licences and sizes, the recipe, and the code that made it."""
    licences: dict[str, set[str]] = {}
    for clip in clips:
        licences.setdefault(clip.source, set()).add(clip.licence)
    counts = Counter((clip.source, clip.kind) for clip in clips)
    return {
        "licence": "MIT",
        "training_data": [
            {"source": source, "kind": kind, "clips": n, "licences": sorted(licences[source])}
            for (source, kind), n in sorted(counts.items())
        ],
        "recipe": recipe,
        "code": {"steer-asr": __version__} | {name: version(name) for name in ("torch", "transformers", "ctranslate2")},
    }


def export(pack: SteerPack, folder: str | Path) -> Path:
    """Writes the pack with its card, and the picture of its strength curve if it has one."""
    picture = draw_curve(pack.calibration) if pack.calibration else None
    return save_pack(pack, folder, card=model_card(pack), picture=picture)


def model_card(pack: SteerPack) -> str:
    """Markdown for `README.md`: what the pack does, for which model, learned from what, and how far to trust it."""
    data = pack.provenance.get("training_data", [])
    rows = "\n".join(f"| {d['source']} | {d['kind']} | {d['clips']} | {'; '.join(d['licences'])} |" for d in data)
    n_edited = len({edit.feature for edit in pack.edits})
    code = ", ".join(f"{name} {v}" for name, v in pack.provenance.get("code", {}).items())
    return f"""---
license: mit
library_name: steer-asr
base_model: {pack.base_model}
tags: [whisper, steering, sparse-autoencoder, hallucination]
---

# Steer pack `{pack.name}`

Keeps Whisper `{pack.base_model}` silent when nobody speaks. Edits {n_edited} of {len(pack.feature_ids)}
sparse-autoencoder features at `{pack.hook_point}`, frame by frame, where its gate hears no speech.

```python
segments, info = steer_asr.load_model("{pack.base_model}").transcribe("call.wav", steer=True)
```

| | |
| --- | --- |
| Base model | `{pack.base_model}`, SHA-256 of `model.bin` `{pack.base_sha256}` |
| Front-end | {pack.front_end} (its padding; transformers pads differently) |
| Calibrated for | {", ".join(pack.compute_types)} |
| Licence | {pack.provenance.get("licence", "see training data")} |
| Made with | {code} |

## Strength

{_strength(pack)}

## Learned from

| source | kind | clips | licence |
| --- | --- | --- | --- |
{rows}

Synthetic sounds (noise, hum, clicks, tones, music, silence) come from `steer_asr_training.synth`.

## Limits

Learned on hours, not thousands of hours, of audio; measured on the sets named in the project's benchmark. Very quiet,
very short or far speech is what to check on your own recordings before you rely on it.
"""


def _strength(pack: SteerPack) -> str:
    if not pack.calibration:
        return "No curve was measured for this pack; 1 is what it was learned for."
    curve = "\n".join(
        f"| {point['strength']:.2f} | {point['text_rate']:.1%} | {point['newly_empty_rate']:.2%} "
        f"| {point['changed_words']:.2%} |"
        for point in pack.calibration
    )
    words = [int(point["speech_words"]) for point in pack.calibration if "speech_words" in point]
    measured = f" ({max(words):,} words)" if words else ""
    return f"""\
Greedy, with and without timestamps pooled, on held-out development windows{measured}. "Changed words" counts against
stock Whisper's own text on speech, so it includes changes for the better; the word error rate rises by no more than
that on the same windows. `steer={{"max_wer_increase": 0.05}}` picks the largest strength that changes at most 5 %.

![Strength against text where nobody speaks, and changed words]({CURVE_FILE})

| strength | non-speech windows with any text | speech windows newly empty | changed words |
| --- | --- | --- | --- |
{curve}"""
