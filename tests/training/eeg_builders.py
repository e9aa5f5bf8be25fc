"""Recordings on disk whose content is known: Broderick's .mat layout and a small BIDS folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.io import savemat


def write_mat(path: Path, eeg: np.ndarray, mastoids: np.ndarray | None = None, fs: float | None = 128.0) -> Path:
    """`eeg` is [sample, channel]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content: dict[str, object] = {"eegData": eeg}
    if mastoids is not None:
        content["mastoids"] = mastoids
    if fs is not None:
        content["fs"] = fs
    savemat(path, content)
    return path


def write_brainvision(path: Path, eeg: np.ndarray, names: Sequence[str], rate_hz: float) -> Path:
    """`path` ends in .vhdr; `eeg` is [sample, channel] in microvolts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data, markers = path.with_suffix(".eeg"), path.with_suffix(".vmrk")
    data.write_bytes(eeg.astype("<f4").tobytes())
    start = "Brain Vision Data Exchange {} File, Version 1.0\n\n[Common Infos]\nCodepage=UTF-8\n"
    channels = "".join(f"Ch{i}={name},,1,µV\n" for i, name in enumerate(names, start=1))
    path.write_text(
        start.format("Header")
        + f"DataFile={data.name}\nMarkerFile={markers.name}\nDataFormat=BINARY\nDataOrientation=MULTIPLEXED\n"
        f"NumberOfChannels={len(names)}\nSamplingInterval={1e6 / rate_hz:g}\n\n[Binary Infos]\n"
        f"BinaryFormat=IEEE_FLOAT_32\n\n[Channel Infos]\n{channels}",
        encoding="utf-8",
    )
    markers.write_text(
        start.format("Marker")
        + f"DataFile={data.name}\n\n[Marker Infos]\nMk1=New Segment,,1,1,0,20200101000000000000\n",
        encoding="utf-8",
    )
    return path


def write_bids(
    root: Path,
    eeg: np.ndarray,
    names: Sequence[str],
    rate_hz: float,
    events: Sequence[tuple[float, str]],
    bad: Sequence[str] = (),
) -> Path:
    """Subject 01, task listen; `events` are (onset in s, stim_file)."""
    stem = root / "sub-01" / "eeg" / "sub-01_task-listen"
    recording = write_brainvision(Path(f"{stem}_eeg.vhdr"), eeg, names, rate_hz)
    (root / "dataset_description.json").write_text(json.dumps({"Name": "test", "BIDSVersion": "1.9.0"}))
    sidecar = {"TaskName": "listen", "EEGReference": "Cz", "SamplingFrequency": rate_hz, "PowerLineFrequency": 50}
    Path(f"{stem}_eeg.json").write_text(json.dumps(sidecar | {"SoftwareFilters": "n/a"}))
    rows = "".join(f"{onset}\t10\t{'story'}\t{stimulus}\n" for onset, stimulus in events)
    Path(f"{stem}_events.tsv").write_text(f"onset\tduration\ttrial_type\tstim_file\n{rows}")
    rows = "".join(f"{name}\tEEG\tµV\t{'bad' if name in bad else 'good'}\n" for name in names)
    Path(f"{stem}_channels.tsv").write_text(f"name\ttype\tunits\tstatus\n{rows}", encoding="utf-8")
    return recording
