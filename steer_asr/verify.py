"""Does a compiled directory do what the pack does live? Encoder and decoder parity, gate, texts; per compute type.

    for check in verify("base-silent", manifests=["clips.jsonl"], limit=40): print(check)

The reference is the model in torch with the live edit; for texts it is `load_model(...).transcribe(steer=...)`, and the
compiled directory is run by unmodified `faster_whisper.WhisperModel` with its default options.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np

from steer_asr import __version__
from steer_asr._files import sha256_of, write_text
from steer_asr._progress import Progress
from steer_asr.compile import Compiled, read_provenance
from steer_asr.errors import ModelError, OutputError, SteerOptionError
from steer_asr.manifest import Clip, read_manifest
from steer_asr.models import ModelFiles, find_model
from steer_asr.pack import SteerPack, load_pack
from steer_asr.steering import Steering

COMPUTE_TYPES = ("float32", "int8")
CHANGED = 0.1
"""Logits that are off by this share are the answer where nobody speaks, or a frame edited by a pack without a gate."""


@dataclass(frozen=True)
class Tolerance:
    """What counts as the same. Shares, except for what is a percentage point."""

    encoder: float
    """Relative error of the encoder's output on speech, beyond that of the uncompiled model, same compute type."""
    logits: float
    """Relative error of the decoder's first logits on speech, against the uncompiled model in the same compute type."""
    hallucination_points: float
    wer_points: float


TOLERANCES = {"float32": Tolerance(1e-4, 1e-4, 0.5, 0.05)}
OTHERS = Tolerance(1e-4, 1e-2, 1.0, 0.1)
FRAME_TOLERANCE = 0.1
"""For packs without a gate, whose edit is right to first order only."""
SAME_TEXT, SAME_WINDOWS = 0.95, 0.98
SOUNDS = 12
"""Synthetic recordings, where no others are given."""


@dataclass(frozen=True)
class Check:
    """One line of the answer."""

    compute_type: str
    what: str
    measured: str
    ok: bool | None
    """None where there is nothing to hold it against."""

    def __str__(self) -> str:
        return f"{self.compute_type:<12} {self.what:<46} {self.measured:<44} {self.verdict}"

    @property
    def verdict(self) -> str:
        return {True: "ok", False: "OUT OF TOLERANCE", None: "-"}[self.ok]


@dataclass
class _Encodings:
    """Relative errors on windows that the live edit leaves alone, and how often both agree on who is silent."""

    compiled: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)
    logits: list[float] = field(default_factory=list)
    silenced: int = 0
    missed: int = 0
    windows: int = 0

    def checks(self, compute_type: str, tolerance: Tolerance, rule: str) -> Iterator[Check]:
        if self.compiled:
            error, own = np.median(self.compiled), np.median(self.plain)
            allowed = tolerance.encoder if rule == "window" else FRAME_TOLERANCE
            yield Check(
                compute_type, f"encoder output, {len(self.compiled)} windows with speech",
                f"off by {error:.1e} (uncompiled {own:.1e})", bool(error <= own + allowed),
            )  # fmt: skip
        if self.logits:
            error = np.median(self.logits)
            yield Check(
                compute_type, f"first logits, {len(self.logits)} windows with speech",
                f"off by {error:.1e} (against uncompiled)", bool(error <= tolerance.logits),
            )  # fmt: skip
        if rule == "window":
            agree = 1 - (self.silenced + self.missed) / self.windows
            yield Check(
                compute_type, f"same windows silent, {self.windows} windows",
                f"{agree:.1%} ({self.silenced} more silent, {self.missed} fewer)",
                bool(self.silenced + self.missed <= max(1, (1 - SAME_WINDOWS) * self.windows)),
            )  # fmt: skip


def verify(
    folder: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | None = None,
    pack: str | os.PathLike[str] | None = None,
    compute_types: Sequence[str] = COMPUTE_TYPES,
    manifests: Sequence[str | os.PathLike[str]] = (),
    limit: int | None = None,
    out: str | os.PathLike[str] | None = None,
) -> Iterator[Check]:
    """Measures `folder`, made by `compile_model`, against `model` and `pack` (the ones it was made of, if not given).

    Without manifests, on synthetic sounds, the encoder and the first logits only. `limit` takes that many clips of each
    manifest, spread over it. With `out`, the table is also written to `out`.json and `out`.md, after every compute
    type; compute types that stand there already, measured alike, are not measured again.

    Raises `PackError` for a directory that was not compiled, and `ModelError` when `model` is not the one it was made
    of.
    """
    made = read_provenance(folder)
    files = find_model(model or made.base_model)
    if files.sha256 != made.base_sha256:
        raise ModelError(
            f"{folder} was made of {made.base_model!r} ({made.base_sha256[:12]}...), {files.path} has "
            f"{files.sha256[:12]}...; name the right one with --model"
        )
    steer = load_pack(pack or made.pack, model_sha256=files.sha256, model_name=files.name)
    for compute_type in compute_types:
        if compute_type not in ctranslate2.get_supported_compute_types("cpu"):
            raise SteerOptionError(
                f"compute type {compute_type!r}: this CPU has "
                + ", ".join(sorted(ctranslate2.get_supported_compute_types("cpu")))
            )
    clips = [clip for manifest in manifests for clip in _spread(read_manifest(manifest), limit)]
    table = _Table(
        None if out is None else Path(out),
        {
            "compiled": asdict(made),
            "weights_sha256": sha256_of(Path(folder) / "model.bin"),
            "pack_sha256": steer.sha256,
            "manifests": [Path(manifest).name for manifest in manifests],
            "limit": limit,
            "clips": len(clips),
            "versions": {"steer_asr": __version__, "ctranslate2": ctranslate2.__version__},
        },
    )
    for compute_type in compute_types:
        if compute_type not in table.checks:
            tolerance = TOLERANCES.get(compute_type, OTHERS)
            found = list(_check_encoder(made, Path(folder), files, steer, compute_type, tolerance, clips))
            if clips:
                found += _check_texts(made, Path(folder), files, steer, compute_type, tolerance, clips)
            table.add(compute_type, found)
        yield from table.checks[compute_type]


class _Table:
    """What was found, per compute type, on disk as JSON and Markdown where a path is given."""

    def __init__(self, path: Path | None, settings: dict[str, Any]) -> None:
        self.path, self.settings = path, settings
        self.checks: dict[str, list[Check]] = {}
        if path is not None and path.with_suffix(".json").is_file():
            try:
                before = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
                if {key: before.get(key) for key in settings} == json.loads(json.dumps(settings)):
                    for row in before["checks"]:
                        self.checks.setdefault(row["compute_type"], []).append(Check(**row))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise OutputError(
                    f"{path.with_suffix('.json')} is no table of verify ({error}): it is left alone"
                ) from error

    def add(self, compute_type: str, checks: list[Check]) -> None:
        self.checks[compute_type] = checks
        if self.path is None:
            return
        rows = [check for found in self.checks.values() for check in found]
        content = self.settings | {"checks": [asdict(check) for check in rows]}
        write_text(self.path.with_suffix(".json"), json.dumps(content, indent=1) + "\n")
        lines = ["| compute type | what | measured | |", "| --- | --- | --- | --- |"]
        lines += [f"| {c.compute_type} | {c.what} | {c.measured} | {c.verdict} |" for c in rows]
        write_text(self.path.with_suffix(".md"), "\n".join(lines) + "\n")


def _check_encoder(
    made: Compiled, folder: Path, files: ModelFiles, pack: SteerPack, compute_type: str, tolerance: Tolerance,
    clips: Sequence[Clip],
) -> Iterator[Check]:  # fmt: skip
    from steer_asr.compiling.calibration import sound
    from steer_asr.compiling.reference import Reference

    reference = Reference(files)
    ours, stock = (ctranslate2.models.Whisper(str(p), compute_type=compute_type) for p in (folder, files.path))
    prompt = [reference.tokens["<|startoftranscript|>"], reference.tokens["<|notimestamps|>"]]
    sounds = (_samples(clip) for clip in clips) if clips else (sound(seed) for seed in range(SOUNDS))
    seen = _Encodings(windows=len(clips) or SOUNDS)
    with Progress(total=seen.windows, unit="window", label=f"verify {compute_type}") as progress:
        for samples in sounds:
            wanted, silent, weight = reference.steered(samples, pack, made.strength)
            mel = ctranslate2.StorageView.from_array(np.ascontiguousarray(reference.mel(samples)[None]))
            found, plain = (m.encode(mel) for m in (ours, stock))
            if made.rule == "frame":
                seen.compiled.append(_relative(_window(found), wanted))
                seen.plain.append(_relative(_window(plain), reference.encode(samples)[1]))
            else:
                off = _relative(_first_logits(ours, found, prompt), _first_logits(stock, plain, prompt))
                seen.silenced += off > CHANGED and not silent
                seen.missed += off <= CHANGED and silent
                if weight == 0:
                    seen.compiled.append(_relative(_window(found), wanted))
                    seen.plain.append(_relative(_window(plain), wanted))
                    seen.logits.append(off)
            progress.advance()
    yield from seen.checks(compute_type, tolerance, made.rule)


def _window(encoded: Any) -> np.ndarray:
    return np.array(encoded, dtype=np.float32)[0]


def _first_logits(whisper: Any, encoded: Any, prompt: list[int]) -> np.ndarray:
    """Of the first token after `prompt`, float32 [vocabulary]."""
    options = {"beam_size": 1, "max_length": len(prompt) + 2, "suppress_blank": False, "suppress_tokens": []}
    result = whisper.generate(encoded, [prompt], return_logits_vocab=True, **options)
    return np.array(result[0].logits[0][0], dtype=np.float32)


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
    with Progress(total=len(clips), unit="clip", label=f"texts {compute_type}") as progress:
        for clip in clips:
            samples = _samples(clip)
            language = clip.lang if clip.lang and compiled.model.is_multilingual else None
            ours = _words(compiled.transcribe(samples, language=language))
            pairs.append((clip, ours, _words(live.transcribe(samples, language=language, steer=steering))))
            progress.advance(note=clip.audio_path.name)
    spoken = [p for p in pairs if p[0].kind == "speech"]
    quiet = [p for p in pairs if p[0].kind == "nonspeech"]
    if spoken:
        same = sum(ours == theirs for _, ours, theirs in spoken)
        yield Check(
            compute_type, f"same text as live, {len(spoken)} clips with speech", f"{same / len(spoken):.1%}",
            same >= SAME_TEXT * len(spoken) - 1,
        )  # fmt: skip
        length = max(1, sum(len(_split(clip.text)) for clip, _, _ in spoken))
        rates = [100 * errors / length for errors in _word_errors(spoken)]
        yield Check(
            compute_type, f"WER, {length} words", f"{rates[0]:.2f} % compiled, {rates[1]:.2f} % live",
            rates[0] <= rates[1] + max(tolerance.wer_points, 100 / length),  # one word, where a word weighs more
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
