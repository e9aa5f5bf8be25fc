"""EEG from .mat and BIDS files, and which audio it goes with."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from steer_asr.errors import ManifestError, SteerOptionError
from steer_asr_training.eeg.pairs import Pair, find_pairs, read_pairs, write_pairs
from steer_asr_training.eeg.recordings import BIOSEMI_128, Recording, channel_indices, prepared, read_recording
from steer_asr_training.eeg.signals import EegError, band_passed, resampled, standardised
from tests.training.eeg_builders import write_bids, write_brainvision, write_mat


def wave(hz: float, rate_hz: float, seconds: float = 20.0) -> np.ndarray:
    return np.sin(2 * np.pi * hz * np.arange(round(seconds * rate_hz)) / rate_hz)


def noise(n: int, channels: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, channels))


def recording(data: np.ndarray, rate_hz: float = 128.0, mastoids: np.ndarray | None = None) -> Recording:
    names = tuple(f"E{i}" for i in range(1, data.shape[1] + 1))
    return Recording("test", data, names, rate_hz, mastoids)


@pytest.mark.parametrize("rate_hz", [128.0, 250.0, 500.0, 512.0, 2048.0])
def test_4_hz_pass_in_place_and_the_rest_goes(rate_hz: float) -> None:
    mixed = 3.0 + wave(4, rate_hz) + wave(0.1, rate_hz) + wave(30, rate_hz)
    found = resampled(band_passed(mixed, rate_hz), rate_hz)
    assert len(found) == 20 * 128
    inside = slice(3 * 128, -3 * 128)
    np.testing.assert_allclose(found[inside], wave(4, 128)[inside], atol=0.03)


def test_filters_refuse_what_they_cannot_do() -> None:
    with pytest.raises(EegError, match="needs a sampling rate above 16 Hz, not 10"):
        band_passed(np.zeros(100), 10.0)
    with pytest.raises(EegError, match="0.39 s are too short for a filter at 1 Hz"):
        band_passed(np.zeros(50), 128.0)
    with pytest.raises(EegError, match="cannot be brought to 128 Hz"):
        resampled(np.zeros(100), 1e6)
    flat = standardised(np.stack([np.full(10, 3.0), np.arange(10.0)], axis=1))
    np.testing.assert_allclose(flat.std(axis=0), [0, 1])


def test_broderick_mat(tmp_path: Path) -> None:
    eeg, mastoids = noise(2560, 128), noise(2560, 2, seed=1)
    found = read_recording(write_mat(tmp_path / "Subject1_Run2.mat", eeg, mastoids))
    assert (found.rate_hz, found.channels) == (128.0, BIOSEMI_128)
    trial = prepared(found)
    expected = band_passed(eeg - mastoids.mean(axis=1, keepdims=True), 128.0)
    np.testing.assert_allclose(trial.eeg, expected, atol=1e-9)
    assert trial.bad == {}
    assert channel_indices(found.channels, ["pz", "A19", "Fz"], "r") == [18, 18, 84]


def test_matlab_7_3_is_read_too(tmp_path: Path) -> None:
    eeg = noise(512, 3)
    with h5py.File(tmp_path / "s.mat", "w", userblock_size=512) as file:
        for key, value in {"eegData": eeg.T, "fs": np.array([[64.0]])}.items():  # MATLAB writes columns first
            file[key] = value
            file[key].attrs["MATLAB_class"] = np.bytes_("double")
    with (tmp_path / "s.mat").open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    found = read_recording(tmp_path / "s.mat")
    np.testing.assert_array_equal(found.data, eeg)
    assert (found.rate_hz, found.channels, found.mastoids) == (64.0, ("E1", "E2", "E3"), None)


def test_what_a_mat_file_lacks_is_named(tmp_path: Path) -> None:
    silent = write_mat(tmp_path / "a.mat", noise(512, 4), fs=None)
    with pytest.raises(EegError, match="does not say its sampling rate"):
        read_recording(silent)
    assert read_recording(silent, rate_hz=64.0).rate_hz == 64.0
    with pytest.raises(EegError, match="has no mastoids .*average, none or channels"):
        prepared(read_recording(silent, 64.0))
    with pytest.raises(EegError, match="transposed"):
        read_recording(write_mat(tmp_path / "b.mat", noise(4, 512)))
    with pytest.raises(EegError, match="no such recording"):
        read_recording(tmp_path / "none.mat")
    (tmp_path / "broken.mat").write_bytes(b"no MATLAB" * 50)
    with pytest.raises(EegError, match="cannot be read as EEG"):
        read_recording(tmp_path / "broken.mat")
    from scipy.io import savemat

    savemat(tmp_path / "other.mat", {"data": 1.0})
    with pytest.raises(EegError, match=r"holds no eegData \(it holds data\)"):
        read_recording(tmp_path / "other.mat")


def test_bad_channels_are_named_and_have_no_part_in_the_average() -> None:
    data = noise(2560, 10)
    data[:, 2] = 7.0
    data[5, 3] = np.nan
    data[:, 4] *= 100
    data[:, 5] /= 100
    trial = prepared(recording(data), reference="none")
    assert trial.bad.keys() == {"E3", "E4", "E5", "E6"}
    assert (trial.bad["E3"], trial.bad["E4"]) == ("flat", "not finite")
    assert "times the usual level" in trial.bad["E5"]
    assert np.isfinite(trial.eeg).all()
    average = prepared(recording(data), reference="average")
    usable = [i for i in range(10) if i not in (2, 3)]
    expected = band_passed(data[:, 0] - data[:, usable].mean(axis=1), 128.0)
    np.testing.assert_allclose(average.eeg[:, 0], expected, atol=1e-9)


def test_references(tmp_path: Path) -> None:
    data = noise(1280, 4)
    path = write_brainvision(tmp_path / "r.vhdr", data, ["Pz", "M1", "Fz", "M2"], 256.0)
    found = read_recording(path)
    assert (found.channels, found.rate_hz) == (("Pz", "M1", "Fz", "M2"), 256.0)
    np.testing.assert_allclose(found.data, data * 1e-6, rtol=1e-5)
    trial = prepared(found)
    assert trial.channels == ("Pz", "Fz")
    expected = resampled(band_passed((data[:, 0] - data[:, [1, 3]].mean(axis=1)) * 1e-6, 256.0), 256.0)
    np.testing.assert_allclose(trial.eeg[:, 0], expected, atol=1e-11)
    assert prepared(found, reference="Fz").channels == ("Pz", "M1", "M2")
    with pytest.raises(SteerOptionError, match="unknown channel 'Fzz'; did you mean 'Fz'"):
        prepared(found, reference="Fzz")
    with pytest.raises(EegError, match="every channel is part of the reference"):
        prepared(found, reference="Pz,M1,Fz,M2")


def test_a_trial_is_cut_where_the_audio_plays() -> None:
    data = noise(25_600, 2)
    whole = prepared(recording(data, 256.0), reference="none")
    trial = prepared(recording(data, 256.0), reference="none", start_s=20.0, duration_s=30.0)
    assert len(trial.eeg) == 30 * 128
    middle = slice(128, -128)
    np.testing.assert_allclose(trial.eeg[middle], whole.eeg[20 * 128 : 50 * 128][middle], atol=1e-4)
    assert len(prepared(recording(data, 256.0), reference="none", start_s=90.0, duration_s=30.0).eeg) == 10 * 128
    with pytest.raises(EegError, match="begins at 120 s, the recording ends at 100.0 s"):
        prepared(recording(data, 256.0), reference="none", start_s=120.0, duration_s=30.0)


def test_bids(tmp_path: Path) -> None:
    names = ["Pz", "M1", "M2", "Oz"]
    path = write_bids(
        tmp_path, noise(4000, 4), names, 200.0, [(2.5, "a.wav"), (12.0, "b.wav"), (1.0, "n/a")], bad=["Oz"]
    )
    assert find_pairs(tmp_path) == [
        Pair(path, tmp_path / "stimuli" / "a.wav", "01", 2.5),
        Pair(path, tmp_path / "stimuli" / "b.wav", "01", 12.0),
    ]
    found = read_recording(path)
    assert (found.channels, found.called_bad) == (tuple(names), ("Oz",))
    assert prepared(found).bad == {"Oz": "called bad in the data set"}
    events = path.with_name("sub-01_task-listen_events.tsv")
    events.write_text("onset\tstim_file\nsoon\ta.wav\n")
    with pytest.raises(ManifestError, match="events.tsv:2: onset 'soon' is not a time"):
        find_pairs(tmp_path)
    events.write_text("onset\n1\n")
    with pytest.raises(ManifestError, match="no event of its 1 EEG recordings names an audio file"):
        find_pairs(tmp_path)


def test_broderick_files_go_with_the_audio_of_their_run(tmp_path: Path) -> None:
    eeg, audio = tmp_path / "EEG", tmp_path / "audio"
    files = [write_mat(eeg / f"Subject{s}" / f"Subject{s}_Run{r}.mat", noise(8, 2)) for s in (10, 2) for r in (1, 2)]
    audio.mkdir()
    stimuli = [audio / f"audio{r}.wav" for r in (1, 2)]
    for path in (*stimuli, audio / "notes3.txt"):
        path.write_bytes(b"")
    found = find_pairs(eeg, audio)
    assert [(pair.subject, pair.eeg, pair.audio) for pair in found] == [
        ("2", files[2], stimuli[0]),
        ("2", files[3], stimuli[1]),
        ("10", files[0], stimuli[0]),
        ("10", files[1], stimuli[1]),
    ]
    with pytest.raises(SteerOptionError, match="holds no audio.*--audio"):
        find_pairs(eeg)
    stimuli[1].unlink()
    with pytest.raises(ManifestError, match=r"Subject\d+_Run2.mat: no audio file of run 2 in"):
        find_pairs(eeg, audio)
    (audio / "other1.flac").write_bytes(b"")
    with pytest.raises(ManifestError, match="are both stimulus 1"):
        find_pairs(eeg, audio)
    with pytest.raises(ManifestError, match="neither a BIDS folder"):
        find_pairs(audio)
    with pytest.raises(SteerOptionError, match="no such file or folder"):
        find_pairs(tmp_path / "none")


def test_pairs_files(tmp_path: Path) -> None:
    pairs = [
        Pair(tmp_path / "a.mat", tmp_path / "a.wav", "ann", rate_hz=64.0),
        Pair(tmp_path / "b", tmp_path / "w", "2", 0),
    ]
    write_pairs(tmp_path / "out.jsonl", pairs)
    assert read_pairs(tmp_path / "out.jsonl") == pairs == find_pairs(tmp_path / "out.jsonl")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "no pair in it"),
        ("[1]", "p.jsonl:1: not a JSON object"),
        ('{"eeg": "a"}', "p.jsonl:1: audio_filepath is missing"),
        ('{"eeg": "a", "audio_filepath": "b", "subject": 3}', "subject must be text"),
        ('{"eeg": "a", "audio_filepath": "b", "subject": "3", "start_s": -1}', "start_s -1 is not a number"),
        ('{"eeg": "a", "audio_filepath": "b", "subject": "3", "rate_hz": "x"}', "rate_hz 'x' is not a number"),
        ('{"eeg"', "p.jsonl:1: "),
    ],
)
def test_broken_pairs_files_are_named(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(line)
    with pytest.raises(ManifestError, match=message):
        read_pairs(path)
