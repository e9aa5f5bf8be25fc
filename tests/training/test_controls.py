"""Published and control methods, on stores where the right features and directions are known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import pytest
from faster_whisper import WhisperModel
from typer.testing import CliRunner

from steer_asr import load_model
from steer_asr.edits import Edit
from steer_asr.errors import HookPointError, PackError, PackMismatchError, SteerOptionError
from steer_asr.gate import Gate
from steer_asr.models import ModelFiles, find_model
from steer_asr.pack import FRONT_END, SteerPack, load_pack
from steer_asr.sae import SaeFeatures, save_features
from steer_asr.steering import steer_frames
from steer_asr_training import stock_scores
from steer_asr_training.answers import MAX_TOKENS
from steer_asr_training.cli import app
from steer_asr_training.control_pack import control_pack, export_control, load_dictionary, mean_change
from steer_asr_training.controls import PUBLISHED, constant_shift, control_config, top_coefficients
from steer_asr_training.encoders import Window, load_encoder
from steer_asr_training.stock_scores import StockScores, window_labels
from steer_asr_training.store import ActivationStore
from tests.helpers import noise, tone
from tests.training.builders import POINT, write_store

D_IN, N_FEATURES, FRAMES, REAL = 16, 8, 40, 30
MODEL = ModelFiles("test", Path("nowhere"), "0" * 64, "path")
SPEECH, NONSPEECH, HALLUCINATED = 0, 1, 2
"""Features that fire on speech only, on all non-speech only, and on every second window of non-speech only."""


def directions() -> np.ndarray:
    """Orthonormal rows: float32 [N_FEATURES, D_IN]."""
    q, _ = np.linalg.qr(np.random.default_rng(3).standard_normal((D_IN, N_FEATURES)))
    return q.T.astype(np.float32)


@pytest.fixture
def dictionary() -> SaeFeatures:
    rows = directions()
    n = len(rows)
    return SaeFeatures(
        rows.T.copy(), np.zeros(n, np.float32), np.full(n, 0.25, np.float32), rows, np.zeros(D_IN, np.float32)
    )


@pytest.fixture
def store(tmp_path: Path) -> ActivationStore:
    """24 windows: speech, then non-speech, in turn. Of the non-speech, every second one is hallucinated upon.

    Features 3.. fire alike everywhere; what the padding holds must never count.
    """
    rng = np.random.default_rng(0)
    windows, described = [], []
    for i in range(24):
        z = (rng.random((FRAMES, N_FEATURES)) < 0.3) * rng.uniform(1, 2, (FRAMES, N_FEATURES))
        z[:, [SPEECH, NONSPEECH, HALLUCINATED]] = 0
        if i % 2 == 0:
            z[5:15, SPEECH] = 4.0
        else:
            z[5:15, NONSPEECH] = 2.0
            if i % 4 == 1:
                z[5:20, HALLUCINATED] = 3.0
        z[REAL:] = 9.0
        windows.append(Window({POINT: (z @ directions()).astype(np.float32)}, n_real_frames=REAL))
        described.append({"kind": "nonspeech" if i % 2 else "speech", "source": "planted", "treatment": "plain"})
    return write_store(tmp_path / "store", windows, described)


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Stock scores as planted, instead of decoding; the list grows by the windows of each call."""
    calls: list[list[int]] = []

    def planted(_store: ActivationStore, windows: list[int], _folder: Path, _max_tokens: int) -> StockScores:
        calls.append(windows)
        hallucinated = np.array([i % 4 == 1 for i in windows])
        return StockScores(np.where(hallucinated, 0.4, 0.9), np.where(hallucinated, -0.5, -2.0))

    monkeypatch.setattr(stock_scores, "stock_scores", planted)
    return calls


def learned_pack(dictionary: SaeFeatures) -> SteerPack:
    """A gated pack that scales two features, as `learn` makes them: features 0, 4, 5 of the dictionary."""
    ids = (SPEECH, 4, 5)
    features = SaeFeatures(
        dictionary.W_enc[:, ids], dictionary.b_enc[list(ids)], dictionary.threshold[list(ids)],
        dictionary.W_dec[list(ids)], dictionary.b_dec,
    )  # fmt: skip
    gate = Gate(np.array([2.0, 0.0, 0.5], np.float32), -1.0, 1, 2, (1.0, 0.0), (1.0, 0.0))
    return SteerPack(
        "ours", "test", "0" * 64, POINT, FRONT_END, ids, features,
        (Edit(4, "scale", -1.0), Edit(5, "add", 0.7)), gate,
    )  # fmt: skip


def steered(pack: SteerPack, x: np.ndarray, strength: float = 1.0) -> np.ndarray:
    edited = x.copy()
    steer_frames(edited, pack, strength)
    return edited


def test_audiosae_moves_the_features_that_differ_against_their_coefficients(
    store: ActivationStore, dictionary: SaeFeatures
) -> None:
    config = control_config("audiosae", k=2, alpha=1.5, labels="speech")
    pack = control_pack(config, store, MODEL, name="c", dictionary=dictionary)
    assert {edit.feature: edit.value for edit in pack.edits} == {SPEECH: -1.5, NONSPEECH: 1.5}
    assert all(edit.op == "add" for edit in pack.edits)
    assert pack.gate is None
    vector = 1.5 * (directions()[NONSPEECH] - directions()[SPEECH])
    x = np.random.default_rng(1).standard_normal((50, D_IN)).astype(np.float32)
    np.testing.assert_allclose(steered(pack, x), x + vector, atol=2e-6)
    np.testing.assert_allclose(steered(pack, x, 0.5), x + 0.5 * vector, atol=2e-6)
    np.testing.assert_array_equal(steered(pack, x, 0.0), x)


@pytest.mark.parametrize(("method", "labels"), [("audiosae", "no_speech_prob"), ("additive", "whisper_rule")])
def test_published_labels_contrast_hallucinated_with_other_non_speech(
    method: str, labels: str, store: ActivationStore, dictionary: SaeFeatures, scored: list[list[int]]
) -> None:
    config = control_config(method, k=1)
    assert config.labels == labels, "the paper's"
    pack = control_pack(config, store, MODEL, name="c", dictionary=dictionary)
    assert pack.feature_ids == (HALLUCINATED,)
    assert pack.edits[0].value < 0
    assert pack.provenance["recipe"]["found"]["windows_label_1"] == 6
    assert scored == [list(range(1, 24, 2))], "non-speech only"
    control_pack(config, store, MODEL, name="c", dictionary=dictionary)
    assert len(scored) == 1, "scores are kept beside the activations"


def test_kept_scores_are_not_used_for_another_model(store: ActivationStore, scored: list[list[int]]) -> None:
    window_labels("no_speech_prob", store, MODEL)
    window_labels("no_speech_prob", store, replace(MODEL, sha256="1" * 64))
    assert len(scored) == 2


def test_rules_are_those_of_the_papers() -> None:
    scores = StockScores(np.array([0.4, 0.5, 0.59, 0.9, 0.9]), np.array([-2.0, -2.0, -2.0, -0.9, -1.0]))
    assert stock_scores.RULES["no_speech_prob"].hallucinated(scores).tolist() == [True, False, False, False, False]
    assert stock_scores.RULES["whisper_rule"].hallucinated(scores).tolist() == [True, True, True, True, False]


def test_additive_moves_by_the_mean_activation_where_a_feature_fires(
    store: ActivationStore, dictionary: SaeFeatures
) -> None:
    config = control_config("additive", k=2, alpha=2.0, labels="speech")
    pack = control_pack(config, store, MODEL, name="c", dictionary=dictionary)
    values = {edit.feature: edit.value for edit in pack.edits}
    assert values[SPEECH] == pytest.approx(-2 * 4.0, rel=1e-3), "planted at 4; silent frames and padding do not count"
    assert values[NONSPEECH] == pytest.approx(2 * 2.0, rel=1e-3)


def test_l1_and_pools_find_the_same_features(store: ActivationStore, dictionary: SaeFeatures) -> None:
    for given in ({"penalty": "l1"}, {"pool": "max"}, {"pool": "nonzero_mean"}):
        config = control_config("audiosae", k=2, labels="speech", **given)
        assert set(control_pack(config, store, MODEL, name="c", dictionary=dictionary).feature_ids) == {0, 1}


def test_svector_points_from_speech_to_non_speech(store: ActivationStore) -> None:
    pack = control_pack(control_config("svector", alpha=3.0), store, MODEL, name="c")
    # Means over 30 real frames: speech has 10 frames of 4; non-speech 10 of 2, and half of it 15 of 3.
    planted = np.zeros(N_FEATURES)
    planted[[SPEECH, NONSPEECH, HALLUCINATED]] = -4 / 3, 2 / 3, 3 / 4
    found = pack.features.W_dec[0] @ directions().T
    assert np.linalg.norm(pack.features.W_dec[0]) == pytest.approx(1.0, abs=1e-6)
    assert planted @ found / np.linalg.norm(planted) > 0.99
    assert pack.provenance["recipe"]["found"]["difference"] == pytest.approx(np.linalg.norm(planted), rel=0.1)


def test_svector_on_hallucinated_non_speech(store: ActivationStore, scored: list[list[int]]) -> None:
    pack = control_pack(control_config("svector", labels="no_speech_prob"), store, MODEL, name="c")
    assert scored
    assert pack.features.W_dec[0] @ directions()[HALLUCINATED] < -0.95, "away from what is hallucinated upon"


def test_a_plain_vector_is_added_exactly_whatever_the_frame_holds(store: ActivationStore) -> None:
    pack = control_pack(control_config("random", alpha=2.5), store, MODEL, name="c")
    x = (np.random.default_rng(2).standard_normal((200, D_IN)) * 10.0 ** np.arange(-8, 8)).astype(np.float32)
    expected = x + np.float32(2.5) * pack.features.W_dec[0]
    np.testing.assert_array_equal(steered(pack, x), expected)
    assert steer_frames(x.copy(), pack, 1.0).activations.tolist() == [[1.0]] * 200


def test_random_depends_on_the_seed_alone(store: ActivationStore, dictionary: SaeFeatures) -> None:
    def vector(seed: int, sae: SaeFeatures | None = None) -> np.ndarray:
        pack = control_pack(control_config("random", k=3, seed=seed), store, MODEL, name="c", dictionary=sae)
        return steered(pack, np.zeros((1, D_IN), np.float32))[0]

    np.testing.assert_array_equal(vector(1), vector(1))
    assert np.linalg.norm(vector(1)) == pytest.approx(3.0, rel=1e-6)
    assert abs(vector(1) @ vector(2)) < 0.9 * 9
    in_dictionary = vector(1, dictionary) @ directions().T / 3
    assert sorted(np.abs(in_dictionary).round(4)) == [0.0] * 5 + [1.0] * 3
    np.testing.assert_array_equal(vector(1, dictionary), vector(1, dictionary))


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("method", PUBLISHED)
def test_norms_match_on_non_speech(method: str, gated: bool, store: ActivationStore, dictionary: SaeFeatures) -> None:
    ours = learned_pack(dictionary)
    pack = control_pack(
        control_config(method, k=2, labels="speech"), store, MODEL, name="c", match_norm=ours,
        dictionary=dictionary if method in ("audiosae", "additive") else None, gate_from=ours if gated else None,
    )  # fmt: skip

    def moved(which: SteerPack) -> float:
        lengths = []
        for i in range(1, 24, 2):
            x = store.window(i, POINT).astype(np.float32)
            z = which.features.encode(x).astype(np.float64)
            weights = which.gate(z.astype(np.float32)).weights if which.gate else np.ones(len(x))
            change = weights[:, None] * ((which.edit_plan(z) - z) @ which.features.W_dec)
            lengths += np.sqrt((change**2).sum(axis=1)).tolist()
        return float(np.mean(lengths))

    assert moved(ours) > 0.1
    assert moved(pack) == pytest.approx(moved(ours), rel=1e-5)
    assert pack.provenance["recipe"]["norm_matched_to"]["pack"] == "ours"


def test_a_lent_gate_weighs_the_vector_as_in_its_own_pack(store: ActivationStore, dictionary: SaeFeatures) -> None:
    ours = learned_pack(dictionary)
    silent = replace(ours, gate=replace(ours.gate, frame_calibration=(8.0, 4.0)))  # pyright: ignore[reportArgumentType]
    plain = control_pack(control_config("svector"), store, MODEL, name="c")
    for config, sae in (
        (control_config("svector"), None),
        (control_config("audiosae", k=2, labels="speech"), dictionary),
    ):
        pack = control_pack(config, store, MODEL, name="c", dictionary=sae, gate_from=silent)
        assert len(pack.feature_ids) == {"svector": 3, "audiosae": 3}[config.method], "what the gate reads, once"
        for i in (0, 1):
            x = store.window(i, POINT).astype(np.float32)
            report, wanted = steer_frames(x.copy(), pack, 1.0), steer_frames(x.copy(), silent, 1.0)
            np.testing.assert_allclose(report.weights, wanted.weights, atol=1e-6)
            assert report.nobody_speaks == pytest.approx(wanted.nobody_speaks, abs=1e-6)
            protected = wanted.weights == 0
            np.testing.assert_array_equal(steered(pack, x)[protected], x[protected])
            if i == 0:
                assert protected[5:15].all(), "speech is left alone"
            if config.method == "svector":
                shift = steered(plain, x) - x
                np.testing.assert_allclose(steered(pack, x) - x, wanted.weights[:, None] * shift, atol=1e-5)


def test_a_gate_of_another_dictionary_is_refused(store: ActivationStore, dictionary: SaeFeatures) -> None:
    other = replace(dictionary, W_enc=-dictionary.W_enc)
    config = control_config("audiosae", k=2, labels="speech")
    with pytest.raises(PackMismatchError, match="feature 0 of the dictionary is not feature 0 of pack 'ours'"):
        control_pack(config, store, MODEL, name="c", dictionary=dictionary, gate_from=learned_pack(other))
    ungated = replace(learned_pack(dictionary), gate=None)
    with pytest.raises(PackError, match="no gate to lend"):
        control_pack(config, store, MODEL, name="c", dictionary=dictionary, gate_from=ungated)


@pytest.mark.parametrize("method", PUBLISHED)
def test_a_pack_is_the_same_again_and_survives_the_disk(
    method: str, store: ActivationStore, dictionary: SaeFeatures, tmp_path: Path
) -> None:
    config = control_config(method, k=2, labels="speech", seed=4)
    sae = dictionary if method in ("audiosae", "additive") else None
    written = [
        export_control(control_pack(config, store, MODEL, name="c", dictionary=sae), tmp_path / folder)
        for folder in ("first", "second")
    ]
    for name in ("steer.json", "sae_weights.safetensors", "README.md"):
        assert (written[0] / name).read_bytes() == (written[1] / name).read_bytes()
    pack, made = load_pack(written[0]), control_pack(config, store, MODEL, name="c", dictionary=sae)
    x = np.random.default_rng(5).standard_normal((20, D_IN)).astype(np.float32)
    np.testing.assert_array_equal(steered(pack, x), steered(made, x))
    assert pack.base_sha256 == MODEL.sha256
    assert pack.provenance["licence"] == "MIT"
    assert pack.provenance["recipe"]["control"]["method"] == method
    found_on = [{"source": "planted", "kind": kind, "windows": 12, "licences": []} for kind in ("nonspeech", "speech")]
    assert pack.provenance["training_data"] == ([] if method == "random" else found_on)
    card = (written[0] / "README.md").read_text(encoding="utf-8")
    assert "a control" in card
    assert "Not for use" in card


def test_licences_come_from_the_manifests_that_the_store_names(store: ActivationStore, tmp_path: Path) -> None:
    manifest = tmp_path / "clips.jsonl"
    row = {"audio_filepath": "a.wav", "duration": 1.0, "kind": "speech", "text": "a", "source": "planted"}
    lines = [row | {"licence": "CC0", "shippable": True}, row | {"licence": "unclear"}]
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    store.header |= {"manifests": [str(manifest), str(tmp_path / "gone.jsonl")], "data": {"only_shippable": True}}
    pack = control_pack(control_config("svector"), store, MODEL, name="c")
    assert {tuple(row["licences"]) for row in pack.provenance["training_data"]} == {("CC0",)}


def test_what_does_not_belong_together_is_refused(store: ActivationStore, dictionary: SaeFeatures) -> None:
    other = replace(MODEL, name="tiny", sha256="f" * 64)
    with pytest.raises(PackMismatchError, match="'test' .weights 000000000000.*'tiny' .weights ffffffffffff"):
        control_pack(control_config("random"), store, other, name="c")
    foreign = replace(learned_pack(dictionary), base_sha256="f" * 64)
    with pytest.raises(PackMismatchError, match="was made for"):
        control_pack(control_config("random"), store, MODEL, name="c", match_norm=foreign)
    with pytest.raises(PackMismatchError, match="was made for"):
        control_pack(control_config("random"), store, MODEL, name="c", gate_from=foreign)
    elsewhere = replace(learned_pack(dictionary), hook_point="encoder.layers.3")
    with pytest.raises(PackMismatchError, match=r"encoder\.layers\.3"):
        control_pack(control_config("random"), store, MODEL, name="c", match_norm=elsewhere)
    with pytest.raises(HookPointError, match="encoder.output"):
        control_pack(control_config("random", hook_point="encoder.layers.3"), store, MODEL, name="c")
    store.header["front_end"] = "transformers"
    with pytest.raises(PackMismatchError, match="front-end 'transformers'"):
        control_pack(control_config("random"), store, MODEL, name="c")


def test_a_dictionary_of_something_else_is_refused(
    store: ActivationStore, dictionary: SaeFeatures, tmp_path: Path
) -> None:
    config = control_config("audiosae")
    narrow = SaeFeatures(
        dictionary.W_enc[:10], dictionary.b_enc, dictionary.threshold, dictionary.W_dec[:, :10], dictionary.b_dec[:10]
    )
    save_features(tmp_path, narrow, {"hook_name": POINT, "model_sha256": "0" * 64})
    with pytest.raises(PackMismatchError, match="10 wide.*16"):
        load_dictionary(tmp_path, store, config)
    save_features(tmp_path, dictionary, {"hook_name": "encoder.layers.1"})
    with pytest.raises(PackMismatchError, match=r"encoder\.layers\.1"):
        load_dictionary(tmp_path, store, config)
    save_features(tmp_path, dictionary, {"hook_name": POINT, "model_sha256": "e" * 64})
    with pytest.raises(PackMismatchError, match="model_sha256 'eee"):
        load_dictionary(tmp_path, store, config)
    save_features(tmp_path, dictionary, {})
    np.testing.assert_array_equal(load_dictionary(tmp_path, store, config).W_dec, dictionary.W_dec)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "audio_sae"}, "did you mean 'audiosae'"),
        ({"method": "audiosae", "alpha": 0.0}, "steers nothing"),
        ({"method": "audiosae", "alpha": float("nan")}, "steers nothing"),
        ({"method": "audiosae", "k": 0}, "at least one feature"),
        ({"method": "audiosae", "pool": "meen"}, "did you mean 'mean'"),
        ({"method": "audiosae", "labels": "speach"}, "did you mean 'speech'"),
        ({"method": "audiosae", "penalty": "l3"}, "unknown penalty"),
    ],
)
def test_bad_settings(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SteerOptionError, match=message):
        control_config(**given)


def test_bad_combinations(store: ActivationStore, dictionary: SaeFeatures, scored: list[list[int]]) -> None:
    def refused(message: str, method: str, sae: SaeFeatures | None, **given: Any) -> None:
        with pytest.raises(SteerOptionError, match=message):
            control_pack(control_config(method, **given), store, MODEL, name="c", dictionary=sae)

    refused("needs a dictionary", "audiosae", None)
    refused("needs a dictionary", "additive", None)
    refused("leave the dictionary", "svector", dictionary)
    refused("has 8 features", "audiosae", dictionary, k=9)
    refused("has 8 features", "random", dictionary, k=9)
    assert not scored, "refused before anything is decoded"
    with pytest.raises(SteerOptionError, match="only 2 of the dictionary's 3"):
        top_coefficients(np.array([0.5, 0.0, -1.0]), 3)
    assert top_coefficients(np.array([0.5, 0.0, -1.0]), 2) == (2, 0)


def test_windows_of_one_sort_are_refused(
    store: ActivationStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everywhere = StockScores(np.full(12, 0.1), np.full(12, -0.5))
    monkeypatch.setattr(stock_scores, "stock_scores", lambda *_: everywhere)
    with pytest.raises(SteerOptionError, match="takes every one of 12 non-speech windows for speech"):
        window_labels("no_speech_prob", store, MODEL)
    windows = [Window({POINT: np.ones((4, D_IN), np.float32)}, 4)] * 2
    for kind, message in (("speech", "nothing but speech"), ("nonspeech", "no speech")):
        described = [{"kind": kind, "source": "a", "treatment": "plain"}] * 2
        one_sort = write_store(tmp_path / kind, windows, described)
        with pytest.raises(SteerOptionError, match=message):
            control_pack(control_config("svector"), one_sort, MODEL, name="c")
    with pytest.raises(SteerOptionError, match="holds no non-speech"):
        window_labels("whisper_rule", ActivationStore(tmp_path / "speech"), MODEL)


def test_a_pack_that_moves_nothing_has_no_norm_to_match(store: ActivationStore, dictionary: SaeFeatures) -> None:
    ours = replace(learned_pack(dictionary), edits=(Edit(4, "scale", 1.0),))
    with pytest.raises(SteerOptionError, match="'ours' changes nothing on 12 windows"):
        control_pack(control_config("random"), store, MODEL, name="c", match_norm=ours)
    with pytest.raises(SteerOptionError, match="found no non-speech"):
        mean_change(ours, store, [])


def test_a_constant_shift_is_valid_for_any_direction() -> None:
    shift = constant_shift(np.array([0.6, -0.8]))
    np.testing.assert_allclose(shift.vector, [0.6, -0.8], rtol=1e-6)
    assert shift.features.encode(np.full((3, 2), 1e30, np.float32)).tolist() == [[1.0]] * 3


class FedWhisper(WhisperModel):
    """faster-whisper that hears a given encoder output, and keeps what it made of it."""

    x: np.ndarray
    outcome: tuple[float, float]

    def encode(self, features: np.ndarray) -> ctranslate2.StorageView:  # noqa: ARG002
        return ctranslate2.StorageView.from_array(self.x[None].copy())

    def generate_with_fallback(self, *args: Any, **kwargs: Any) -> Any:
        result = super().generate_with_fallback(*args, **kwargs)
        self.outcome = (result[0].no_speech_prob, result[1])
        return result


@pytest.fixture
def collected(tiny_whisper_dir: Path, tmp_path: Path) -> ActivationStore:
    """What the tiny random Whisper makes of tones ("speech") and noise."""
    encoder = load_encoder(str(tiny_whisper_dir), precision="float32")
    waves = [tone(1.0, 200.0 + 90 * i) if i % 2 else noise(1.0, seed=i) for i in range(8)]
    described = [
        {"kind": "speech" if i % 2 else "nonspeech", "source": "synth", "treatment": "plain", "lang": ""}
        for i in range(8)
    ]
    store = write_store(tmp_path / "activations", encoder.capture(waves, [POINT]), described)
    header = store.header | {"model_sha256": find_model(tiny_whisper_dir).sha256}
    (store.folder / "store.json").write_text(json.dumps(header), encoding="utf-8")
    return ActivationStore(store.folder)


def test_stock_scores_are_those_of_faster_whisper(collected: ActivationStore, tiny_whisper_dir: Path) -> None:
    scores = stock_scores.stock_scores(collected, [0, 1, 5], tiny_whisper_dir, MAX_TOKENS)
    brief = stock_scores.stock_scores(collected, [0, 1, 5], tiny_whisper_dir, 1)
    np.testing.assert_allclose(brief.no_speech_prob, scores.no_speech_prob, rtol=1e-5)
    model = FedWhisper(str(tiny_whisper_dir), device="cpu", compute_type="float32", cpu_threads=1)
    for row, i in enumerate((0, 1, 5)):
        model.x = collected.window(i, POINT).astype(np.float32)
        segments, _ = model.transcribe(
            noise(1.0), language="en", beam_size=1, temperature=0.0, without_timestamps=True,
            max_new_tokens=MAX_TOKENS, no_speech_threshold=None, log_prob_threshold=None,
            compression_ratio_threshold=None,
        )  # fmt: skip
        list(segments)
        assert (scores.no_speech_prob[row], scores.avg_logprob[row]) == pytest.approx(model.outcome, rel=1e-4)


def test_command_to_transcript(
    collected: ActivationStore, tiny_whisper_dir: Path, tmp_path: Path, speech: np.ndarray
) -> None:
    rows = np.random.default_rng(0).standard_normal((12, 32)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    (tmp_path / "sae").mkdir()
    zeros = np.zeros(12, np.float32)
    save_features(
        tmp_path / "sae", SaeFeatures(rows.T.copy(), zeros, zeros, rows, np.zeros(32, np.float32)), {"hook_name": POINT}
    )
    common = ["--activations", str(collected.folder), "--model", str(tiny_whisper_dir)]
    sae = ["--sae", str(tmp_path / "sae"), "--k", "3", "--labels", "speech"]

    def run(method: str, name: str, *options: str) -> SteerPack:
        result = CliRunner().invoke(app, ["control", method, *common, *options, "-o", str(tmp_path / name)])
        assert result.exit_code == 0, result.output + repr(result.exception)
        assert result.output.strip().splitlines()[-1] == str(tmp_path / name)
        return load_pack(tmp_path / name)

    packs = {method: run(method, method, *sae) for method in ("audiosae", "additive")}
    packs["svector"] = run("svector", "svector", "--alpha", "2.5")
    packs["random"] = run("random", "random", "--match-norm", str(tmp_path / "svector"), "--seed", "7")
    assert packs["random"].edits[0].value == pytest.approx(2.5, rel=1e-5)
    model = load_model(tiny_whisper_dir, device="cpu", compute_type="float32", cpu_threads=1)
    for method, pack in packs.items():
        segments, info = model.transcribe(speech, steer=pack, language="en", beam_size=1, max_new_tokens=4)
        list(segments)
        assert info.steer.pack == method
        assert [window.edited_share for window in info.steer.windows] == [1.0], "always on"

    both = CliRunner().invoke(
        app, ["control", "random", *common, "--alpha", "1", "--match-norm", "x", "-o", str(tmp_path / "no")]
    )
    assert isinstance(both.exception, SteerOptionError)
    missing = CliRunner().invoke(app, ["control", "audiosae", *common, "-o", str(tmp_path / "no")])
    assert isinstance(missing.exception, SteerOptionError)
    assert not (tmp_path / "no").exists(), "nothing half-written"
