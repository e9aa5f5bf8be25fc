"""What a server may serve, with a pack of one feature and a model that is only a name and a hash."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from steer_asr.edits import Edit
from steer_asr.errors import ModelError, PackError, PackMismatchError, SteerOptionError
from steer_asr.models import ModelFiles
from steer_asr.pack import SteerPack, save_pack
from steer_asr.sae import SaeFeatures
from steer_asr.steering import Steering
from steer_asr_serving.served import ServedModel
from steer_asr_serving.settings import Settings

SHA256, OTHER_SHA256 = "a" * 64, "b" * 64


@pytest.fixture(autouse=True)
def packs(tmp_path, monkeypatch) -> Path:
    """A folder with a pack for our model and one for another."""
    monkeypatch.setenv("STEER_ASR_PACKS", str(tmp_path))
    monkeypatch.setattr(
        "steer_asr_serving.served.find_model", lambda _name: ModelFiles("ours", tmp_path, SHA256, "path")
    )
    for name, sha256 in (("quiet", SHA256), ("foreign", OTHER_SHA256)):
        save_pack(one_feature_pack(name, sha256), tmp_path / name, card="# A pack for tests")
    return tmp_path


def test_packs_made_for_the_model_are_offered() -> None:
    served = ServedModel.find(Settings(steer="0.5"))
    assert (served.name, served.packs) == ("ours", ("quiet",))
    assert served.default_steering == served.steering(None) == Steering(strength=0.5)


def test_both_names_of_the_model() -> None:
    served = ServedModel.find(Settings(steer="off"))
    assert served.default_steering is None
    assert [served.answers_to(name) for name in ("ours", "whisper-1", "base")] == [True, True, False]


def test_the_operator_may_give_a_pack_folder_and_a_request_may_not(packs) -> None:
    served = ServedModel.find(Settings(steer=str(packs / "quiet")))
    assert served.steering(None) == Steering(pack=str(packs / "quiet"))
    with pytest.raises(SteerOptionError, match="unknown pack"):
        served.steering(str(packs / "quiet"))


def test_a_pack_for_another_model_is_not_offered() -> None:
    with pytest.raises(SteerOptionError, match="unknown pack 'foreign'"):
        ServedModel.find(Settings(steer="off")).steering("foreign")


def test_a_model_without_a_pack_can_still_be_served(packs) -> None:
    shutil.rmtree(packs / "quiet")
    with pytest.raises(PackError, match="no default pack for 'ours'.*--steer off"):
        ServedModel.find(Settings())
    assert ServedModel.find(Settings(steer="off")).packs == ()


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"steer": "foreign"}, PackMismatchError),
        ({"steer": "no-such-pack"}, PackError),
        ({"steer": "2"}, SteerOptionError),
        ({"compute_type": "int9"}, ModelError),
    ],
)
def test_what_cannot_be_served_is_found_before_the_start(settings: dict, error: type[Exception]) -> None:
    with pytest.raises(error):
        ServedModel.find(Settings(**settings))


def one_feature_pack(name: str, sha256: str) -> SteerPack:
    features = SaeFeatures(
        W_enc=np.ones((4, 1), np.float32), b_enc=np.zeros(1, np.float32), W_dec=np.ones((1, 4), np.float32),
        b_dec=np.zeros(4, np.float32), threshold=np.zeros(1, np.float32),
    )  # fmt: skip
    return SteerPack(
        name=name, base_model="ours", base_sha256=sha256, hook_point="encoder.output", front_end="faster-whisper",
        feature_ids=(7,), features=features, edits=(Edit(7, "scale", 0.0),),
    )  # fmt: skip
