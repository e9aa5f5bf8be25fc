"""What a server may serve, with packs of one feature and models that are only a name and a hash."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from steer_asr.errors import ModelError, PackError, PackMismatchError, SteerOptionError
from steer_asr.models import ModelFiles
from steer_asr.pack import save_pack
from steer_asr.steering import Steering
from steer_asr_serving.served import Catalogue, ServedModel
from steer_asr_serving.settings import Settings
from tests.steer_asr.hub_server import HubServer, Repo
from tests.steer_asr.packs import build_pack

SHA256, OTHER_SHA256 = "a" * 64, "b" * 64


@pytest.fixture(autouse=True)
def packs(tmp_path, monkeypatch) -> Path:
    """A folder with two packs for our model and one for another."""
    monkeypatch.setenv("STEER_ASR_PACKS", str(tmp_path))
    monkeypatch.setattr(
        "steer_asr_serving.served.find_model",
        lambda name: ModelFiles(name, tmp_path, {"ours": SHA256}.get(name, OTHER_SHA256), "path"),
    )
    for name, sha256 in (("calm", SHA256), ("quiet", SHA256), ("foreign", OTHER_SHA256)):
        save_pack(build_pack(name=name, base_sha256=sha256), tmp_path / name, card="# A pack for tests")
    return tmp_path


def ours(**settings: object) -> ServedModel:
    served = Catalogue.find(Settings(**{"models": "ours", **settings})).get("ours")  # pyright: ignore[reportArgumentType]
    assert served is not None
    return served


def test_packs_made_for_the_model_are_offered() -> None:
    served = ours(steer="0.5")
    assert list(served.packs) == ["calm", "quiet"]
    assert served.default_steering == served.steering(None) == Steering("calm", 0.5)
    assert served.steering("default") == served.steering(True) == Steering("calm")
    assert served.steering("quiet@0.25") == Steering("quiet", 0.25)


def test_only_listed_packs_are_offered_and_the_first_is_the_default(packs) -> None:
    served = ours(allowed_packs=("quiet",))
    assert dict(served.packs) == {"quiet": "quiet"}
    assert served.steering("default") == served.default_steering == Steering("quiet")
    with pytest.raises(SteerOptionError, match="unknown pack 'calm'.*Available: default, quiet"):
        served.steering("calm")
    by_folder = ours(allowed_packs=(str(packs / "quiet"), "calm"))
    assert by_folder.steering("quiet") == by_folder.steering(1) == Steering(str(packs / "quiet"))
    assert by_folder.pack_name(Steering(str(packs / "quiet"))) == "quiet"


def test_no_pack_at_all_may_be_offered() -> None:
    served = ours(allowed_packs=(), steer="off")
    for steer in (0.5, "default", "quiet"):
        with pytest.raises(SteerOptionError, match="unknown pack .* Available: none"):
            served.steering(steer)
    assert served.steering("off") is None


def test_a_listed_pack_must_be_of_some_use() -> None:
    with pytest.raises(PackError, match="'foreign' was made for none of the served models: ours"):
        ours(allowed_packs=("quiet", "foreign"))
    with pytest.raises(PackError, match="unknown pack 'quite'"):
        ours(allowed_packs=("quite",))


def test_several_models_have_their_own_packs() -> None:
    catalogue = Catalogue.find(Settings(models=("ours", "theirs"), allowed_packs=("foreign", "quiet"), steer="0.5"))
    steerings = {name: served.default_steering for name, served in catalogue.models.items()}
    assert steerings == {"ours": Steering("quiet", 0.5), "theirs": Steering("foreign", 0.5)}
    assert [getattr(catalogue.get(name), "name", None) for name in ("theirs", "whisper-1", "base")] == [
        "theirs",
        "ours",
        None,
    ]


def test_two_models_of_one_name_cannot_be_told_apart() -> None:
    with pytest.raises(ModelError, match="same name: ours, ours"):
        Catalogue.find(Settings(models=("ours", "ours")))


def test_the_operator_may_give_a_pack_folder_and_a_request_may_not(packs) -> None:
    served = ours(steer=str(packs / "quiet"))
    assert served.steering(None) == Steering(pack=str(packs / "quiet"))
    assert served.pack_name(Steering(pack=str(packs / "quiet"))) == "quiet"
    with pytest.raises(SteerOptionError, match="unknown pack"):
        served.steering(str(packs / "quiet"))


def test_a_pack_for_another_model_is_not_offered() -> None:
    with pytest.raises(SteerOptionError, match="unknown pack 'foreign'"):
        ours(steer="off").steering("foreign")


def test_the_maximum_holds_for_requests_and_for_the_default() -> None:
    served = ours(steer="0.25", max_steer=0.5)
    assert served.steering(0.5) == Steering("calm", 0.5)
    for steer in (0.75, True, "quiet", {"pack": "quiet"}):
        with pytest.raises(SteerOptionError, match="above this server's maximum; send steer=0.5 or less"):
            served.steering(steer)
    with pytest.raises(SteerOptionError, match="steer 'default' is above max_steer"):
        ours(max_steer=0.5)


def test_a_model_without_a_pack_can_still_be_served(packs) -> None:
    shutil.rmtree(packs / "quiet")
    shutil.rmtree(packs / "calm")
    with pytest.raises(PackError, match="no default pack for 'ours'.*--steer off"):
        ours()
    assert ours(steer="off").packs == {}


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
        ours(**settings)


CURVE = ({"strength": 0.25, "changed_words": 0.0}, {"strength": 0.75, "changed_words": 0.5})


def test_a_bound_on_wer_is_settled_before_a_job_is_made(packs) -> None:
    save_pack(build_pack(name="calm", base_sha256=SHA256, calibration=CURVE), packs / "calm", card="")
    served = ours(steer="max_wer=0.25")
    assert served.default_steering == Steering("calm", 0.5)
    assert served.steering({"max_wer_increase": 0.0}) == Steering("calm", 0.25)
    assert served.steering("calm@max_wer=0.5") == Steering("calm", 0.75)
    with pytest.raises(SteerOptionError, match="'quiet' has no strength curve"):
        served.steering("quiet@max_wer=0.5")
    save_pack(build_pack(base_sha256=SHA256, calibration=CURVE[1:]), packs / "quiet", card="")
    with pytest.raises(SteerOptionError, match="leaves no strength of pack 'quiet'"):
        ours().steering("quiet@max_wer=0.25")
    by_folder = ours(allowed_packs=(), steer=f"{packs / 'calm'}@max_wer=0.5")
    assert by_folder.default_steering == Steering(str(packs / "calm"), 0.75)


def test_the_maximum_caps_what_a_bound_would_choose(packs) -> None:
    save_pack(build_pack(name="calm", base_sha256=SHA256, calibration=CURVE), packs / "calm", card="")
    assert ours(steer="max_wer=1", max_steer=0.5).default_steering == Steering("calm", 0.5)
    served = ours(steer="off", max_steer=0.5)
    assert served.steering("max_wer=0.5") == Steering("calm", 0.5)
    assert served.steering("max_wer=0") == Steering("calm", 0.25)
    with pytest.raises(SteerOptionError, match="maximum strength is 0"):
        ours(steer="off", max_steer=0).steering("max_wer=0.5")


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[HubServer]:
    """A Hugging Face Hub with one pack for our model."""
    with HubServer() as server, monkeypatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", server.url)
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}")
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        server.repos["owner/hushed"] = Repo()
        folder = save_pack(build_pack(base_sha256=SHA256, calibration=CURVE), tmp_path / "hub" / "x", card="")
        server.repos["owner/hushed"].commit({file.name: file.read_bytes() for file in folder.iterdir()})
        yield server


def test_a_request_fetches_nothing_from_the_hub(hub: HubServer) -> None:
    served = ours()
    for steer in (
        "hf://owner/hushed",
        "hf://owner/hushed@0.5",
        "hf://owner/hushed@max_wer=0.5",
        {"pack": "hf://owner/hushed"},
        {"pack": "hf://owner/hushed@main", "strength": 0.5},
        Steering("hf://owner/hushed", max_wer_increase=0.5),
    ):
        with pytest.raises(SteerOptionError, match="unknown pack 'hf://owner/hushed"):
            served.steering(steer)
    assert hub.requests == []


def test_the_operator_may_configure_a_pack_of_the_hub(hub: HubServer) -> None:
    [commit] = hub.repos["owner/hushed"].commits
    source = f"hf://owner/hushed@{commit}"
    served = ours(allowed_packs=("hf://owner/hushed", "calm"), steer="0.5")
    assert dict(served.packs) == {"owner/hushed": source, "calm": "calm"}
    assert served.default_steering == Steering(source, 0.5)
    assert served.pack_name(Steering(source)) == "owner/hushed"
    asked = len(hub.requests)
    hub.repos["owner/hushed"].commit({"steer.json": b"{}"})  # whatever comes later is not served
    assert served.steering("owner/hushed@max_wer=0.5") == Steering(source, 0.75)
    assert served.steering("default") == Steering(source)
    with pytest.raises(SteerOptionError, match="unknown pack 'hf://owner/hushed'"):
        served.steering("hf://owner/hushed")
    assert len(hub.requests) == asked

    default = ours(allowed_packs=(), steer=f"{source}@0.25")
    assert default.default_steering == Steering(source, 0.25)
    assert default.pack_name(Steering(source)) == "owner/hushed"
    with pytest.raises(PackError, match="there is no repository owner/none"):
        ours(allowed_packs=("hf://owner/none",))
