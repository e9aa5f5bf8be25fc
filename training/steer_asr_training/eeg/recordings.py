"""EEG in memory: read from .mat or through MNE, re-referenced, filtered, at 128 Hz, one trial at a time.

    recording = read_recording("Subject1_Run1.mat")
    trial = prepared(recording, reference="mastoids")    # trial.eeg float [sample, channel], trial.bad

Broderick's .mat files (Dryad 10.5061/dryad.070jc) hold `eegData` [sample, 128], `mastoids` [sample, 2] and `fs`; MATLAB
files before and since 7.3 are read. Everything else goes through MNE: BIDS with mne-bids, which also knows the channels
that the data set calls bad, and single files of any kind that MNE reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from steer_asr.errors import SteerOptionError, unknown_name
from steer_asr_training.eeg.signals import EegError, band_passed, resampled

BIOSEMI_128 = tuple(f"{block}{i}" for block in "ABCD" for i in range(1, 33))
BIOSEMI_NAMES = {"Cz": "A1", "Pz": "A19", "Oz": "A23", "Fpz": "C17", "Fz": "C21"}
"""Places of the 10-20 system among the 128 of BioSemi."""
MASTOIDS = (("M1", "M2"), ("TP9", "TP10"))
LOUD = 5.0
"""A channel is called bad whose standard deviation is this many times the median channel's, or as many times below."""
MIN_CHANNELS_TO_COMPARE = 8


@dataclass(frozen=True, eq=False)
class Recording:
    """One file."""

    name: str
    data: np.ndarray
    """float64 [sample, channel], in any unit."""
    channels: tuple[str, ...]
    rate_hz: float
    mastoids: np.ndarray | None
    """float64 [sample, electrode], where the file keeps them apart."""
    called_bad: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Trial:
    """What somebody's EEG did while one audio file played."""

    eeg: np.ndarray
    """float64 [sample, channel] at 128 Hz, 1 to 8 Hz."""
    channels: tuple[str, ...]
    bad: Mapping[str, str]
    """Channel to what is wrong with it."""


def read_recording(path: Path, rate_hz: float | None = None) -> Recording:
    """Raises `EegError` for a file that is missing, cannot be read, or does not say how fast it was sampled."""
    if not path.exists():
        raise EegError(f"{path}: there is no such recording")
    try:
        recording = _read_mat(path, rate_hz) if path.suffix.lower() == ".mat" else _read_with_mne(path)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, NotImplementedError) as error:
        raise EegError(f"{path}: cannot be read as EEG ({error})") from error
    if recording.data.ndim != 2 or 0 in recording.data.shape:
        raise EegError(f"{path}: EEG of shape {recording.data.shape}, expected [sample, channel]")
    if len(recording.data) < recording.data.shape[1]:
        raise EegError(f"{path}: {len(recording.data)} samples of {recording.data.shape[1]} channels: transposed?")
    return recording


def _read_mat(path: Path, rate_hz: float | None) -> Recording:
    from pymatreader import read_mat

    content = read_mat(str(path))
    if "eegData" not in content:
        names = ", ".join(name for name in content if not name.startswith("__"))
        raise EegError(f"{path}: holds no eegData (it holds {names or 'nothing'}); see docs/eeg.md for the layout")
    rate = content.get("fs", rate_hz)
    if rate is None or np.size(rate) != 1 or not np.isfinite(rate) or not 1 <= float(rate) <= 1e6:
        raise EegError(f"{path}: does not say its sampling rate (fs); give it as rate_hz in a pairs file or --rate")
    data = np.asarray(content["eegData"], np.float64)
    n = data.shape[1] if data.ndim == 2 else 0
    channels = BIOSEMI_128 if n == len(BIOSEMI_128) else tuple(f"E{i}" for i in range(1, n + 1))
    mastoids = content.get("mastoids")
    if mastoids is not None:
        mastoids = np.asarray(mastoids, np.float64).reshape(len(data), -1)
    return Recording(path.name, data, channels, float(np.squeeze(rate)), mastoids)


def _read_with_mne(path: Path) -> Recording:
    import mne

    if any((folder / "dataset_description.json").is_file() for folder in path.parents):
        from mne_bids import get_bids_path_from_fname, read_raw_bids

        raw: Any = read_raw_bids(get_bids_path_from_fname(path, verbose="ERROR"), verbose="ERROR")
    else:
        raw = mne.io.read_raw(path, verbose="ERROR")
    bad = tuple(raw.info["bads"])
    raw.load_data(verbose="ERROR").pick("eeg", exclude=())
    return Recording(path.name, raw.get_data().T, tuple(raw.ch_names), float(raw.info["sfreq"]), None, bad)


def prepared(
    recording: Recording, *, reference: str = "mastoids", start_s: float | None = None, duration_s: float | None = None
) -> Trial:
    """Re-referenced, 1 to 8 Hz, cut, at 128 Hz. `reference` is mastoids, average, none, or channels with commas.

    Channels that are flat, not finite, far louder or quieter than the rest, or that the data set calls bad are named
    in `bad`, have no part in an average reference, and stay in `eeg`. Raises `EegError` where the reference is not
    there or the trial lies outside the recording.
    """
    data, channels = _referenced(recording, reference)
    broken = np.asarray(~np.isfinite(data).all(axis=0))
    filtered = band_passed(np.where(broken, 0.0, data), recording.rate_hz)
    first = 0 if start_s is None else round(start_s * recording.rate_hz)
    last = len(data) if start_s is None or duration_s is None else first + round(duration_s * recording.rate_hz)
    cut = filtered[first:last]
    if not len(cut):
        seconds = len(data) / recording.rate_hz
        raise EegError(f"{recording.name}: the audio begins at {start_s:g} s, the recording ends at {seconds:.1f} s")
    return Trial(resampled(cut, recording.rate_hz), channels, _bad(cut, channels, broken, recording.called_bad))


def _referenced(recording: Recording, reference: str) -> tuple[np.ndarray, tuple[str, ...]]:
    data, channels = recording.data, recording.channels
    if reference == "none":
        return data, channels
    if reference == "average":
        usable = [i for i, name in enumerate(channels) if name not in recording.called_bad]
        usable = [i for i in usable if np.isfinite(data[:, i]).all() and np.ptp(data[:, i]) > 0]
        if not usable:
            raise EegError(f"{recording.name}: no channel is fit for an average reference")
        return data - data[:, usable].mean(axis=1, keepdims=True), channels
    if reference == "mastoids" and recording.mastoids is not None:
        if not np.isfinite(recording.mastoids).all():
            raise EegError(f"{recording.name}: the mastoids hold values that are not finite; try --reference average")
        return data - recording.mastoids.mean(axis=1, keepdims=True), channels
    pair = next((names for names in MASTOIDS if set(names) <= set(channels)), None)
    if reference != "mastoids":
        pair = tuple(name.strip() for name in reference.split(","))
    elif pair is None:
        raise EegError(
            f"{recording.name}: has no mastoids (M1 and M2, say); give --reference average, none or channels"
        )
    at = channel_indices(channels, pair, recording.name)
    kept = [i for i in range(len(channels)) if i not in at]
    if not kept:
        raise EegError(f"{recording.name}: every channel is part of the reference")
    return data[:, kept] - data[:, at].mean(axis=1, keepdims=True), tuple(channels[i] for i in kept)


def channel_indices(channels: Sequence[str], names: Sequence[str], recording: str) -> list[int]:
    """Where the named channels are; 10-20 names also among BioSemi's 128. Raises `SteerOptionError` for others."""
    known = {name.lower(): i for i, name in enumerate(channels)}
    if set(BIOSEMI_128) <= set(channels):
        known |= {name.lower(): channels.index(place) for name, place in BIOSEMI_NAMES.items()}
    for name in names:
        if name.lower() not in known:
            raise SteerOptionError(f"{recording}: {unknown_name('channel', name, channels)}")
    return [known[name.lower()] for name in names]


def _bad(x: np.ndarray, channels: Sequence[str], broken: np.ndarray, called: Sequence[str]) -> dict[str, str]:
    deviation = x.std(axis=0)
    usual = float(np.median(deviation[~broken])) if (~broken).any() else 0.0
    bad = {}
    for name, std, is_broken in zip(channels, deviation, broken, strict=True):
        if is_broken:
            bad[name] = "not finite"
        elif std <= 1e-9 * usual or std == 0:
            bad[name] = "flat"
        elif name in called:
            bad[name] = "called bad in the data set"
        elif len(channels) >= MIN_CHANNELS_TO_COMPARE and not usual / LOUD <= std <= usual * LOUD:
            bad[name] = f"{std / usual:.2g} times the usual level"
    return bad
