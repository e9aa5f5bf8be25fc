"""Windows whose phones are known, frame by frame, as the dictionary's features see them.

    aligned = aligned_frames(windows, dictionary)
    aligned.z[7, 40], aligned.phone[7]          # activation of feature 40 on frame 7, and what is said there

Clips state their alignment in the manifest (`alignment_filepath`), or at least when somebody speaks (`speech`). Of a
store, only windows count that are one such clip as it is: in the others, things sound at other times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from sklearn.model_selection import StratifiedGroupKFold

from steer_asr._progress import Progress
from steer_asr.errors import SteerOptionError
from steer_asr.manifest import Clip
from steer_asr_training.analysis.activations import Sparse, encode_sparse
from steer_asr_training.analysis.alignments import (
    CENTRE_S,
    Alignment,
    Interval,
    frame_phones,
    read_alignment,
    tokens,
)
from steer_asr_training.analysis.inputs import Dictionary, ManifestWindows, StoredWindows

SILENCE = ""
"""Name of the silent "phone"."""


@dataclass(frozen=True, eq=False)
class AlignedFrames:
    """Frames of aligned windows, one window after the other. [frame] counts those that hear audio."""

    z: Sparse
    """float32 csr [frame, n_features]: activations."""
    phone: np.ndarray
    """int64 [frame]: index into `names`; -1 where it is not known what is said."""
    names: tuple[str, ...]
    """Phones that occur, and "" for silence, sorted."""
    token: np.ndarray
    """int64 [frame]: number of the phone token that the frame belongs to; unique over all windows."""
    start: np.ndarray
    """int64 [window + 1]: first frame of each window, and the number of frames."""
    groups: tuple[str, ...]
    """Speaker (or recording) of each window."""
    speech: tuple[tuple[tuple[float, float], ...], ...]
    """(start, end) in seconds of every stretch of speech, per window."""
    centre_s: float = 0.0
    """When the first frame of a window is centred."""

    @property
    def n_frames(self) -> int:
        return len(self.phone)

    @property
    def frame_groups(self) -> np.ndarray:
        """str [frame]."""
        return np.repeat(np.array(self.groups), np.diff(self.start))


def aligned_frames(
    windows: StoredWindows | ManifestWindows,
    dictionary: Dictionary,
    *,
    max_windows: int = 0,
    stress: bool = False,
    min_pause_s: float = 0.2,
    need_phones: bool = True,
) -> AlignedFrames:
    """Shows every aligned window to the dictionary once; at most `max_windows` of them, speakers taking turns.

    Without `need_phones`, clips count as well that only say when somebody speaks; their phones are unknown.
    Raises `SteerOptionError` without an aligned window, `ManifestError` for a broken alignment.
    """
    chosen = _taking_turns(_aligned(windows, need_phones), max_windows)
    alignments = [_alignment(clip, stress) for _, clip in chosen]
    centre_s = _centre_s(windows)
    parts, phones = [], []
    with Progress(total=len(chosen), unit="window", label="aligned windows") as progress:
        for (i, _), alignment in zip(chosen, alignments, strict=True):
            parts.append(encode_sparse(dictionary.features, windows.frames(i)))
            phones.append(frame_phones(alignment, parts[-1].shape[0], centre_s=centre_s))
            progress.advance()
    return pack_frames(
        parts,
        phones,
        groups=[windows.labels[i].group for i, _ in chosen],
        speech=[alignment.speech(min_pause_s) for alignment in alignments],
        centre_s=centre_s,
    )


def has_alignments(windows: StoredWindows | ManifestWindows) -> bool:
    """True when `aligned_frames` would find windows whose phones are known."""
    return any(clip.alignment_path is not None for _, clip in _clips(windows))


def pack_frames(
    parts: Sequence[Sparse],
    phones: Sequence[Sequence[str | None]],
    *,
    groups: Sequence[str],
    speech: Sequence[Sequence[tuple[float, float]]],
    centre_s: float = 0.0,
) -> AlignedFrames:
    """Joins windows: activations [frame, n_features] and the phone of each frame, per window."""
    names = tuple(sorted({name for window in phones for name in window if name is not None}))
    index = {name: i for i, name in enumerate(names)} | {None: -1}
    token, n_tokens = [], 0
    for window in phones:
        token.append(tokens(window) + n_tokens)
        n_tokens = int(token[-1][-1]) + 1
    return AlignedFrames(
        sparse.csr_array(sparse.vstack(parts)),
        np.array([index[name] for window in phones for name in window], np.int64),
        names,
        np.concatenate(token),
        np.concatenate([[0], np.cumsum([len(window) for window in phones])]).astype(np.int64),
        tuple(groups),
        tuple(tuple(stretches) for stretches in speech),
        centre_s,
    )


def grouped_folds(y: np.ndarray, groups: np.ndarray, n: int, seed: int = 0) -> np.ndarray:
    """int64 [row]: which of `n` folds each row is held out in. A group is in one fold; classes are dealt out evenly.

    Raises `SteerOptionError` for fewer groups than folds.
    """
    found = len(np.unique(groups))
    if n < 2 or found < n:
        raise SteerOptionError(
            f"{n} folds of {found} speakers or recordings: no group may be on both sides, so take at least 2 folds and "
            "no more than there are groups"
        )
    fold = np.empty(len(y), np.int64)
    dealer = StratifiedGroupKFold(n_splits=n, shuffle=True, random_state=seed)
    for i, (_, held) in enumerate(dealer.split(np.zeros((len(y), 1)), y, groups)):
        fold[held] = i
    return fold


def _aligned(windows: StoredWindows | ManifestWindows, need_phones: bool) -> list[tuple[int, Clip]]:
    found = [(i, c) for i, c in _clips(windows) if c.alignment_path is not None or (c.spans and not need_phones)]
    if not found:
        keys = "alignment_filepath" if need_phones else "alignment_filepath (or stretches of speech in speech)"
        raise SteerOptionError(
            f"no window has an alignment: manifests name the files in {keys}, and a store must hold such clips as they "
            "are (treatment plain), with their manifests still in place"
        )
    return found


def _alignment(clip: Clip, stress: bool) -> Alignment:
    if clip.alignment_path is not None:
        return read_alignment(clip.alignment_path, stress=stress)
    return Alignment((), tuple(Interval(span.start_s, span.end_s, span.text or "speech") for span in clip.spans))


def _clips(windows: StoredWindows | ManifestWindows) -> list[tuple[int, Clip]]:
    """Windows that are one clip from its beginning, with nothing done to it."""
    if isinstance(windows, ManifestWindows):
        return list(enumerate(windows.clips))
    if windows.clips is None:
        return []
    plain = [(i, w["clips"]) for i, w in enumerate(windows.store.windows) if w.get("treatment") == "plain"]
    return [(i, windows.clips[chosen[0]]) for i, chosen in plain if len(chosen) == 1]


def _taking_turns(found: list[tuple[int, Clip]], limit: int) -> list[tuple[int, Clip]]:
    """The first of every speaker, then the second of every speaker, and so on."""
    turn: dict[str, int] = {}
    order = []
    for i, clip in found:
        turn[clip.group] = turn.get(clip.group, 0) + 1
        order.append((turn[clip.group], i, clip))
    return [(i, clip) for _, i, clip in sorted(order, key=lambda entry: entry[:2])[: limit or None]]


def _centre_s(windows: StoredWindows | ManifestWindows) -> float:
    if isinstance(windows, ManifestWindows):
        return CENTRE_S.get(windows.encoder.front_end, 0.0)
    return CENTRE_S.get(windows.store.header.get("front_end", ""), 0.0)
