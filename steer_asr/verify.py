"""Does a compiled directory do what the pack does live? Encoder parity, gate, texts; per compute type.

    for check in verify("base-silent", manifests=["clips.jsonl"], limit=40): print(check)

The reference is the model in torch with the live edit; for texts it is `load_model(...).transcribe(steer=...)`, and the
compiled directory is run by unmodified `faster_whisper.WhisperModel` with its default options.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np

from steer_asr.compile import Compiled, read_provenance
from steer_asr.errors import ModelError, SteerOptionError
from steer_asr.manifest import Clip, read_manifest
from steer_asr.models import ModelFiles, find_model
from steer_asr.pack import SteerPack, load_pack
from steer_asr.steering import Steering

COMPUTE_TYPES = ("float32", "int8")
CHANGED = 0.5
"""An encoder output that is off by this share was overwritten."""


@dataclass(frozen=True)
class Tolerance:
    """What counts as the same. Shares, except for what is a percentage point."""

    encoder: float
    """Relative error on speech windows beyond that of the uncompiled model in the same compute type."""
    hallucination_points: float
    wer_points: float


TOLERANCES = {"float32": Tolerance(0.03, 0.5, 0.5)}
OTHERS = Tolerance(0.03, 1.0, 1.0)


@dataclass(frozen=True)
class Check:
    """One line of the answer."""

    compute_type: str
    what: str
    measured: str
    ok: bool | None
    """None where there is nothing to hold it against."""

    def __str__(self) -> str:
        mark = {True: "ok", False: "OUT OF TOLERANCE", None: "-"}[self.ok]
        return f"{self.compute_type:<12} {self.what:<44} {self.measured:<40} {mark}"


@dataclass
class _Encodings:
    """Relative errors on windows that the live edit leaves alone, and how often both agree on who is silent."""

    compiled: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)
    agree: int = 0
    windows: int = 0


def verify(
    folder: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | None = None,
    pack: str | os.PathLike[str] | None = None,
    compute_types: Sequence[str] = COMPUTE_TYPES,
    manifests: Sequence[str | os.PathLike[str]] = (),
    limit: int | None = None,
) -> Iterator[Check]:
    """Measures `folder`, made by `compile_model`, against `model` and `pack` (the ones it was made of, if not given).

    Without manifests, on synthetic sounds, the encoder only. `limit` takes that many clips of each
    manifest, spread over it. Raises
    `PackError` for a directory that was not compiled, and `ModelError` when `model` is not the one it was made of.
    """
    made = read_provenance(folder)
    files = find_model(model or made.base_model)
    if files.sha256 != made.base_sha256:
        raise ModelError(
            f"{folder} was made of {made.base_model!r} ({made.base_sha256[:12]}...), {files.path} has "
            f"{files.sha256[:12]}...; name the right one with --model"
        )
    steer = load_pack(pack or made.pack, model_sha256=files.sha256, model_name=files.name)
    clips = [clip for manifest in manifests for clip in _spread(read_manifest(manifest), limit)]
    for compute_type in compute_types:
        if compute_type not in ctranslate2.get_supported_compute_types("cpu"):
            raise SteerOptionError(
                f"compute type {compute_type!r}: this CPU has "
                + ", ".join(sorted(ctranslate2.get_supported_compute_types("cpu")))
            )
        tolerance = TOLERANCES.get(compute_type, OTHERS)
        yield from _check_encoder(made, Path(folder), files, steer, compute_type, tolerance, clips)
        if clips:
            yield from _check_texts(made, Path(folder), files, steer, compute_type, tolerance, clips)


def _check_encoder(
    made: Compiled, folder: Path, files: ModelFiles, pack: SteerPack, compute_type: str, tolerance: Tolerance,
    clips: Sequence[Clip],
) -> Iterator[Check]:  # fmt: skip
    from steer_asr.compiling.calibration import sound
    from steer_asr.compiling.reference import Reference

    reference = Reference(files)
    ours, stock = (ctranslate2.models.Whisper(str(p), compute_type=compute_type) for p in (folder, files.path))
    sounds = (_samples(clip) for clip in clips) if clips else (sound(seed) for seed in range(12))
    seen = _Encodings()
    for samples in sounds:
        wanted, silent, weight = reference.steered(samples, pack, made.strength)
        mel = ctranslate2.StorageView.from_array(np.ascontiguousarray(reference.mel(samples)[None]))
        found, plain = (np.array(m.encode(mel), dtype=np.float32)[0] for m in (ours, stock))
        seen.windows += 1
        if made.rule == "frame":
            seen.compiled.append(_relative(found, wanted))
            seen.plain.append(_relative(plain, reference.encode(samples)[1]))
            continue
        seen.agree += (_relative(found, plain) > CHANGED) == silent
        if weight == 0:
            seen.compiled.append(_relative(found, wanted))
            seen.plain.append(_relative(plain, wanted))
    if seen.compiled:
        error, own = np.median(seen.compiled), np.median(seen.plain)
        yield Check(
            compute_type, f"encoder output, {len(seen.compiled)} windows with speech",
            f"off by {error:.2e} (uncompiled {own:.1e})", bool(error <= own + tolerance.encoder),
        )  # fmt: skip
    if made.rule == "window":
        share = seen.agree / seen.windows
        yield Check(
            compute_type, f"same windows silent, {seen.windows} windows", f"{share:.1%}", 
            bool(seen.windows - seen.agree <= max(1, 0.02 * seen.windows)),
        )  # fmt: skip


def _check_texts(
    made: Compiled, folder: Path, files: ModelFiles, pack: SteerPack, compute_type: str, tolerance: Tolerance,
    clips: Sequence[Clip],
) -> Iterator[Check]:  # fmt: skip
    from faster_whisper import WhisperModel

    from steer_asr.ct2 import SteeredWhisperModel

    compiled = WhisperModel(str(folder), device="cpu", compute_type=compute_type)
    live = SteeredWhisperModel(files, device="cpu", compute_type=compute_type)
    steering = Steering(pack=pack, strength=made.strength)
    pairs: list[tuple[Clip, list[str], list[str]]] = []
    for clip in clips:
        samples = _samples(clip)
        language = clip.lang if clip.lang and compiled.model.is_multilingual else None
        pairs.append(
            (
                clip,
                _words(compiled.transcribe(samples, language=language)),
                _words(live.transcribe(samples, language=language, steer=steering)),
            )
        )
    spoken = [p for p in pairs if p[0].kind == "speech"]
    quiet = [p for p in pairs if p[0].kind == "nonspeech"]
    if spoken:
        same = sum(ours == theirs for _, ours, theirs in spoken)
        yield Check(
            compute_type, f"same text as live, {len(spoken)} clips with speech", f"{same / len(spoken):.1%}", None
        )
        length = max(1, sum(len(_split(clip.text)) for clip, _, _ in spoken))
        rates = [100 * errors / length for errors in _word_errors(spoken)]
        yield Check(
            compute_type, f"WER, {length} words", f"{rates[0]:.2f} % compiled, {rates[1]:.2f} % live",
            rates[0] <= rates[1] + tolerance.wer_points,
        )  # fmt: skip
    if quiet:
        rates = [100 * sum(bool(p[i]) for p in quiet) / len(quiet) for i in (1, 2)]
        yield Check(
            compute_type, f"text where nobody speaks, {len(quiet)} clips",
            f"{rates[0]:.1f} % compiled, {rates[1]:.1f} % live",
            rates[0] <= rates[1] + max(tolerance.hallucination_points, 100 / len(quiet)),
        )  # fmt: skip


def _spread(clips: list[Clip], limit: int | None) -> list[Clip]:
    """`limit` clips at equal distances: manifests are often sorted by source."""
    if limit is None or limit >= len(clips):
        return clips
    return [clips[i * len(clips) // limit] for i in range(limit)]


def _samples(clip: Clip) -> np.ndarray:
    from steer_asr.audio import decode_audio

    return decode_audio(clip.audio_path)


def _words(result: tuple[Any, Any]) -> list[str]:
    return _split(" ".join(segment.text for segment in result[0]))


def _split(text: str) -> list[str]:
    """Words in lower case, without punctuation."""
    plain = unicodedata.normalize("NFKC", text).lower().replace("'", "")
    return re.findall(r"\w+", plain)


def _word_errors(pairs: Sequence[tuple[Clip, list[str], list[str]]]) -> tuple[int, int]:
    """Of the compiled and of the live texts."""
    return (
        sum(_edits(_split(clip.text), ours) for clip, ours, _ in pairs),
        sum(_edits(_split(clip.text), theirs) for clip, _, theirs in pairs),
    )


def _edits(wanted: Sequence[str], found: Sequence[str]) -> int:
    """Levenshtein distance in words."""
    row = list(range(len(found) + 1))
    for i, word in enumerate(wanted, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(found, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
    return row[-1]


def _relative(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))
