"""All layouts, and which of them a folder is.

layout, base = recognise(Path("/data/LibriSpeech/test-clean"))      # LibriSpeech, /data/LibriSpeech
"""

from __future__ import annotations

from pathlib import Path

from steer_asr_benchmarks.datasets.audioset import AudioSet
from steer_asr_benchmarks.datasets.base import DatasetError, Layout
from steer_asr_benchmarks.datasets.common_voice import CommonVoice
from steer_asr_benchmarks.datasets.demand import Demand
from steer_asr_benchmarks.datasets.esc50 import Esc50
from steer_asr_benchmarks.datasets.fleurs import Fleurs
from steer_asr_benchmarks.datasets.folder import Folder
from steer_asr_benchmarks.datasets.fsd50k import Fsd50k
from steer_asr_benchmarks.datasets.librispeech import LibriSpeech
from steer_asr_benchmarks.datasets.musan import Musan
from steer_asr_benchmarks.datasets.urbansound8k import UrbanSound8K
from steer_asr_benchmarks.datasets.wham import Wham

NAMED: tuple[Layout, ...] = (
    *(LibriSpeech(), CommonVoice(), Fleurs()),
    *(Esc50(), UrbanSound8K(), Fsd50k(), Musan(), Wham(), Demand(), AudioSet()),
)
LAYOUTS: tuple[Layout, ...] = (*NAMED, Folder())
"""The last takes any audio, so it is asked last."""


def recognise(root: Path) -> tuple[Layout, Path]:
    """The layout of `root`, an absolute path, and the folder that its paths are relative to.

    Raises `DatasetError` when it is no layout that is known, half of one, or a folder that has datasets in it: a root
    must be one dataset, so that none is taken for a heap of audio.
    """
    try:
        found = _named(root)
        if found is not None:
            return found
        inside = [(layout, path) for path in sorted(root.iterdir()) if path.is_dir() and (layout := _inside(path))]
        if inside:
            names = ", ".join(f"{path.name} ({layout})" for layout, path in inside[:5])
            raise DatasetError(f"{root} is no dataset itself, but holds some: {names}; give one of them")
        base = LAYOUTS[-1].find(root)
    except OSError as error:
        raise DatasetError(f"{root}: cannot be read ({error.strerror or error})") from error
    except DatasetError as error:
        raise DatasetError(f"{error}. {_known()}") from None
    if base is None:
        raise DatasetError(f"{root}: no dataset that is known, and no audio in it. {_known()}")
    return LAYOUTS[-1], base


def _named(root: Path) -> tuple[Layout, Path] | None:
    return next(((layout, base) for layout in NAMED if (base := layout.find(root)) is not None), None)


def _inside(path: Path) -> str:
    """What `path`, a folder in a root, is called if it is a dataset, whole or not."""
    try:
        found = _named(path)
    except DatasetError:
        return "incomplete"
    return found[0].title if found else ""


def _known() -> str:
    return f"Known layouts: {', '.join(layout.title for layout in LAYOUTS)}; `steer-asr-bench datasets` describes them"
