"""Steering compiled into stock CTranslate2 weights: a model directory that any faster-whisper program loads as it is.

    compile_model("base", "default", "base-silent")
    faster_whisper.WhisperModel("base-silent")          # unmodified, and steered

A pack with a gate becomes two small decoder layers that end the text of whole windows in which nobody speaks; a pack
without a gate becomes one encoder layer (`steer_asr.compiling.circuit`). What is measured at compile time needs torch
(the `[torch]` extra); the directory needs nothing but CTranslate2.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from steer_asr import __version__
from steer_asr._files import atomic_path
from steer_asr._progress import Progress
from steer_asr.audio import decode_audio
from steer_asr.compiling.circuit import check_gate, frame_local_layer, gated_layers
from steer_asr.compiling.readout import Readout, load_readout
from steer_asr.errors import OutputError, PackError, PackMismatchError, SteerOptionError
from steer_asr.hooks import OUTPUT_HOOK_POINT
from steer_asr.manifest import read_manifest
from steer_asr.models import ModelFiles, find_model
from steer_asr.pack import READOUT_FILE, STEER_FILE, SteerPack, load_pack
from steer_asr.steering import parse_steer
from steer_asr.weights.convert import SIDE_FILES, count_layers, read_json
from steer_asr.weights.ct2_format import BFLOAT16_BITS, ModelBin, float32_of, read_model_bin, stored_as, write_model_bin

PROVENANCE_FILE = "compiled.json"
SOUNDS = 6
"""Synthetic recordings on which the decoder's residual is measured, besides eight prompts each."""
FORMAT_VERSION = 2


@dataclass(frozen=True)
class Compiled:
    """What `compile_model` made; also the content of `compiled.json`."""

    base_model: str
    base_sha256: str
    pack: str
    strength: float
    rule: str
    """"window": two decoder layers, whole windows are silenced. "frame": one encoder layer, every frame is edited."""
    layers: int
    """Layers added."""
    sigma: float
    """Usual size of the residual that they add to."""
    silence: float | None
    """Probability with which the decoder then ends its text."""
    silenced: float | None
    """Share of held-out windows that the pack's gate leaves alone and the compiled one silences."""
    missed: float | None
    """Share of held-out windows that the pack's gate silences and the compiled one leaves alone."""
    steer_asr: str = __version__
    format_version: int = FORMAT_VERSION


def compile_model(
    model: str | os.PathLike[str],
    steer: Any,
    folder: str | os.PathLike[str],
    *,
    listen: Sequence[str | os.PathLike[str]] = (),
    force: bool = False,
) -> Compiled:
    """Writes `model`, steered as `steer` says (see `parse_steer`), as a CTranslate2 directory, whole or not at all.

    A pack with a gate needs its readout (`readout.safetensors`), or recordings to fit one on: `listen` names manifests
    (JSONL), with speech and without; transcripts are not used. That takes an encoder pass for each window.

    Raises `SteerOptionError` when `steer` changes nothing or asks for what weights cannot do, `PackMismatchError` when
    the pack does not fit the model or cannot be compiled, `OutputError` when `folder` exists and not `force`,
    and what `find_model`, `load_pack` and `read_manifest` raise.
    """
    folder = Path(folder)
    _refuse_existing(folder, force)
    files = find_model(model)
    if (files.path / PROVENANCE_FILE).is_file():
        raise PackMismatchError(f"{files.path} was compiled already; give the model that it was made of")
    pack, strength = _wanted(steer, files)
    source = read_model_bin(files.path / "model.bin")
    added, compiled = _build(files, source, pack, strength, listen)
    dtype = _type_on_disk(source)
    stored = {name: value if value.ndim == 0 else stored_as(value, dtype) for name, value in added.items()}
    variables = dict(sorted({**source.variables, **stored}.items()))  # as CTranslate2's converter orders them
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        _copy_side_files(files.path, temporary)
        write_model_bin(
            temporary / "model.bin", ModelBin(variables, source.aliases, source.spec_name, source.spec_revision)
        )
        if pack.path is not None:
            shutil.copyfile(pack.path / STEER_FILE, temporary / STEER_FILE)
        (temporary / PROVENANCE_FILE).write_text(json.dumps(asdict(compiled), indent=1) + "\n", encoding="utf-8")
    return compiled


def _refuse_existing(folder: Path, force: bool) -> None:
    """Only a directory that compile made is ever replaced, and only when asked to."""
    if not folder.exists() or folder.is_dir() and not any(folder.iterdir()):
        return
    if not (folder / PROVENANCE_FILE).is_file():
        raise OutputError(f"{folder} exists and was not made by compile: it is left alone")
    if not force:
        raise OutputError(f"{folder} exists; --force replaces it")


def read_provenance(folder: str | os.PathLike[str]) -> Compiled:
    """What a compiled directory was made of; raises `PackError` when it is none, or of another format version."""
    path = Path(folder) / PROVENANCE_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.get("format_version") != FORMAT_VERSION:
            raise PackError(f"{path}: format version {content.get('format_version')!r}, not {FORMAT_VERSION}")
        return Compiled(**content)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise PackError(f"{folder} was not made by steer-asr compile ({PROVENANCE_FILE}: {error})") from error


def _wanted(steer: Any, files: ModelFiles) -> tuple[SteerPack, float]:
    steering = parse_steer(steer)
    if steering is None or steering.strength == 0:
        raise SteerOptionError("steer is off, or its strength 0: the model would be the one there is already")
    if getattr(steering, "max_wer_increase", None) is not None:
        raise SteerOptionError("compile takes a strength, not max_wer: weights cannot look it up. PACK@STRENGTH")
    if steering.early_exit or steering.steer_language_detection:
        raise SteerOptionError(
            "early_exit and steer_language_detection are for the ct2 executor: programs that load the compiled model "
            "decode every window, and detect languages on what its encoder gives"
        )
    pack = steering.pack
    if not isinstance(pack, SteerPack):
        pack = load_pack(pack, model_sha256=files.sha256, model_name=files.name)
    d_model = read_model_bin(files.path / "model.bin")["encoder/layer_norm/gamma"].shape[0]
    pack.check_fits(sha256=files.sha256, model_name=files.name, d_model=d_model)
    if pack.hook_point != OUTPUT_HOOK_POINT:
        raise PackMismatchError(
            f"pack {pack.name!r} edits {pack.hook_point!r}; only packs for {OUTPUT_HOOK_POINT!r} can be compiled. "
            "load_model(..., executor='hybrid') edits at any layer"
        )
    if pack.gate is not None:
        check_gate(pack.name, pack.gate)
    return pack, steering.strength


def _build(
    files: ModelFiles, source: ModelBin, pack: SteerPack, strength: float, listen: Sequence[str | os.PathLike[str]]
) -> tuple[dict[str, np.ndarray], Compiled]:
    """The variables of the added layers."""
    from steer_asr.compiling.calibration import decoder_residual, encoder_sigma, sound
    from steer_asr.compiling.reference import Reference

    reference = Reference(files)
    silence = silenced = missed = None
    if pack.gate is None:
        norm = (float32_of(source["encoder/layer_norm/gamma"]), float32_of(source["encoder/layer_norm/beta"]))
        sigma = encoder_sigma(reference.residual)
        first, heads = count_layers(source, "encoder"), int(source["encoder/num_heads"])
        layers = list(frame_local_layer(pack, norm, sigma, strength, first, heads))
    else:
        readout = _readout(reference, pack, int(source["decoder/num_heads"]), listen)
        residual, answer = decoder_residual(reference.decoder_rows(map(sound, range(SOUNDS)))), reference.answer()
        sigma, silence = residual.sigma, answer.silence
        silenced, missed = readout.silenced, readout.missed
        layers = list(gated_layers(readout, residual, answer.direction, strength, count_layers(source, "decoder")))
    compiled = Compiled(
        files.name, files.sha256, pack.name, strength, "window" if pack.gate else "frame", len(layers), sigma,
        silence, silenced, missed,
    )  # fmt: skip
    return {name: value for layer in layers for name, value in layer.items()}, compiled


def _readout(reference: Any, pack: SteerPack, heads: int, listen: Sequence[str | os.PathLike[str]]) -> Readout:
    """That of the pack, or one fitted on recordings."""
    if not listen:
        readout = load_readout(pack)
        if readout is None:
            raise PackMismatchError(
                f"pack {pack.name!r} has a gate and no {READOUT_FILE}, which a compiled model needs instead: add it "
                "with steer-asr-train readout, or give recordings with and without speech: --listen MANIFEST"
            )
        if readout.heads != heads:
            raise PackMismatchError(
                f"pack {pack.name!r}: its {READOUT_FILE} has {readout.heads} heads, the model's decoder {heads}"
            )
        return readout
    from steer_asr.compiling.distil import Examples, fit_readout

    clips = [clip for manifest in listen for clip in read_manifest(manifest)]
    examples = Examples(pack)
    with Progress(total=len(clips), unit="clip", label="listen") as progress:
        for clip in clips:
            examples.add(reference.encode(decode_audio(clip.audio_path))[1])
            progress.advance()
    return fit_readout(examples, heads)


def _type_on_disk(source: ModelBin) -> str:
    """That of the model's own weights: CTranslate2 wants one for all."""
    dtype = source["encoder/layer_norm/gamma"].dtype
    return "bfloat16" if dtype == BFLOAT16_BITS else str(np.dtype(dtype).name)


def _copy_side_files(source: Path, target: Path) -> None:
    """Everything but the weights. The end of the text leaves the list of what may not be said first.

    Programs leave `suppress_blank` on, and with it CTranslate2 forbids `suppress_ids_begin` as the first token: a
    blank, and the end. Without timestamps that would forbid the empty answer.
    """
    for name in SIDE_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    config = read_json(source / "config.json")
    tokens = {token["content"]: int(token["id"]) for token in read_json(source / "tokenizer.json")["added_tokens"]}
    end = tokens["<|endoftext|>"]
    config["suppress_ids_begin"] = [i for i in config.get("suppress_ids_begin", []) if i != end]
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
