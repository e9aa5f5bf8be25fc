"""Alignment files, frame labels, and phone features that were planted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from steer_asr.errors import ManifestError, SteerOptionError
from steer_asr_training.analysis.aligned import AlignedFrames, aligned_frames, grouped_folds, pack_frames
from steer_asr_training.analysis.alignments import Alignment, Interval, frame_phones, read_alignment, tokens
from steer_asr_training.analysis.inputs import load_dictionary, stored_windows
from steer_asr_training.analysis.phonemes import (
    PhoneFrames,
    any_feature,
    carried_phones,
    correlations,
    phoneme_report,
)
from steer_asr_training.store import STORE_FILE, ActivationStore
from tests.helpers import noise
from tests.training.analysis_builders import N_FEATURES, code_store, orthonormal, tied, write_sae, write_wav

PHONES = ("", "AA", "IY", "S")
TEXTGRID = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 0.5
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 0.5
        intervals: size = 2
        intervals [1]:
            xmin = 0
            xmax = 0.1
            text = ""
        intervals [2]:
            xmin = 0.1
            xmax = 0.5
            text = "ass"
    item [2]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = 0.5
        intervals: size = 3
        intervals [1]:
            xmin = 0
            xmax = 0.1
            text = "sil"
        intervals [2]:
            xmin = 0.1
            xmax = 0.3
            text = "AE1"
        intervals [3]:
            xmin = 0.3
            xmax = 0.5
            text = "S"
"""
CSV = (
    "Begin,End,Label,Type,Speaker\n0.1,0.5,ass,words,x\n0,0.1,sil,phones,x\n0.1,0.3,AE1,phones,x\n0.3,0.5,S,phones,x\n"
)
CTM = ";; a comment\na 1 0.1 0.2 AE1 0.9\na 1 0.3 0.2 S\n"
TSV = "0.1\t0.3\tAE1\n\\\t100\t3000\n0.3\t0.5\tS\n"


def planted(n_windows: int = 12, frames: int = 80, seed: int = 0) -> AlignedFrames:
    """Feature 3 fires on every AA; 5 on every IY, and half as often elsewhere; 7 on half of the S; others at random."""
    rng = np.random.default_rng(seed)
    parts, phones = [], []
    for _ in range(n_windows):
        said = np.repeat(rng.permutation(np.tile(np.arange(4), frames // 16)), 4)
        z = (rng.random((frames, N_FEATURES)) < 0.2) * rng.uniform(1, 3, (frames, N_FEATURES))
        z[:, 3] = np.where(said == 1, 2.0, 0.0)
        z[:, 5] = np.where(said == 2, 2.0, (rng.random(frames) < 1 / 6) * 1.0)
        z[:, 7] = np.where((said == 3) & (np.arange(frames) % 2 == 0), 1.0, 0.0)
        parts.append(sparse.csr_array(z.astype(np.float32)))
        phones.append([PHONES[p] for p in said])
    groups = [f"speaker {i // 2}" for i in range(n_windows)]
    return pack_frames(parts, phones, groups=groups, speech=[()] * n_windows)


@pytest.mark.parametrize(("name", "text"), [("a.TextGrid", TEXTGRID), ("a.csv", CSV), ("a.ctm", CTM), ("a.tsv", TSV)])
def test_every_format_says_the_same(name: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    alignment = read_alignment(path)
    assert [i for i in alignment.phones if i.label] == [
        (0.1, pytest.approx(0.3), "AE"),
        (pytest.approx(0.3), pytest.approx(0.5), "S"),
    ]
    assert read_alignment(path, stress=True).phones[-2].label == "AE1"
    if name in ("a.TextGrid", "a.csv"):
        assert [i for i in alignment.words if i.label] == [(0.1, 0.5, "ass")]
        assert alignment.phones[0].label == "", "sil is silence"


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("a.TextGrid", TEXTGRID[:200], "cannot be read"),
        ("a.TextGrid", "nonsense", "cannot be read"),
        ("a.TextGrid", TEXTGRID.replace('"phones"', '"tones"'), "no phone in it"),
        ("a.csv", "a,b\n1,2\n", "cannot be read"),
        ("a.ctm", "a 1 zero 0.2 AE\n", "cannot be read"),
        ("a.ctm", "a 1 0.5 -0.2 AE\n", "is no time"),
        ("a.tsv", "0.1\t0.3\n", "cannot be read"),
        ("a.tsv", "0\t1\tsil\n", "no phone in it"),
        ("a.lab", "x", r"unknown sort of alignment; readable are .textgrid"),
    ],
)
def test_broken_alignments_are_named(name: str, text: str, what: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ManifestError, match=rf"{name}.*{what}"):
        read_alignment(path)
    with pytest.raises(ManifestError, match="cannot be read"):
        read_alignment(tmp_path / "missing.csv")


def test_frames_take_the_phone_at_their_centre() -> None:
    phones = (Interval(0.0, 0.04, ""), Interval(0.04, 0.09, "AA"), Interval(0.09, 0.1, "spn"), Interval(0.2, 0.22, "S"))
    labels = frame_phones(Alignment(phones), 12)
    assert labels == ["", "", "AA", "AA", "AA", None, None, None, None, None, "S", None]
    assert frame_phones(Alignment(phones), 5, centre_s=0.0125) == ["", "", "AA", "AA", None]
    assert tokens(labels).tolist() == [0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 3, 4]


def test_speech_is_parted_by_pauses_that_are_long_enough() -> None:
    words = (Interval(0.1, 0.4, "a"), Interval(0.4, 0.55, ""), Interval(0.55, 0.8, "b"), Interval(1.2, 1.5, "c"))
    assert Alignment((), words).speech(0.2) == [(0.1, 0.8), (1.2, 1.5)]
    assert Alignment((), words).speech(0.1) == [(0.1, 0.4), (0.55, 0.8), (1.2, 1.5)]


def test_planted_phone_features_are_found_with_their_f1() -> None:
    report = phoneme_report(planted(), ids=range(100, 100 + N_FEATURES))
    by_phone = {row["phone"]: row for row in report["by_phone"]}
    assert set(by_phone) == set(PHONES)
    aa, iy, s = (by_phone[name] for name in ("AA", "IY", "S"))
    assert (aa["feature"], aa["f1"], aa["feature_by_correlation"]) == (103, 1.0, 103)
    assert aa["correlation"] == pytest.approx(1.0)
    assert (iy["feature"], iy["f1"]) == (105, 1.0), "a threshold between 1 and 2 parts it from its other firings"
    assert 1 < iy["threshold"] < 2
    assert (s["feature"], s["precision"], s["recall"]) == (107, 1.0, 0.5)
    assert s["f1"] == pytest.approx(2 / 3)
    assert report["mean_f1"] == pytest.approx((1 + 1 + 2 / 3) / 3), "silence is no phone"
    assert report["control_mean_f1"] < 0.55
    assert report["speakers"] == 6
    assert report["speakers_measured"] == 3
    assert report["frames_measured"] == 6 * 80


def test_the_papers_accuracy_counts_frames_with_any_right_feature() -> None:
    """AA always, IY always (its feature carries it: two thirds of its firings), S on half of the frames."""
    report = phoneme_report(planted())["any_feature"]
    assert report["held_out"]["spoken"] == pytest.approx((1 + 1 + 0.5) / 3, abs=0.01)
    assert report["as_published"]["spoken"] == pytest.approx((1 + 1 + 0.5) / 3, abs=0.01)
    assert report["held_out"]["all"] == pytest.approx(2.5 / 4, abs=0.01), "no feature stands for silence"
    assert report["control"]["spoken"] < 0.5
    assert report["features_that_carry"] == 3
    assert 0.7 < report["held_out"]["agreeing"] < 1


def test_a_feature_carries_what_holds_on_more_than_half_of_its_frames() -> None:
    z = np.array([[1, 1, 0, 0], [1, 1, 0, 1], [0, 1, 0, 1], [0, 1, 0, 0]], np.float32)
    frames = PhoneFrames(sparse.csr_array(z), np.array([0, 0, 1, 1]))
    assert carried_phones(frames, 2).tolist() == [0, -1, -1, -1], "a half is not more than half, nothing is nothing"
    found = any_feature(np.array([0, -1, -1, 1]), frames)
    assert found == {"all": 0.75, "spoken": 0.75, "covered": 0.75, "where_covered": 1.0, "agreeing": 0.75}
    spoken = any_feature(np.array([0, -1, -1, 1]), frames, silence=0)
    assert spoken == {"all": 0.75, "spoken": 0.5, "covered": 0.5, "where_covered": 1.0, "agreeing": 1.0}
    nothing = {"all": 0.0, "spoken": 0.0, "covered": 0.0, "where_covered": None, "agreeing": None}
    assert any_feature(np.full(4, -1), frames) == nothing


def test_correlations_are_pearsons() -> None:
    aligned = planted(4)
    frames = PhoneFrames(aligned.z, aligned.phone)
    z = aligned.z.toarray()
    found = correlations(frames, 4)
    for p, j in ((1, 0), (2, 5), (3, 7)):
        assert found[p, j] == pytest.approx(np.corrcoef(z[:, j], aligned.phone == p)[0, 1], abs=1e-6)
    silent = PhoneFrames(sparse.csr_array(np.zeros((4, 2), np.float32)), np.array([0, 0, 1, 1]))
    assert not correlations(silent, 2).any()


def test_rare_phones_are_left_out_and_one_speaker_is_too_few() -> None:
    aligned = planted(2)
    assert len(set(aligned.groups)) == 1
    with pytest.raises(SteerOptionError, match="2 folds of 1 speakers"):
        phoneme_report(aligned)
    assert phoneme_report(planted(4, frames=16))["left_out"] == list(PHONES)


def test_groups_never_straddle_folds_and_classes_are_dealt_evenly() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 20, 400).astype(str)
    y = (groups.astype(int) % 2).astype(np.int64)
    fold = grouped_folds(y, groups, 5)
    for group in np.unique(groups):
        assert len(set(fold[groups == group])) == 1
    for f in range(5):
        assert 0.3 < y[fold == f].mean() < 0.7
    np.testing.assert_array_equal(fold, grouped_folds(y, groups, 5))
    with pytest.raises(SteerOptionError, match="21 folds of 20"):
        grouped_folds(y, groups, 21)


def test_only_whole_aligned_clips_of_a_store_are_used(tmp_path: Path) -> None:
    """Clip 0 as it is, clip 1 without an alignment, clip 0 over noise: one window counts."""
    (tmp_path / "0.TextGrid").write_text(TEXTGRID, encoding="utf-8")
    rows = []
    for i in range(2):
        write_wav(tmp_path / f"{i}.wav", noise(0.5))
        row = {"audio_filepath": f"{i}.wav", "duration": 0.5, "kind": "speech", "text": "ass", "source": "s"}
        rows.append(row | {"group": f"speaker {i}"} | ({"alignment_filepath": "0.TextGrid"} if i == 0 else {}))
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    codes = [np.eye(25, N_FEATURES) * 2 for _ in range(3)]
    described = [
        {"kind": "speech", "source": "s", "treatment": t, "clips": [c], "text": "ass", "group": f"speaker {c}"}
        for t, c in (("plain", 1), ("plain", 0), ("noisy", 0))
    ]
    folder = code_store(tmp_path / "store", codes, described).folder
    header = json.loads((folder / STORE_FILE).read_text()) | {"manifests": [str(manifest)]}
    (folder / STORE_FILE).write_text(json.dumps(header))
    dictionary = load_dictionary(write_sae(tmp_path / "sae", tied(orthonormal())))
    aligned = aligned_frames(stored_windows(ActivationStore(folder), dictionary), dictionary)
    assert (aligned.n_frames, aligned.names, aligned.groups) == (25, ("", "AE", "S"), ("speaker 0",))
    assert [aligned.names[p] for p in aligned.phone] == [""] * 5 + ["AE"] * 10 + ["S"] * 10
    assert aligned.speech == (((0.1, 0.5),),)
    np.testing.assert_allclose(aligned.z.toarray(), codes[0], atol=0.01)
    manifest.unlink()
    with pytest.raises(SteerOptionError, match="no window has an alignment.*alignment_filepath"):
        aligned_frames(stored_windows(ActivationStore(folder), dictionary), dictionary)
