"""`steer-asr-train control`: a published or control method as an ordinary steer pack.

    pack = control_pack(control_config("svector"), store, find_model("base"), name="svector", match_norm=ours)
    export_control(pack, "packs/svector")

Every executor and the benchmark run it like any other pack.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from steer_asr._progress import Progress
from steer_asr.edits import Edit
from steer_asr.errors import PackError, PackMismatchError, SteerOptionError
from steer_asr.gate import Gate
from steer_asr.manifest import read_manifest
from steer_asr.models import ModelFiles
from steer_asr.pack import FRONT_END, SteerPack, save_pack
from steer_asr.sae import CFG_FILE, SaeFeatures, load_features
from steer_asr.steering import steer_frames
from steer_asr_training.controls import METHODS, ControlConfig, Shift, width
from steer_asr_training.export import provenance
from steer_asr_training.store import ActivationStore


def load_dictionary(sae: str | Path, store: ActivationStore, config: ControlConfig) -> SaeFeatures:
    """The SAE in a folder written by `fit`.

    Raises `PackError` when it cannot be read, `PackMismatchError` when it was fitted on another model, at another hook
    point, or on activations of another width than the store's.
    """
    dictionary = load_features(Path(sae))
    metadata = json.loads((Path(sae) / CFG_FILE).read_text(encoding="utf-8")).get("metadata", {})
    for key, ours in (("hook_name", config.hook_point), ("model_sha256", store.header["model_sha256"])):
        if (theirs := metadata.get(key, ours)) != ours:
            raise PackMismatchError(f"{sae} was fitted with {key} {theirs!r}, {store.folder} has {ours!r}")
    if dictionary.d_in != (d_in := width(store, config.hook_point)):
        raise PackMismatchError(
            f"{sae} is {dictionary.d_in} wide, the activations in {store.folder} are {d_in}; "
            "give the SAE that was fitted on them"
        )
    return dictionary


def control_pack(
    config: ControlConfig,
    store: ActivationStore,
    model: ModelFiles,
    *,
    name: str,
    dictionary: SaeFeatures | None = None,
    match_norm: SteerPack | None = None,
    gate_from: SteerPack | None = None,
) -> SteerPack:
    """Finds the method's vector on the store and puts it into a pack of `add` edits.

    With `match_norm`, alpha is set so that both packs change the non-speech of the store equally far: the mean over
    all its frames, padding included, of the length of the change. `gate_from` lends its gate, which then weighs the
    vector frame by frame; without one, every frame gets all of it.

    Raises `PackMismatchError` when store, packs and model do not belong together, `SteerOptionError` or
    `HookPointError` as the methods do.
    """
    _check_belongs(config, store, model, [pack for pack in (match_norm, gate_from) if pack is not None])
    shift = METHODS[config.method](config, store, dictionary, model)
    gated = _Gated(shift.feature_ids, shift.features, None) if gate_from is None else _with_gate(shift, gate_from)

    def build(alpha: float, origin: dict[str, Any]) -> SteerPack:
        edits = zip(gated.feature_ids, alpha * shift.adds.astype(np.float64), strict=False)
        return SteerPack(
            name=name,
            base_model=model.name,
            base_sha256=model.sha256,
            hook_point=config.hook_point,
            front_end=FRONT_END,
            feature_ids=gated.feature_ids,
            features=gated.features,
            edits=tuple(Edit(feature, "add", float(value)) for feature, value in edits),
            gate=gated.gate,
            provenance=origin,
        )

    target = None
    if match_norm is not None:
        quiet = [i for i, window in enumerate(store.windows) if window["kind"] == "nonspeech"]
        target = mean_change(match_norm, store, quiet)
        config = replace(config, alpha=target / mean_change(build(1.0, {}), store, quiet))
    recipe = {
        "control": asdict(config),
        "found": dict(shift.found),
        "change_per_frame": round(config.alpha * float(np.linalg.norm(shift.vector)), 6),
        "norm_matched_to": None if match_norm is None else {"pack": match_norm.name, "mean_change": target},
        "gate_from": None if gate_from is None else gate_from.name,
    }
    origin = provenance((), recipe) | {"training_data": _training_data(store, shift.windows)}
    return build(config.alpha, origin)


def mean_change(pack: SteerPack, store: ActivationStore, windows: Sequence[int]) -> float:
    """How far a pack moves a frame at strength 1: mean Euclidean length of x' - x over all frames of the windows.

    Raises `SteerOptionError` when there is no window, and when nothing moves: such a pack has no norm to match.
    """
    total, n_frames = 0.0, 0
    with Progress(total=len(windows), unit="window", label=f"measure {pack.name}") as progress:
        for i in windows:
            x = store.window(i, pack.hook_point).astype(np.float32)
            steered = x.copy()
            steer_frames(steered, pack, 1.0, store.n_real_frames(i))
            total += float(np.linalg.norm(steered - x, axis=1).sum(dtype=np.float64))
            n_frames += len(x)
            progress.advance()
    if total == 0.0:
        found = f"changes nothing on {len(windows)} windows of non-speech" if windows else "found no non-speech"
        raise SteerOptionError(f"pack {pack.name!r} {found} in {store.folder}; there is no norm to match")
    return total / n_frames


def export_control(pack: SteerPack, folder: str | Path) -> Path:
    """Writes the pack with a card that says it is a control."""
    return save_pack(pack, folder, card=control_card(pack))


@dataclass(frozen=True, eq=False)
class _Gated:
    """The features of a pack, a shift's first, and the gate that reads them."""

    feature_ids: tuple[int, ...]
    features: SaeFeatures
    gate: Gate | None


def _with_gate(shift: Shift, pack: SteerPack) -> _Gated:
    """Adds the features that the pack's gate reads. Shared ones are kept once, so they have to be the same."""
    if pack.gate is None:
        raise PackError(f"pack {pack.name!r} has no gate to lend")
    ids = list(shift.feature_ids) if shift.from_dictionary else [max(pack.feature_ids) + 1]
    own, lent = shift.features, pack.features
    coefficients = [0.0] * len(ids)
    extra: list[int] = []
    for column, feature in enumerate(pack.feature_ids):
        if not pack.gate.coefficients[column]:
            continue
        if feature not in ids:
            ids.append(feature)
            coefficients.append(float(pack.gate.coefficients[column]))
            extra.append(column)
            continue
        at = ids.index(feature)
        if not (np.allclose(own.W_enc[:, at], lent.W_enc[:, column]) and np.isclose(own.b_enc[at], lent.b_enc[column])):
            raise PackMismatchError(
                f"feature {feature} of the dictionary is not feature {feature} of pack {pack.name!r}; "
                "take the gate from a pack that was learned on this dictionary"
            )
        coefficients[at] = float(pack.gate.coefficients[column])
    features = SaeFeatures(
        np.concatenate([own.W_enc, lent.W_enc[:, extra]], axis=1),
        np.concatenate([own.b_enc, lent.b_enc[extra]]),
        np.concatenate([own.threshold, lent.threshold[extra]]),
        np.concatenate([own.W_dec, lent.W_dec[extra]]),
        own.b_dec if shift.from_dictionary else lent.b_dec,
    )
    return _Gated(tuple(ids), features, replace(pack.gate, coefficients=np.array(coefficients, np.float32)))


def _check_belongs(
    config: ControlConfig, store: ActivationStore, model: ModelFiles, packs: Sequence[SteerPack]
) -> None:
    if store.header["model_sha256"] != model.sha256:
        raise PackMismatchError(
            f"{store.folder} was collected from {store.header['model']!r} (weights "
            f"{store.header['model_sha256'][:12]}...), the model is {model.name!r} (weights {model.sha256[:12]}...)"
        )
    if (front_end := store.header.get("front_end", FRONT_END)) != FRONT_END:
        raise PackMismatchError(
            f"{store.folder} was collected behind front-end {front_end!r}; packs need {FRONT_END!r}"
        )
    d_in = width(store, config.hook_point)
    for pack in packs:
        pack.check_fits(sha256=model.sha256, model_name=model.name, d_model=d_in)
        if pack.hook_point != config.hook_point:
            raise PackMismatchError(f"pack {pack.name!r} edits {pack.hook_point!r}, the control {config.hook_point!r}")


def _training_data(store: ActivationStore, windows: Sequence[int]) -> list[dict[str, Any]]:
    """Windows per source and kind, with the licences that the store's manifests state, where they are still there."""
    counts = Counter((store.windows[i]["source"], store.windows[i]["kind"]) for i in windows)
    any_licence = not store.header.get("data", {}).get("only_shippable", False)
    licences: dict[str, set[str]] = {}
    for manifest in store.header.get("manifests", ()):
        for clip in read_manifest(manifest) if Path(manifest).is_file() else ():
            if clip.licence and (clip.shippable or any_licence):
                licences.setdefault(clip.source, set()).add(clip.licence)
    return [
        {"source": source, "kind": kind, "windows": n, "licences": sorted(licences.get(source, ()))}
        for (source, kind), n in sorted(counts.items())
    ]


DESCRIPTIONS = {
    "audiosae": "AudioSAE's steering (arXiv 2602.05027, section 3.4): {n} features with the largest coefficients of a "
    "logistic regression, each moved by alpha against the sign of its coefficient.",
    "additive": "Additive SAE steering as in arXiv 2606.07473: {n} features with the largest coefficients of a "
    "logistic regression, each moved by alpha times its mean activation against the sign of its coefficient.",
    "svector": "A steering vector: alpha times the unit vector between the mean activations of two sorts of windows.",
    "random": "A random direction, of no meaning: it shows what any change of this size does.",
}


def control_card(pack: SteerPack) -> str:
    """Markdown for `README.md`: that it is a control, of which method, found how, on what."""
    recipe = pack.provenance["recipe"]
    control, matched = recipe["control"], recipe["norm_matched_to"]
    description = DESCRIPTIONS[control["method"]].format(n=len(pack.edits))
    where = f"weighed by the gate of pack `{recipe['gate_from']}`" if pack.gate else "the same on every frame"
    size = f"as far on average as pack `{matched['pack']}`, on non-speech" if matched else "alpha as given"
    data = pack.provenance["training_data"]
    rows = "\n".join(f"| {d['source']} | {d['kind']} | {d['windows']} | {_licence(d)} |" for d in data)
    code = ", ".join(f"{name} {v}" for name, v in pack.provenance["code"].items())
    return f"""---
license: mit
library_name: steer-asr
base_model: {pack.base_model}
tags: [whisper, steering, control]
---

# Steer pack `{pack.name}`: a control

**Not for use.** This pack is a yardstick for comparisons with learned packs of Whisper `{pack.base_model}`; it may
write phantom text as before, and may damage speech.

{description} The change is added to the encoder's output, {where}; the rest of it stays as it is.

| | |
| --- | --- |
| Method | `{control["method"]}`, alpha {control["alpha"]:.6g} ({size}), seed {control["seed"]} |
| Change of a frame | {recipe["change_per_frame"]:.6g} (Euclidean length, at full weight) |
| Windows contrasted by | {f"`{control['labels']}`" if data else "nothing"} |
| Base model | `{pack.base_model}`, SHA-256 of `model.bin` `{pack.base_sha256}` |
| Hook point | `{pack.hook_point}` |
| Front-end | {pack.front_end} |
| Licence | {pack.provenance["licence"]} |
| Made with | {code} |

## Found on

| source | kind | windows | licence |
| --- | --- | --- | --- |
{rows or "| none | | | |"}
"""


def _licence(row: dict[str, Any]) -> str:
    return "; ".join(row["licences"]) or ("generated" if row["source"] == "synthetic" else "not stated")
