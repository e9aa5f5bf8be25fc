from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

from steer_asr.edits import Edit
from steer_asr.pack import FRONT_END, SteerPack
from steer_asr_training.analysis.acoustics import MEASURES, Acoustics, acoustics_of_tops, measure, pitch
from steer_asr_training.analysis.activations import clip_table
from steer_asr_training.analysis.aligned import pack_frames
from steer_asr_training.analysis.describe import BestTags, best_tags, describe
from steer_asr_training.analysis.end_of_text import EndOfText
from steer_asr_training.analysis.features import feature_report, firing_rates, specialised, top_windows
from steer_asr_training.analysis.inputs import Dictionary, StoredWindows
from steer_asr_training.analysis.labels import stored_clips, window_labels
from steer_asr_training.analysis.phonemes import phones_of_features
from steer_asr_training.analysis.search import Peaks
from steer_asr_training.encoders import Window
from steer_asr_training.learn import select
from tests.helpers import noise, silence, tone
from tests.training.analysis_builders import N_FEATURES, Listed, label, orthonormal, sparse_codes, tied, write_clips
from tests.training.builders import POINT, write_store

SPEECH, DOG = 0, 1


@pytest.fixture
def windows() -> Listed:
    """24 windows: feature 0 fires on half of speech, feature 1 where a dog barks, feature 11 never."""
    rng = np.random.default_rng(0)
    frames, labels = [], []
    for i in range(24):
        z = sparse_codes(rng, 40, share=0.05)
        z[:, [SPEECH, DOG, 11]] = 0
        if i % 2 == 0:
            z[:20, SPEECH] = rng.uniform(1, 2, 20)
            labels.append(label("speech", "source:talk", domain="speech", group=str(i)))
        else:
            dog = i % 4 == 1
            z[10:14, DOG] = [1, 1, 2.5 + i / 100, 1] if dog else 0
            tags = ("category:animal", "label:dog", "source:farm") if dog else ("category:water", "source:farm")
            labels.append(label("nonspeech", *tags, domain="sounds", group=str(i)))
        frames.append(z @ orthonormal())
    return Listed(frames, labels)


def loaded(*, pack: bool = False) -> Dictionary:
    features = tied(orthonormal())
    if not pack:
        return Dictionary("all", features, tuple(range(N_FEATURES)), POINT, None)
    ids = (700, 300)
    edits = (Edit(300, "scale", 0.5), Edit(300, "add", 2.0))
    made = SteerPack("p", "m", "0" * 64, POINT, FRONT_END, ids, select(features, [DOG, SPEECH]), edits)
    return Dictionary("p", made.features, ids, POINT, "0" * 64, made)


def test_statistics_are_those_planted(windows: Listed) -> None:
    table = clip_table(windows, loaded().features)
    report = feature_report(windows, loaded(), table)
    assert (report["windows"], report["frames"], report["alive"]) == (24, 24 * 40, N_FEATURES - 1)
    speech, dog, dead = (report["features"][j] for j in (SPEECH, DOG, 11))
    assert speech["fires"] == {"all": 0.25, "kind:speech": 0.5, "kind:nonspeech": 0.0}
    assert dog["frame_rates"]["label:dog"] == pytest.approx(0.1)
    assert dog["frame_rates"]["source:farm"] == pytest.approx(0.05)
    assert dog["mean_when_firing"] == pytest.approx(np.mean([(5.5 + i / 100) / 4 for i in range(1, 24, 4)]), rel=1e-4)
    assert dog["max"] == pytest.approx(2.71, rel=1e-4)
    assert [top["window"] for top in dog["top"]] == [21, 17, 13, 9, 5]
    assert dog["top"][0] | {"activation": 0} == {
        "window": 21, "time_s": 0.24, "activation": 0, "kind": "nonspeech",
        "labels": ["category:animal", "label:dog"], "from": "listed 21",
    }  # fmt: skip
    assert (dead["mean_when_firing"], dead["max"], dead["top"]) == (None, None, [])
    assert dead["description"] == "never fires here"
    assert speech["end_of_text"] is dog["acoustics"] is dog["edits"] is None
    assert feature_report(windows, loaded(), table) == report


def test_descriptions_name_what_a_feature_goes_with(windows: Listed) -> None:
    report = feature_report(windows, loaded(), clip_table(windows, loaded().features))
    speech, dog = (report["features"][j] for j in (SPEECH, DOG))
    assert speech["description"].startswith("fires on 25.0 % of frames, almost only on speech")
    assert "source talk (F1 1.00)" in speech["description"]
    assert dog["best_labels"] == [], "six recordings of it are too few to name a feature after"
    assert (
        dog["description"] == "fires on 2.5 % of frames, almost only on non-speech; 4 times as often in category animal"
    )


def test_a_label_of_many_recordings_names_its_feature() -> None:
    names, rng = ("all", "kind:speech", "kind:nonspeech"), np.random.default_rng(1)
    labels = [label("nonspeech", *(("label:dog",) if i % 3 == 0 else ()), group=str(i)) for i in range(48)]
    frames = []
    for i in range(48):
        z = sparse_codes(rng, 20, share=0.05)
        z[:, DOG] = 0
        z[3, DOG] = 2.0 if i % 3 == 0 else 0
        frames.append(z @ orthonormal())
    peaks = Peaks.of(clip_table(Listed(frames, labels), tied(orthonormal())))
    tags = best_tags(peaks, labels)
    assert tags.of(DOG)[0] == {"label": "label:dog", "f1": 1.0, "always": pytest.approx(0.5)}
    sounds = Acoustics({}, {"level_db": 0.95, "centroid_hz": 0.5, "flatness": 0.1, "onset_db": 0.9})
    rates = np.array([[0.05] * N_FEATURES, [0.0] * N_FEATURES, [0.05] * N_FEATURES])
    assert describe(DOG, rates, names, tags, sounds) == (
        "fires on 5.0 % of frames, almost only on non-speech; dog (F1 1.00); loud, tonal, at onsets"
    )
    assert "dog" not in describe(5, rates, names, tags, None)


def test_a_pack_shows_its_ids_its_edits_and_its_effects(windows: Listed) -> None:
    dictionary = loaded(pack=True)
    effect = EndOfText(np.array([0.5, -0.25]), np.array([0.1, 0.0]), 4)
    report = feature_report(windows, dictionary, clip_table(windows, dictionary.features), effect=effect)
    dog, speech = report["features"]
    assert (dog["feature"], speech["feature"]) == (700, 300)
    assert dog["edits"] == []
    assert speech["edits"] == [{"op": "scale", "value": 0.5}, {"op": "add", "value": 2.0}]
    assert speech["fires"]["kind:speech"] == 0.5
    assert dog["end_of_text"]["per_mean_activation"] == pytest.approx(0.5 * dog["mean_when_firing"])
    assert report["end_of_text_windows"] == 4


def test_specialised_features_by_domain(windows: Listed) -> None:
    found = specialised(firing_rates(clip_table(windows, loaded().features), windows.labels))
    # Feature 0 alone fires on over a fifth of speech; feature 1 on a twentieth of sounds and on no speech.
    assert found["frames>0.2"] == {"speech": 1, "music": None, "sounds": 0}
    assert found["clips>0.3"]["sounds"] == 1
    assert found["clips>0.3"]["speech"] == 1


def test_no_window_of_a_kind_has_no_rate() -> None:
    only = Listed([sparse_codes(np.random.default_rng(0), 20) @ orthonormal()])
    row = feature_report(only, loaded(), clip_table(only, loaded().features))["features"][0]
    assert row["fires"]["kind:nonspeech"] is None
    assert row["fires"]["kind:speech"] == row["fires"]["all"] > 0
    assert ", " not in row["description"].partition(";")[0], "nothing to compare speech with"


def test_the_table_is_that_of_dense_activations() -> None:
    rng = np.random.default_rng(3)
    codes = [sparse_codes(rng, 15 + i) for i in range(4)] + [np.zeros((3, N_FEATURES))]
    table = clip_table(Listed([z @ orthonormal() for z in codes]), tied(orthonormal()))
    assert table.n_frames.tolist() == [15, 16, 17, 18, 3]
    np.testing.assert_array_equal(table.frames_fired.toarray(), [(z > 0).sum(axis=0) for z in codes])
    np.testing.assert_allclose(table.total.toarray(), [z.sum(axis=0) for z in codes], rtol=1e-4)
    np.testing.assert_allclose(table.peak.toarray(), [z.max(axis=0) for z in codes], rtol=1e-4)
    for j, tops in enumerate(top_windows(table, 2)):
        order = sorted(range(4), key=lambda i: -codes[i][:, j].max())
        expected = [(i, int(codes[i][:, j].argmax())) for i in order[:2] if codes[i][:, j].any()]
        assert [top[:2] for top in tops] == expected


def test_acoustics_tell_loud_bright_noisy_and_sudden_sounds() -> None:
    wave = np.concatenate([silence(0.5), tone(0.5, 200.0, 0.5), silence(0.5), noise(0.5, 0.05)])
    found = measure(wave, 100)
    assert found.shape == (100, len(MEASURES))
    level, centroid, flatness, onset = found.T
    assert level[35] == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.5)
    assert centroid[35] == pytest.approx(200, abs=40)
    assert centroid[90] > 3000
    assert flatness[90] > 0.3 > 0.01 > flatness[35]
    assert 24 <= onset.argmax() <= 29
    assert level[10] == -100
    assert len(measure(tone(0.1), 1)) == 1


def test_pitch_is_the_period_and_not_a_multiple_of_it() -> None:
    buzz = np.sign(tone(0.5, 120.0)) * 0.3
    wave = np.concatenate([buzz, noise(0.5, 0.1), tone(0.5, 440.0, 0.3), tone(0.5, 2000.0, 0.3), silence(0.5)])
    found = pitch(wave, 125)
    assert found.shape == (125,)
    np.testing.assert_allclose(found[2:23], 120, rtol=0.02)
    assert np.isnan(found[28:47]).all(), "hiss"
    np.testing.assert_allclose(found[53:72], 440, rtol=0.03)
    assert np.isnan(found[78:97]).all(), "a whistle is no voice"
    assert np.isnan(found[103:]).all(), "silence"
    assert Acoustics({}, dict.fromkeys(map(str, MEASURES), 0.5), 119.6).words == ("pitch 120 Hz",)


def test_a_feature_that_carries_a_phone_is_called_by_it() -> None:
    rng = np.random.default_rng(5)
    phones = [str(name) for name in rng.choice(["AA", "S", ""], 300)]
    z = np.zeros((300, 4))
    z[:, 0] = [name == "S" and rng.random() < 0.8 for name in phones]
    z[:30, 0] = [name == "AA" for name in phones[:30]]  # a few firings on the wrong one
    z[:, 1] = [name == "" for name in phones]
    z[:10, 2] = 1
    z[:, 3] = rng.random(300) < 0.5
    found = phones_of_features(pack_frames([csr_array(z)], [phones], groups=["g"], speech=[()]))
    assert found[1:] == [None, None, None], "silence; too few frames; everywhere"
    fired = [name for name, on in zip(phones, z[:, 0], strict=True) if on]
    share = fired.count("S") / len(fired)
    assert found[0] == ("S", pytest.approx(share))
    assert 0.7 < share < 1
    rates, tags = np.full((1, 1), 0.1), BestTags((), *(np.zeros((0, 1), int) for _ in range(3)))
    assert describe(0, rates, ("all",), tags, None, ("S", 0.914)) == (
        "fires on 10.0 % of frames; phone S on 91 % of its aligned frames"
    )


def test_words_are_for_extremes_only() -> None:
    middle = dict.fromkeys(map(str, MEASURES), 0.5)
    assert Acoustics({}, middle).words == ()
    assert Acoustics({}, middle | {"level_db": 0.1, "centroid_hz": 0.9}).words == ("quiet", "bright")
    assert Acoustics({}, middle | {"onset_db": 0.05}).words == ()


def stored(folder: Path) -> StoredWindows:
    """A store that says it was collected from the clips in `folder`: two plain windows, one of noisy speech."""
    manifest = write_clips(folder / "audio")
    described = [
        {"kind": "speech", "treatment": "plain", "clips": [0], "source": "buzzes", "group": "g0", "text": "buzz buzz"},
        {"kind": "nonspeech", "treatment": "plain", "clips": [1], "source": "hisses", "group": "g1", "text": ""},
        {"kind": "speech", "treatment": "noisy", "clips": [3, 2], "source": "buzzes", "group": "g3",
         "text": "buzz buzz"},
        {"kind": "nonspeech", "treatment": "varied", "clips": [1, 2], "source": "hisses", "group": "g1", "text": ""},
        {"kind": "nonspeech", "treatment": "synthetic", "clips": [], "source": "synthetic", "group": "s",
         "generator": "music", "text": ""},
    ]  # fmt: skip
    described = [{"seed": 0, "lang": "", "snr_db": 99.0, "generator": ""} | d for d in described]
    windows = [Window({POINT: np.ones((40, 4), np.float32)}, 25) for _ in described]
    store = write_store(folder / "store", windows, described)
    store.header["manifests"] = [str(manifest)]
    return StoredWindows(store, POINT)


def test_labels_come_from_the_manifests(tmp_path: Path) -> None:
    labels = stored(tmp_path).labels
    assert labels[1].tags == {"kind:nonspeech", "source:hisses", "category:noise", "label:hiss"}
    assert "label:beep" not in labels[2].tags, "noise may have been replaced by a synthetic one"
    assert {"label:hiss", "label:beep"} <= labels[3].tags
    assert "generator:music" in labels[4].tags
    assert [window.domain for window in labels] == ["speech", "sounds", None, None, "music"]


def test_labels_without_the_manifests_are_what_the_store_knows(tmp_path: Path) -> None:
    windows = stored(tmp_path)
    manifest = Path(windows.store.header["manifests"][0])
    for changed in (manifest.read_text().replace("buzz buzz", "other words"), "{}\n", None):
        if changed is None:
            manifest.unlink()
        else:
            manifest.write_text(changed)
        assert stored_clips(windows.store) is None
    labels = window_labels(windows.store)
    assert labels[1].tags == {"kind:nonspeech", "source:hisses"}
    assert [window.domain for window in labels] == ["speech", None, None, None, "music"]
    assert acoustics_of_tops(StoredWindows(windows.store, POINT), [[(0, 3)]]) is None


def test_top_frames_are_listened_to(tmp_path: Path) -> None:
    windows = stored(tmp_path)
    buzz, hiss, both, nothing = acoustics_of_tops(
        windows, [[(0, 5)], [(1, 5), (1, 20)], [(0, 5), (1, 5)], []]
    ) or [None] * 4  # fmt: skip
    assert nothing is None
    assert buzz is not None
    assert hiss is not None
    assert both is not None
    assert hiss.values["flatness"] > 10 * buzz.values["flatness"]
    assert hiss.values["level_db"] == pytest.approx(-20, abs=1)
    assert buzz.values["level_db"] == pytest.approx(20 * np.log10(0.2), abs=1)
    assert buzz.ranks["level_db"] > 0.5 > hiss.ranks["level_db"]


def test_audio_that_has_gone_is_left_out(tmp_path: Path) -> None:
    windows = stored(tmp_path)
    (tmp_path / "audio" / "buzz0.wav").unlink()
    found = acoustics_of_tops(windows, [[(0, 5)], [(1, 5)]])
    assert found is not None
    assert found[0] is None
    assert found[1] is not None
