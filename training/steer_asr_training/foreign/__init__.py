"""Sparse autoencoders of other projects, read as ours.

    sae = load_foreign("Audio-SAE-Whisper-small/layer_6")          # what it is; nothing is decided yet
    features, report = check(sae, frames)                          # threshold and input scale, by reconstruction

One module for each format: `audiosae`, `dictionary_learning`, `sparsify`, `saelens`. What they have in common is
`ForeignSae`; `check.py` decides what a file leaves open. Nothing that a file could run is run: tensors only, with
limits on their size (`files.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from steer_asr.errors import SteerOptionError, WeightsError, unknown_name
from steer_asr_training.foreign import audiosae, dictionary_learning, saelens, sparsify
from steer_asr_training.foreign.sae import ForeignSae

FORMATS: Mapping[str, Callable[[Path], ForeignSae]] = {
    "audiosae": audiosae.load,
    "dictionary_learning": dictionary_learning.load,
    "sparsify": sparsify.load,
    "saelens": saelens.load,
}


def load_foreign(path: str | Path, format: str = "auto") -> ForeignSae:
    """Reads a folder, or the file with the weights in it, in one of `FORMATS`; "auto" goes by the names of the files.

    Raises `SteerOptionError` for an unknown format, `WeightsError` when the folder is none of them, when a file is
    broken, too large or holds more than tensors, and for kinds of dictionaries that a JumpReLU cannot stand for.
    """
    path = Path(path)
    folder = path.parent if path.is_file() else path
    if not folder.is_dir():
        raise WeightsError(f"{path}: there is no such file or folder")
    if format == "auto":
        format = _guess(folder)
    if format not in FORMATS:
        raise SteerOptionError(unknown_name("format", format, ("auto", *FORMATS)))
    return FORMATS[format](folder)


def _guess(folder: Path) -> str:
    if (folder / saelens.WEIGHTS_FILE).is_file():
        return "saelens"
    if (folder / sparsify.WEIGHTS_FILE).is_file():
        return "sparsify"
    if (folder / dictionary_learning.WEIGHTS_FILE).is_file():
        return "audiosae" if audiosae.layer_of(folder) is not None else "dictionary_learning"
    files = (saelens.WEIGHTS_FILE, sparsify.WEIGHTS_FILE, dictionary_learning.WEIGHTS_FILE)
    raise WeightsError(
        f"{folder} holds no dictionary in a format that is known: none of {', '.join(files)} is there; give the folder "
        "of one layer"
    )
