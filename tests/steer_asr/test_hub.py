"""Packs on the Hugging Face Hub, against a local HTTP server that speaks the part of its API that is called."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, constants

from steer_asr.errors import (
    HubError,
    HubNotFoundError,
    HubOfflineError,
    HubTokenError,
    PackError,
    PackMismatchError,
)
from steer_asr.hub import Reference
from steer_asr.pack import MAX_PACK_BYTES, load_pack, pinned, save_pack
from steer_asr.publish import push_pack
from steer_asr.steering import parse_steer
from tests.steer_asr.hub_server import HubServer, Repo
from tests.steer_asr.packs import build_pack, open_gate

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub's LFS upload
PROVENANCE = {
    "licence": "MIT",
    "training_data": [{"source": "esc10", "kind": "nonspeech", "clips": 3, "licences": ["CC BY 3.0"]}],
    "recipe": {"name": "mini"},
    "code": {"steer-asr": "0.1.0"},
}
CARD = "---\nlicense: mit\nbase_model: base\nlanguage: en\ntags: [mine]\n---\n\n# My pack\n"
NEEDED = {"steer.json", "cfg.json", "sae_weights.safetensors"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """The hub that this process talks to, with an empty cache, and a token that may write below owner/."""
    monkeypatch.setenv("HF_TOKEN", "hf_writer")
    with HubServer() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # its protocol is not HTTP that can be mocked
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pack = build_pack(gate=open_gate(3), base_model="base", provenance=PROVENANCE)
    return save_pack(pack, tmp_path / "mine", card=CARD, picture=b"<svg/>")


@pytest.fixture
def pushed(hub: HubServer, folder: Path) -> str:  # noqa: ARG001  (the hub has to be there)
    return push_pack(folder, "owner/quiet")


def test_a_pack_comes_back_as_it_went(hub: HubServer, folder: Path, pushed: str) -> None:
    [commit] = hub.repos["owner/quiet"].commits
    assert pushed == f"hf://owner/quiet@{commit}"
    for name in ("hf://owner/quiet", pushed, "hf://owner/quiet@main"):
        pack = load_pack(name)
        assert (pack.name, pack.base_sha256, pack.provenance) == ("owner/quiet", "0" * 64, PROVENANCE)
        assert pack.path is not None
        assert pack.path.name == commit
        assert (pack.path / "steer.json").read_bytes() == (folder / "steer.json").read_bytes()
        assert (pack.path / "strength.svg").read_bytes() == b"<svg/>"
    assert len(hub.lfs) == 1, "weights travel through Git LFS"
    assert hub.tokens_at_cdn == 0


@pytest.mark.usefixtures("pushed")
def test_the_card_says_licence_and_provenance(hub: HubServer, folder: Path) -> None:
    [files] = hub.repos["owner/quiet"].commits.values()
    card = ModelCard(files["README.md"].decode())
    data = card.data.to_dict()
    assert card.text.strip() == "# My pack"
    assert (data["license"], data["base_model"], data["library_name"], data["language"]) == (
        "mit",
        "openai/whisper-base",
        "steer-asr",
        "en",
    )
    assert {"mine", "steer-asr", "whisper"} <= set(data["tags"])
    ours = data["steer_asr"]
    assert ours["training_data"] == PROVENANCE["training_data"]
    assert (ours["base_model_sha256"], ours["recipe"]) == ("0" * 64, "mini")
    assert set(ours["sha256"]) == NEEDED
    assert (folder / "README.md").read_text() == CARD, "the folder itself stays as it is"


def test_an_unknown_licence_is_named_and_none_is_refused(hub: HubServer, tmp_path: Path) -> None:
    special = build_pack(base_model="mine", provenance={"licence": "Our Own 1.0"})
    push_pack(save_pack(special, tmp_path / "special", card="# No metadata yet\n"), "owner/special")
    [files] = hub.repos["owner/special"].commits.values()
    data = ModelCard(files["README.md"].decode()).data.to_dict()
    assert (data["license"], data["license_name"]) == ("other", "Our Own 1.0")
    assert "base_model" not in data, "the hub refuses what is not one of its names"

    before = list(hub.requests)
    with pytest.raises(PackError, match=r"does not say its licence.*provenance\.licence"):
        push_pack(save_pack(build_pack(), tmp_path / "bare", card="# x"), "owner/bare")
    with pytest.raises(PackError, match="metadata at its top cannot be read"):
        push_pack(save_pack(special, tmp_path / "odd", card="---\na: [\n---\n"), "owner/odd")
    (tmp_path / "special" / "README.md").unlink()
    with pytest.raises(PackError, match="no model card"):
        push_pack(tmp_path / "special", "owner/special")
    with pytest.raises(HubError, match="owner/name"):
        push_pack(tmp_path / "special", "just-a-name")
    assert hub.requests == before, "found out before anything was asked or sent"


def test_pushing_again_changes_what_has_changed(hub: HubServer, folder: Path, pushed: str) -> None:
    assert push_pack(folder, "owner/quiet") == pushed, "nothing new, no commit"
    (folder / "notes.txt").write_text("private")
    header = json.loads((folder / "steer.json").read_text())
    header["edits"][0]["value"] = 0.5
    (folder / "steer.json").write_text(json.dumps(header))
    second = push_pack(folder, "owner/quiet", message="Half of it")
    repo = hub.repos["owner/quiet"]
    assert len(repo.commits) == 2
    assert set(repo.commits[second[-40:]]) == {*NEEDED, "README.md", "strength.svg"}, "and nothing else of the folder"
    assert load_pack("hf://owner/quiet").edits[0].value == 0.5
    assert load_pack(pushed).edits[0].value == 0.0, "a commit stays what it was"
    assert pinned("hf://owner/quiet") == second
    assert pinned("base") == "base"


def test_only_the_packs_files_are_fetched(hub: HubServer, pushed: str) -> None:
    repo = hub.repos["owner/quiet"]
    repo.commit({**repo.commits[pushed[-40:]], "huge.bin": b"0" * 2_000_000, "code.py": b"raise SystemExit"})
    folder = load_pack("hf://owner/quiet").path
    assert sorted(hub.downloads()) == sorted([*NEEDED, "README.md", "strength.svg"])
    assert folder is not None
    assert {path.name for path in folder.iterdir()} == {*NEEDED, "README.md", "strength.svg"}


def test_without_the_hub_the_cache_counts(
    hub: HubServer, pushed: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(HubOfflineError, match="HF_HUB_OFFLINE is set, and .* not in the Hugging Face cache"):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        load_pack("hf://owner/quiet")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    load_pack("hf://owner/quiet")
    asked = len(hub.requests)
    assert load_pack(pushed).name == "owner/quiet"
    assert len(hub.requests) == asked, "a cached commit needs no hub"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load_pack("hf://owner/quiet").name == "owner/quiet"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub.status = 503
    with caplog.at_level(logging.WARNING, "steer_asr.hub"):
        assert load_pack("hf://owner/quiet").path == load_pack(pushed).path
    assert "using the cached commit" in caplog.text
    with pytest.raises(HubOfflineError, match="HTTP 503"):
        load_pack("hf://owner/quiet@other")


@pytest.mark.usefixtures("hub")
def test_a_hub_that_is_not_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubOfflineError, match="cannot be reached"):
        load_pack("hf://owner/quiet")
    with pytest.raises(HubOfflineError, match="cannot be reached"):
        push_pack(folder, "owner/quiet")


def test_damage_on_the_way_is_found(hub: HubServer, pushed: str) -> None:
    good = hub.repos["owner/quiet"].commits[pushed[-40:]]
    for name in ("steer.json", "sae_weights.safetensors"):
        hub.damage = {name: bytes(reversed(good[name]))}
        with pytest.raises(PackError, match=f"{name} is not the file that the commit names"):
            load_pack("hf://owner/quiet")
        hub.damage = {name: good[name][:-7]}
        with pytest.raises(PackError):
            load_pack("hf://owner/quiet")
    hub.damage = {}
    path = load_pack("hf://owner/quiet").path  # fetched anew: what was damaged is not taken from the cache
    assert path is not None
    blob = (path / "steer.json").resolve()
    blob.write_bytes(blob.read_bytes().replace(b"scale", b"clamp"))
    with pytest.raises(PackError, match=f"was damaged in the cache; delete {blob}"):
        load_pack(pushed)
    assert load_pack("hf://owner/quiet").edits[0].op == "scale", "online, the damaged file is replaced"


def test_what_is_too_large_is_not_fetched(hub: HubServer, pushed: str) -> None:
    repo = hub.repos["owner/quiet"]
    big = repo.commits[pushed[-40:]] | {"README.md": b"x" * MAX_PACK_BYTES}
    repo.commit(big)
    with pytest.raises(PackError, match="at most 1000000, so it is not fetched"):
        load_pack("hf://owner/quiet")
    assert hub.downloads() == []


def test_a_branch_that_moves_in_between(hub: HubServer, pushed: str) -> None:
    files = hub.repos["owner/quiet"].commits[pushed[-40:]]
    hub.move_after_info["owner/quiet"] = files | {"README.md": b"# another"}
    with pytest.raises(HubError, match="changed while it was fetched; try again"):
        load_pack("hf://owner/quiet")
    assert load_pack("hf://owner/quiet").name == "owner/quiet"


def _private(repo: Repo) -> None:
    repo.private = True


def _gated(repo: Repo) -> None:
    repo.gated = True


def _without_weights(repo: Repo) -> None:
    repo.commit({"steer.json": b"{}", "model.bin": b"whisper"})


def _broken(repo: Repo) -> None:
    repo.commit(next(iter(repo.commits.values())) | {"steer.json": b"{}"})


def _nothing(_: Repo) -> None:
    pass


@pytest.mark.usefixtures("pushed")
@pytest.mark.parametrize(
    ("name", "change", "error", "message"),
    [
        ("hf://owner/other", _nothing, HubNotFoundError, "no repository owner/other .*or it is private"),
        ("hf://owner/quiet@v9", _nothing, HubNotFoundError, "no branch, tag or commit 'v9'"),
        ("hf://owner/quiet", _private, HubNotFoundError, "your token may not see it"),
        ("hf://owner/quiet", _gated, HubTokenError, "is gated: ask for access"),
        ("hf://owner/quiet", _without_weights, PackError, r"holds no steer pack: cfg\.json is missing"),
        ("hf://owner/quiet", _broken, PackError, "format version None"),
        ("hf://quiet", _nothing, HubError, "names no repository; write hf://owner/name"),
        ("hf://owner/quiet/steer.json", _nothing, HubError, "names no repository"),
        ("hf://owner/quiet@", _nothing, HubError, "names no repository"),
        ("hf://owner/quiet@../../x", _nothing, HubError, "names no repository"),
        ("hf://../quiet", _nothing, HubError, "names no repository"),
        ("hf://-owner/quiet", _nothing, HubError, "is no repository name"),
    ],
)
def test_what_the_hub_does_not_give(
    hub: HubServer,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    change: Callable[[Repo], None],
    error: type[Exception],
    message: str,
) -> None:
    change(hub.repos["owner/quiet"])
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(error, match=message) as raised:
        load_pack(name)
    assert type(raised.value) is error


@pytest.mark.parametrize(
    ("token", "repo", "error", "message"),
    [
        (None, "owner/quiet", HubTokenError, "no Hugging Face token; run `hf auth login`, or set HF_TOKEN"),
        ("hf_wrong", "owner/quiet", HubTokenError, "token is not valid"),
        ("hf_other", "owner/quiet", HubTokenError, "may not write to owner/quiet"),
    ],
)
def test_who_may_not_push(
    hub: HubServer,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    token: str | None,
    repo: str,
    error: type[Exception],
    message: str,
) -> None:
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.delenv("HF_TOKEN")
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(error, match=message):
        push_pack(folder, repo)
    assert hub.repos == {}


def test_an_upload_that_fails_leaves_no_commit(hub: HubServer, folder: Path) -> None:
    hub.storage_is_full = True
    with pytest.raises(
        HubError, match=r"owner/quiet: Error while uploading 'sae_weights.safetensors' to the Hub.*Bad request"
    ):
        push_pack(folder, "owner/quiet")
    assert hub.repos["owner/quiet"].commits == {}
    with pytest.raises(HubNotFoundError):
        load_pack("hf://owner/quiet")


def test_a_private_repository(hub: HubServer, folder: Path) -> None:
    push_pack(folder, "owner/secret", private=True)
    assert hub.repos["owner/secret"].private
    assert load_pack("hf://owner/secret").name == "owner/secret"


def test_references_and_strengths_do_not_collide() -> None:
    for text, pack, strength in (
        ("hf://owner/quiet", "hf://owner/quiet", 1.0),
        ("hf://owner/quiet@v1", "hf://owner/quiet@v1", 1.0),
        ("hf://owner/quiet@0.5", "hf://owner/quiet", 0.5),
        ("hf://owner/quiet@v1@0.5", "hf://owner/quiet@v1", 0.5),
        ("hf://owner/quiet@0.5@1", "hf://owner/quiet@0.5", 1.0),
    ):
        steering = parse_steer(text)
        assert steering is not None
        assert (steering.pack, steering.strength) == (pack, strength)
    assert Reference.parse("hf://owner/quiet@refs/pr/1") == Reference("owner/quiet", "refs/pr/1")
    assert str(Reference("owner/quiet")) == "hf://owner/quiet@main"


@pytest.mark.usefixtures("pushed")
def test_the_base_model_is_checked_as_for_any_pack() -> None:
    with pytest.raises(PackMismatchError, match="'owner/quiet' was made for 'base'"):
        load_pack("hf://owner/quiet").check_fits(sha256="1" * 64, model_name="x", d_model=4)


@pytest.mark.slow
def test_the_command_line_pushes_and_another_process_loads(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    """Nothing is replaced here: environment variables alone lead huggingface_hub to the server."""
    environment = {
        **os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home"),
        "HF_TOKEN": "hf_writer", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
    }  # fmt: skip

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, timeout=120)

    pushed = run("-m", "steer_asr.cli", "packs", "push", str(folder), "owner/quiet")
    assert pushed.returncode == 0, pushed.stderr
    reference = pushed.stdout.strip()
    assert reference.startswith("hf://owner/quiet@")
    loaded = run("-c", f"import steer_asr; print(steer_asr.load_pack({reference!r}).name)")
    assert loaded.stdout.strip() == "owner/quiet", loaded.stderr
    refused = run("-m", "steer_asr.cli", "packs", "push", str(folder), "stranger/quiet")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
    assert "may not write to stranger/quiet" in refused.stderr
