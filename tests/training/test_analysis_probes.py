"""Probes on planted features and on nothing, what can be a label, and the command lines on a planted store."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse
from typer.testing import CliRunner, Result

from steer_asr.errors import ManifestError, SteerASRError, SteerOptionError
from steer_asr_training.analysis.activations import clip_table
from steer_asr_training.analysis.inputs import StoredWindows
from steer_asr_training.analysis.probes import (
    ProbeRows,
    choose_classes,
    clip_rows,
    fisher_scores,
    phone_rows,
    probe_report,
    scaled,
    shuffled_labels,
)
from steer_asr_training.analysis.targets import target_values
from steer_asr_training.cli import app
from steer_asr_training.store import STORE_FILE, ActivationStore
from tests.helpers import noise
from tests.training.analysis_builders import (
    N_FEATURES,
    Listed,
    code_store,
    orthonormal,
    sparse_codes,
    tied,
    write_sae,
    write_wav,
)
from tests.training.builders import POINT
from tests.training.test_analysis_phonemes import planted as planted_phones

SEX, PAIR = 4, (7, 9)
STORED_PHONES = ("AA", "IY", "S")


def planted(n_groups: int = 24, per_group: int = 6, seed: int = 0, n: int = 30) -> ProbeRows:
    """Feature 4 is twice as strong in one class, with noise; 7 and 9 only tell it together; the rest is noise."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(n_groups), per_group)
    y = (group % 2).astype(np.int64)
    x = (rng.random((len(y), n)) < 0.5) * rng.uniform(1, 3, (len(y), n))
    x[:, SEX] = 1 + y + rng.normal(0, 0.35, len(y))
    return ProbeRows(sparse.csr_array(x.astype(np.float32)), y, ("f", "m"), np.array([f"speaker {g}" for g in group]))


def test_the_planted_feature_is_first_and_one_is_enough() -> None:
    report = probe_report(planted(), ks=(1, 5, 30, 5000), n_folds=4, ids=range(200, 230))
    one = report["curve"][0]
    assert (one["k"], report["top_features"][0]) == (1, 200 + SEX)
    assert one["mcc"] > 0.75
    assert one["accuracy"] > 0.85
    assert report["k_enough"] == 1
    assert [point["k"] for point in report["curve"]] == [1, 5, 30], "no more than there are"
    assert report["majority"] == {"accuracy": 0.5, "balanced_accuracy": 0.5, "f1": pytest.approx(1 / 3), "mcc": 0.0}
    assert report["classes"] == {"f": 72, "m": 72}
    assert report == probe_report(planted(), ks=(1, 5, 30, 5000), n_folds=4, ids=range(200, 230))


def test_shuffled_labels_and_labels_without_meaning_are_at_chance() -> None:
    rows = planted()
    curves = [probe_report(rows, ks=(1, 10), n_folds=4, seed=seed)["curve"] for seed in range(4)]
    control = np.mean([[point["shuffled"]["mcc"] for point in curve] for curve in curves])
    assert abs(control) < 0.2
    rng = np.random.default_rng(3)
    blind = ProbeRows(rows.x, rng.permutation(rows.y), rows.classes, rows.groups)
    assert abs(probe_report(blind, ks=(10,), n_folds=4)["curve"][0]["mcc"]) < 0.25


def test_a_label_that_only_names_speakers_is_not_told_on_others() -> None:
    """Every speaker has a feature of his own; without a split by speaker these would tell the label."""
    n_groups, per_group = 16, 8
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(n_groups), per_group)
    x = np.eye(n_groups)[group] * rng.uniform(1, 2, len(group))[:, None]
    label_of = rng.permutation(np.arange(n_groups) % 2)
    rows = ProbeRows(sparse.csr_array(x), label_of[group].astype(np.int64), ("a", "b"), group.astype(str))
    assert probe_report(rows, ks=(16,), n_folds=4)["curve"][0]["mcc"] < 0.1
    leaky = ProbeRows(rows.x, rows.y, rows.classes, np.arange(len(group)).astype(str))
    assert probe_report(leaky, ks=(16,), n_folds=4)["curve"][0]["mcc"] > 0.9


def test_shuffling_deals_whole_groups_where_groups_have_one_label() -> None:
    rows = planted()
    shuffled = shuffled_labels(rows, 1)
    for group in np.unique(rows.groups):
        assert len(set(shuffled[rows.groups == group])) == 1
    assert (shuffled != rows.y).any()
    mixed = ProbeRows(rows.x, np.arange(len(rows.y)) % 2, rows.classes, rows.groups)
    assert sorted(shuffled_labels(mixed, 1)) == sorted(mixed.y)
    assert (shuffled_labels(mixed, 1) != mixed.y).any()


def test_fisher_scores_by_hand() -> None:
    x = np.array([[0, 1, 5, 0], [2, 3, 5, 0], [4, 1, 5, 0], [6, 3, 5, 1]], np.float64)
    found = fisher_scores(sparse.csr_array(x), np.array([0, 0, 1, 1]))
    # column 0: means 1 and 5 about 3, so 16 between; 1 within each of four rows, so 4 within
    np.testing.assert_allclose(found, [4.0, 0.0, 0.0, 0.25 / 0.5], atol=1e-9)


def test_scaling_uses_the_fitting_rows_alone() -> None:
    train, test = sparse.csr_array([[0.0, 3.0], [2.0, 3.0]]), sparse.csr_array([[4.0, 5.0]])
    a, b = scaled(train, test)
    assert a.tolist() == [[-1, 0], [1, 0]]
    assert b.tolist() == [[3, 2]]


def test_clips_are_pooled() -> None:
    z = [np.zeros((4, N_FEATURES)), np.zeros((2, N_FEATURES)), np.zeros((2, N_FEATURES))]
    z[0][1:3, 5] = (1.0, 3.0)
    z[1][:, 2] = 2.0
    table = clip_table(Listed([w @ orthonormal() for w in z]), tied(orthonormal()))
    rows = clip_rows(table, ["f", "m", None], ["a", "b", "c"])
    assert (rows.classes, rows.y.tolist(), rows.groups.tolist(), rows.unit) == (("f", "m"), [0, 1], ["a", "b"], "clip")
    np.testing.assert_allclose(rows.x.toarray()[:, [2, 5]], [[0, 1], [2, 0]], atol=1e-5)
    largest = clip_rows(table, ["f", "m", None], ["a", "b", "c"], pool="max")
    np.testing.assert_allclose(largest.x.toarray()[:, [2, 5]], [[0, 3], [2, 0]], atol=1e-5)
    with pytest.raises(SteerOptionError, match="unknown pool 'meen'; did you mean 'mean'"):
        clip_rows(table, ["f", "m", None], ["a", "b", "c"], pool="meen")
    with pytest.raises(SteerOptionError, match="needs two classes"):
        clip_rows(table, ["f", None, None], ["a", "b", "c"])


def test_phones_are_pooled_by_token_or_taken_by_frame() -> None:
    aligned = planted_phones(4)
    frames, said = phone_rows(aligned, per="frame"), phone_rows(aligned)
    assert frames.classes == said.classes == STORED_PHONES
    assert len(frames.y) == 4 * 60, "a quarter of the frames is silence"
    first = np.flatnonzero(aligned.token == aligned.token[aligned.phone > 0][0])
    np.testing.assert_allclose(said.x.toarray()[0], aligned.z.toarray()[first].mean(axis=0), rtol=1e-5)
    assert said.classes[said.y[0]] == aligned.names[aligned.phone[first[0]]]
    assert probe_report(said, ks=(3,), n_folds=2)["curve"][0]["accuracy"] > 0.95
    with pytest.raises(SteerOptionError, match="did you mean 'token'"):
        phone_rows(aligned, per="tokens")


def test_classes_are_chosen_and_rare_ones_refused() -> None:
    rows = planted(6)
    y = rows.y.copy()
    y[0] = 2
    three = ProbeRows(rows.x, y, ("f", "m", "x"), rows.groups)
    assert choose_classes(three, n_folds=3).classes == ("f", "m")
    assert len(choose_classes(three, n_folds=3, max_rows=20).y) == 20
    with pytest.raises(SteerOptionError, match="unknown class 'mm'; did you mean 'm'"):
        choose_classes(three, ["mm"], n_folds=3)
    with pytest.raises(SteerOptionError, match="'x' occurs with 1 speakers"):
        choose_classes(three, ["m", "x"], n_folds=2)
    with pytest.raises(SteerOptionError, match="take fewer folds"):
        choose_classes(three, n_folds=5)
    with pytest.raises(SteerOptionError, match="each 1 or more"):
        probe_report(rows, ks=(0, 1))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    """Sixteen aligned clips of eight speakers: features 0 to 2 are phones, 4 is the sex, 5 where speech starts."""
    folder = tmp_path_factory.mktemp("probed")
    rng = np.random.default_rng(0)
    rows, codes, described = [], [], []
    for i in range(16):
        z = sparse_codes(rng, 100)
        z[:, :6] = 0.0
        said = rng.integers(0, 3, 12)
        lines = ["Begin,End,Label,Type"]
        for at, p in enumerate(said):
            start = 0.4 + at * 0.1
            lines.append(f"{start:.2f},{start + 0.1:.2f},{STORED_PHONES[p]},phones")
            z[20 + 5 * at : 25 + 5 * at, p] = 2.0
        z[20:23, 5] = 2.0
        z[:, 4] = 1.0 + i // 2 % 2
        (folder / f"{i}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        write_wav(folder / f"{i}.wav", noise(2.0))
        row = {"audio_filepath": f"{i}.wav", "duration": 2.0, "kind": "speech", "text": "x", "source": "planted"}
        row |= {"group": f"speaker {i // 2}", "gender": "fm"[i // 2 % 2], "alignment_filepath": f"{i}.csv"}
        rows.append(row | {"label": "even" if i % 2 else "odd"})
        codes.append(z)
        entry = {"kind": "speech", "source": "planted", "treatment": "plain", "clips": [i], "text": "x"}
        described.append(entry | {"group": f"speaker {i // 2}", "lang": "en"})
    (folder / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    made = code_store(folder / "store", codes, described)
    header = json.loads((made.folder / STORE_FILE).read_text()) | {"manifests": [str(folder / "m.jsonl")]}
    (made.folder / STORE_FILE).write_text(json.dumps(header))
    return ActivationStore(made.folder)


@pytest.fixture(scope="module")
def sae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sae(tmp_path_factory.mktemp("saes") / "sae", tied(orthonormal()))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(*arguments: object) -> str:
    error = run(*arguments).exception
    assert isinstance(error, SteerASRError), error
    return str(error)


def test_targets_are_columns_and_tags(store: ActivationStore) -> None:
    windows, manifests = StoredWindows(store, POINT), store.header["manifests"]
    assert target_values(windows, "gender", manifests)[:4] == ["f", "f", "m", "m"]
    assert target_values(windows, "label:odd", manifests)[:3] == ["odd", "other", "odd"]
    for name, what in (
        ("gendr", "unknown label 'gendr'; did you mean 'gender'"),
        ("treatment", "has 1 different value"),
        ("label:even,", "did you mean 'label:even'"),
    ):
        with pytest.raises(SteerOptionError, match=what):
            target_values(windows, name, manifests)


def test_windows_of_several_clips_have_a_value_when_all_heard_agree(tmp_path: Path) -> None:
    lines = [
        {"audio_filepath": f"{i}.wav", "duration": 1, "kind": "nonspeech", "gender": g} for i, g in enumerate("ffm")
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    chosen = [("placed", [0, 1]), ("placed", [0, 2]), ("noisy", [2, 0]), ("synthetic", [])]
    described = [{"kind": "nonspeech", "source": "", "treatment": t, "clips": c} for t, c in chosen]
    made = code_store(tmp_path / "store", [np.zeros((3, N_FEATURES))] * 4, described)
    header = json.loads((made.folder / STORE_FILE).read_text()) | {"manifests": [str(tmp_path / "m.jsonl")]}
    (made.folder / STORE_FILE).write_text(json.dumps(header))
    windows = StoredWindows(ActivationStore(made.folder), POINT)
    assert target_values(windows, "gender", header["manifests"]) == ["f", None, "m", None]
    (tmp_path / "m.jsonl").write_text("{", encoding="utf-8")
    with pytest.raises(ManifestError, match=r"m.jsonl:1"):
        target_values(windows, "gender", header["manifests"])


def test_phonemes_command(store: ActivationStore, sae: Path, tmp_path: Path) -> None:
    done = run("phonemes", sae, "--activations", store.folder, "-o", tmp_path)
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "phonemes.json").read_text())
    assert {row["phone"]: row["feature"] for row in report["by_phone"]} == {"AA": 0, "IY": 1, "S": 2}
    assert report["mean_f1"] == 1.0
    assert (report["windows"], report["speakers"]) == (16, 8)
    text = (tmp_path / "phonemes.md").read_text()
    assert "as the paper states it" in text
    assert "phonemes.png" in text
    assert (tmp_path / "phonemes.png").read_bytes().startswith(b"\x89PNG")
    few = run("phonemes", sae, "--activations", store.folder, "-o", tmp_path / "few", "--max-windows", 8)
    assert few.exit_code == 0, few.output
    assert json.loads((tmp_path / "few" / "phonemes.json").read_text())["speakers"] == 8, "speakers take turns"


def test_probe_command(store: ActivationStore, sae: Path, tmp_path: Path) -> None:
    where = ("--activations", store.folder, "-o", tmp_path)
    done = run("probe", sae, "gender", *where, "--folds", 4)
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "probe.json").read_text())
    assert (report["curve"][0]["mcc"], report["top_features"][0], report["unit"]) == (1.0, 4, "clip")
    assert (tmp_path / "probe.png").is_file()
    done = run("probe", sae, "phone", *where, "--folds", 4, "--k", 3, "--class", "AA", "--class", "IY", "--frames")
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "probe.json").read_text())
    assert (list(report["classes"]), report["unit"], report["pool"]) == (["AA", "IY"], "frame", None)
    assert report["curve"][0]["accuracy"] == 1.0


def test_erase_command(store: ActivationStore, sae: Path, tmp_path: Path) -> None:
    where = ("--activations", store.folder, "-o", tmp_path)
    done = run("erase", sae, "phone", "IY", *where, "--removed", 0, "--removed", 1, "--removed", 3, "--penalty", 1)
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "erasure.json").read_text())
    assert list(report["variants"]) == ["l2, C 1"]
    assert report["first_removed"][0] == 1
    assert report["variants"]["l2, C 1"]["curve"][0]["target_mcc"] == 1.0
    assert "| l2, C 1" in (tmp_path / "erasure.md").read_text()
    assert (tmp_path / "erasure.png").is_file()


def test_boundaries_command(store: ActivationStore, sae: Path, tmp_path: Path) -> None:
    done = run("boundaries", sae, "--activations", store.folder, "-o", tmp_path)
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "boundaries.json").read_text())
    assert (report["start"]["best"][0]["feature"], report["start"]["best"][0]["f1"]) == (5, 1.0)
    assert "starts" in (tmp_path / "boundaries.md").read_text()
    assert (tmp_path / "boundaries.png").is_file()


def test_mistakes_are_named_and_nothing_is_written(store: ActivationStore, sae: Path, tmp_path: Path) -> None:
    where = ("--activations", store.folder, "-o", tmp_path / "out")
    assert "give either --activations or --manifest" in refused("phonemes", sae, "-o", tmp_path / "out")
    assert "--manifest needs --model" in refused("probe", sae, "x", "--manifest", "m", "-o", tmp_path / "out")
    assert "did you mean 'gender'" in refused("probe", sae, "gnder", *where)
    assert "unknown pool" in refused("probe", sae, "gender", *where, "--pool", "sum")
    assert "unknown class 'AB'" in refused("erase", sae, "phone", "AB", *where)
    assert "give none, or a positive number" in refused("erase", sae, "phone", "AA", *where, "--penalty", "l2")
    assert "give positive numbers" in refused("erase", sae, "phone", "AA", *where, "--penalty", "-1")
    assert "rising numbers from 0 to 11" in refused("erase", sae, "phone", "AA", *where, "--removed", 12)
    assert "at least twice as long" in refused("boundaries", sae, *where, "--min-pause", 0.1)
    assert "take fewer folds" in refused("probe", sae, "gender", *where, "--folds", 9)
    assert not (tmp_path / "out").exists()


def test_without_matplotlib_there_is_no_picture(
    store: ActivationStore, sae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steer_asr_training.analysis.concept_tables.find_spec", lambda _: None)
    assert run("phonemes", sae, "--activations", store.folder, "-o", tmp_path).exit_code == 0
    assert not (tmp_path / "phonemes.png").exists()
    assert ".png" not in (tmp_path / "phonemes.md").read_text()
