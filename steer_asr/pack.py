"""Steer packs: a folder with a few SAE features, what to do with them, and for which model.

    pack = load_pack("default", model_sha256="d01c30...")     # the one that was made for these weights
    pack = load_pack("hf://owner/name@v1")                    # from the Hugging Face Hub, or its cache
    save_pack(pack, "my-pack", card="# My pack ...")

| file | content |
| --- | --- |
| `steer.json` | base model and SHA-256 of its weights, hook point, front-end, feature ids, edits, gate, calibration |
| `sae_weights.safetensors`, `cfg.json` | the features, in SAELens's format |
| `README.md` | the model card |
| `strength.svg` | the strength curve, for the card; only where it was measured |
| `readout.safetensors` | the gate for compiled models (`steer_asr.compiling.readout`); only where it was fitted |
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from steer_asr._files import atomic_path
from steer_asr.edits import Edit, EditPlan
from steer_asr.errors import PackError, PackMismatchError, unknown_name
from steer_asr.gate import Gate
from steer_asr.hooks import OUTPUT_HOOK_POINT
from steer_asr.hub import Reference, fetch, is_reference
from steer_asr.sae import CFG_FILE, WEIGHTS_FILE, SaeFeatures, load_features, save_features

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
MAX_PACK_BYTES = 1_000_000
STEER_FILE, CARD_FILE, CURVE_FILE, READOUT_FILE = "steer.json", "README.md", "strength.svg", "readout.safetensors"
REQUIRED_FILES, OPTIONAL_FILES = (STEER_FILE, CFG_FILE, WEIGHTS_FILE), (CARD_FILE, CURVE_FILE, READOUT_FILE)
"""All the files of a pack; only these are fetched from the hub or pushed to it."""
FRONT_END = "faster-whisper"
"""Mel front-end with faster-whisper's padding (0.0 in normalised log-mel); transformers pads differently."""
SHIPPED = Path(__file__).parent / "packs"


@dataclass(frozen=True, eq=False)
class SteerPack:
    """One loaded steer pack."""

    name: str
    base_model: str
    """Name of the model it was made for, for people."""
    base_sha256: str
    """SHA-256 of that model's `model.bin`; this is what is checked."""
    hook_point: str
    front_end: str
    feature_ids: tuple[int, ...]
    """Ids in the full dictionary, one per column of `features`."""
    features: SaeFeatures
    edits: tuple[Edit, ...]
    gate: Gate | None = None
    compute_types: tuple[str, ...] = ("float32",)
    """Compute types it was calibrated for."""
    calibration: tuple[Mapping[str, float], ...] = ()
    """Points of the strength curve on held-out windows: strength, text_rate, newly_empty_rate, changed_words, ...
    `steer_asr.calibration` reads `max_wer_increase` off it."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Training data, licence, recipe, code version."""
    path: Path | None = None

    def __post_init__(self) -> None:
        if len(set(self.feature_ids)) != self.features.n_features:
            raise PackError(
                f"pack {self.name!r}: {len(set(self.feature_ids))} feature ids for {self.features.n_features} features"
            )
        _ = self.edit_plan  # an edit of a feature the SAE lacks is found here, not during transcription

    @cached_property
    def edit_plan(self) -> EditPlan:
        return EditPlan.build(self.edits, self.feature_ids)

    @cached_property
    def sha256(self) -> str:
        """Of what decides the pack's effect: the features' numbers, the edits, the gate, and what it is made for.

        Packs of one hash steer alike; name, card, strength curve, provenance and what the gate tells of single moments
        have no part in it.
        """
        effect = {
            "base_sha256": self.base_sha256,
            "hook_point": self.hook_point,
            "front_end": self.front_end,
            "feature_ids": self.feature_ids,
            "edits": [asdict(edit) for edit in self.edits],
            "gate": None if self.gate is None else replace(self.gate, moment_calibration=None).to_json(),
        }
        digest = hashlib.sha256(json.dumps(effect, sort_keys=True).encode())
        for array in (getattr(self.features, f.name) for f in fields(self.features)):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def check_fits(self, *, sha256: str, model_name: str, d_model: int, front_end: str = FRONT_END) -> None:
        """Raises `PackMismatchError` unless the pack was made for these weights, this width and this front-end."""
        if self.base_sha256 != sha256:
            raise PackMismatchError(
                f"pack {self.name!r} was made for {self.base_model!r} (weights {self.base_sha256[:12]}...), "
                f"the model is {model_name!r} (weights {sha256[:12]}...); use steer='default' with a model that has "
                "a pack, or learn one: steer-asr-train learn"
            )
        if self.front_end != front_end:
            raise PackMismatchError(f"pack {self.name!r} needs front-end {self.front_end!r}, this is {front_end!r}")
        if self.features.d_in != d_model:
            raise PackMismatchError(f"pack {self.name!r} is {self.features.d_in} wide, {model_name!r} is {d_model}")

    def check_output_hook(self) -> None:
        """Raises `PackMismatchError` when the pack edits inside the encoder, where CTranslate2 cannot be reached."""
        if self.hook_point != OUTPUT_HOOK_POINT:
            raise PackMismatchError(
                f"pack {self.name!r} edits {self.hook_point!r}; the ct2 executor can only edit {OUTPUT_HOOK_POINT!r}; "
                "load_model(..., executor='hybrid') edits at any layer"
            )


@dataclass(frozen=True)
class PackInfo:
    """A pack that can be named, as `steer-asr packs` lists it."""

    name: str
    path: Path
    origin: str
    """"wheel" (ships with this package) or "user" (a folder in the packs directory)."""
    base_model: str
    base_sha256: str
    features: int
    bytes: int


def pack_folders() -> dict[str, Path]:
    """Where packs are looked for by name: `{origin: folder}`. A shipped pack goes before a user's of the same name."""
    user = os.environ.get("STEER_ASR_PACKS")
    return {"wheel": SHIPPED} | ({"user": Path(user)} if user else {})


def list_packs() -> list[PackInfo]:
    """All packs that `steer=` can name, shipped ones first. A broken folder is left out, with a warning in the log."""
    found = []
    for origin, folder in pack_folders().items():
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if (path / STEER_FILE).is_file():
                try:
                    found.append(_info(path, origin))
                except PackError as error:
                    logger.warning("left out a pack: %s", error)
    return found


def _info(path: Path, origin: str) -> PackInfo:
    header = _read_header(path)
    size = sum(file.stat().st_size for file in path.iterdir() if file.is_file())
    base, features = header["base_model"], header.get("feature_ids")
    if not isinstance(features, list):
        raise PackError(f"{path / STEER_FILE}: feature_ids is missing")
    return PackInfo(path.name, path, origin, base["name"], base["sha256"], len(features), size)


def find_pack(name: str | os.PathLike[str], *, model_sha256: str | None = None, model_name: str = "") -> Path:
    """Folder of a pack by name or path; "default" is the first listed pack that was made for the given weights.

    `hf://owner/name` and `hf://owner/name@revision` are on the Hugging Face Hub: the pack's files are downloaded to its
    cache, or found there. Raises `PackError` for an unknown name (with the nearest ones) and when no pack was made for
    the model; `HubError` for what the hub does not give.
    """
    if is_reference(name):
        reference = Reference.parse(os.fspath(name))
        return fetch(reference, required=REQUIRED_FILES, optional=OPTIONAL_FILES, max_bytes=MAX_PACK_BYTES)
    packs = list_packs()
    if os.fspath(name) == "default":
        for info in packs:
            if info.base_sha256 == model_sha256:
                return info.path
        made_for = ", ".join(sorted(info.base_model for info in packs)) or "none"
        raise PackError(
            f"no default pack for {model_name or 'this model'!r} (weights {(model_sha256 or 'unknown')[:12]}...); "
            f"there are packs for: {made_for}. Learn one with steer-asr-train make, or give a pack folder"
        )
    by_name = {info.name: info.path for info in reversed(packs)}
    path = by_name.get(os.fspath(name), Path(name))
    if (path / STEER_FILE).is_file():
        return path
    if path.exists():
        raise PackError(f"{path} is not a steer pack: {STEER_FILE} is missing")
    raise PackError(unknown_name("pack", os.fspath(name), by_name))


def load_pack(
    name: str | os.PathLike[str] = "default", *, model_sha256: str | None = None, model_name: str = ""
) -> SteerPack:
    """Loads a pack by name, path or `hf://owner/name` (see `find_pack`); the last is named owner/name.

    Raises `PackError` when it is missing, corrupt, over 1 MB, of an unknown format version, or names features that
    its SAE lacks.
    """
    path = find_pack(name, model_sha256=model_sha256, model_name=model_name)
    size = sum(file.stat().st_size for file in path.iterdir() if file.is_file())
    if size > MAX_PACK_BYTES:
        raise PackError(f"{path}: {size} bytes; a steer pack has at most {MAX_PACK_BYTES}")
    header = _read_header(path)
    features = load_features(path)
    try:
        return SteerPack(
            name=Reference.parse(os.fspath(name)).repo if is_reference(name) else path.name,
            base_model=header["base_model"]["name"],
            base_sha256=header["base_model"]["sha256"],
            hook_point=header["hook_point"],
            front_end=header["front_end"],
            feature_ids=tuple(header["feature_ids"]),
            features=features,
            edits=tuple(Edit(**edit) for edit in header["edits"]),
            gate=None if header.get("gate") is None else Gate.from_json(header["gate"], features.n_features),
            compute_types=tuple(header.get("compute_types", ("float32",))),
            calibration=tuple(header.get("calibration", ())),
            provenance=header.get("provenance", {}),
            path=path,
        )
    except (KeyError, TypeError) as error:
        raise PackError(f"{path / STEER_FILE}: broken ({type(error).__name__}: {error})") from error


def most_features(d_in: int) -> int:
    """How many features of a dictionary `d_in` wide a pack has room for, beside its readout, card and curve.

    A feature has two float32 rows and its entries in the header; a readout has two rows for every 64 channels.
    """
    readout = d_in * d_in // 64 * 2 * 4
    return (MAX_PACK_BYTES - 80_000 - readout) // (2 * 4 * d_in + 200)


def pinned(name: str) -> str:
    """`name`, but a reference to the hub with the commit it stands for now, which is fetched: that cannot change later.

    Raises as `find_pack`.
    """
    if not is_reference(name):
        return name
    return str(Reference(Reference.parse(name).repo, find_pack(name).name))


def _read_header(path: Path) -> dict[str, Any]:
    file = path / STEER_FILE
    try:
        header = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PackError(f"{file}: cannot be read ({error})") from error
    version = header.get("format_version") if isinstance(header, dict) else None
    if version != FORMAT_VERSION:
        raise PackError(f"{file}: format version {version!r}, this release reads {FORMAT_VERSION}")
    if not isinstance(header.get("base_model"), dict) or not {"name", "sha256"} <= header["base_model"].keys():
        raise PackError(f"{file}: base_model must give name and sha256")
    return header


def save_pack(pack: SteerPack, folder: str | os.PathLike[str], *, card: str, picture: bytes | None = None) -> Path:
    """Writes `pack` with its model card, whole or not at all; raises `PackError` when it would exceed 1 MB.

    `picture` is the strength curve as SVG, which the card may show as `strength.svg`.
    """
    folder = Path(folder)
    header = {
        "format_version": FORMAT_VERSION,
        "base_model": {"name": pack.base_model, "sha256": pack.base_sha256},
        "hook_point": pack.hook_point,
        "front_end": pack.front_end,
        "compute_types": list(pack.compute_types),
        "feature_ids": list(pack.feature_ids),
        "edits": [asdict(edit) for edit in pack.edits],
        "gate": None if pack.gate is None else pack.gate.to_json(),
        "calibration": [dict(point) for point in pack.calibration],
        "provenance": dict(pack.provenance),
    }
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        metadata = {"hook_name": pack.hook_point, "model_name": pack.base_model, "feature_ids": list(pack.feature_ids)}
        save_features(temporary, pack.features, metadata)
        (temporary / STEER_FILE).write_text(json.dumps(header, indent=1) + "\n", encoding="utf-8")
        (temporary / CARD_FILE).write_text(card, encoding="utf-8")
        if picture is not None:
            (temporary / CURVE_FILE).write_bytes(picture)
        size = sum(file.stat().st_size for file in temporary.iterdir())
        if size > MAX_PACK_BYTES:
            raise PackError(f"the pack would have {size} bytes, at most {MAX_PACK_BYTES}; keep fewer features")
    return folder
