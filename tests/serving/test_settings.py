from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from steer_asr.errors import SteerOptionError
from steer_asr_serving.settings import ApiKey, Settings, is_loopback, read_config

KEY = "a-key-of-enough-length"
SHA256 = hashlib.sha256(KEY.encode()).hexdigest()


def settings(**values: Any) -> Settings:
    return Settings(**values)


def test_environment_is_read_and_arguments_win(monkeypatch) -> None:
    monkeypatch.setenv("STEER_ASR_MODELS", "tiny.en, base")
    monkeypatch.setenv("STEER_ASR_ALLOWED_PACKS", "quiet,calm")
    monkeypatch.setenv("STEER_ASR_PORT", "9000")
    read = settings(port=9001)
    assert (read.models, read.port, read.steer) == (("tiny.en", "base"), 9001, "default")
    assert read.allowed_packs == ("quiet", "calm")


YAML = f"""
models: [tiny.en]
port: 9000
steer: 0.5
api_keys:
  - name: ci
    sha256: {SHA256}
    requests_per_minute: 60
"""
TOML = f"""
models = "tiny.en"
port = 9000
steer = 0.5
[[api_keys]]
name = "ci"
sha256 = "{SHA256}"
requests_per_minute = 60
"""


@pytest.mark.parametrize(("name", "text"), [("a.yaml", YAML), ("a.yml", YAML), ("a.toml", TOML)])
@pytest.mark.parametrize("given_by", ["argument", "environment"])
def test_a_config_file_comes_last(tmp_path, monkeypatch, name: str, text: str, given_by: str) -> None:
    (tmp_path / name).write_text(text)
    monkeypatch.setenv("STEER_ASR_STEER", "0.75")
    if given_by == "environment":
        monkeypatch.setenv("STEER_ASR_CONFIG", str(tmp_path / name))
    read = settings(port=9001) if given_by == "environment" else settings(port=9001, config=tmp_path / name)
    assert (read.models, read.port, read.steer) == (("tiny.en",), 9001, "0.75")
    assert read.api_keys == (ApiKey(name="ci", sha256=SHA256, requests_per_minute=60),)


@pytest.mark.parametrize(
    ("written", "meant"), [("off", "off"), ("on", "default"), ("1", "1"), ("quiet@0.5", "quiet@0.5")]
)
def test_what_yaml_makes_of_steer(tmp_path, written: str, meant: str) -> None:
    (tmp_path / "a.yaml").write_text(f"steer: {written}\n")
    assert settings(config=tmp_path / "a.yaml").steer == meant


def test_the_example_in_the_docs_can_be_used(tmp_path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
    [example, _scrape] = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "a.yaml").write_text(example.replace("HASH", SHA256))
    read = settings(config=tmp_path / "a.yaml")
    assert (read.models, read.host) == (("base", "tiny.en"), "0.0.0.0")
    assert read.api_keys == (ApiKey(name="call-centre", sha256=SHA256, max_concurrent=8),)


def test_an_empty_config_file_changes_nothing(tmp_path) -> None:
    (tmp_path / "a.yaml").write_text("# nothing yet\n")
    assert settings(config=tmp_path / "a.yaml").models == ("base",)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.json", "{}", "ends in .yaml, .yml or .toml"),
        ("a.yaml", "models: [", "cannot be read: while parsing"),
        ("a.yaml", "- base", "holds no settings"),
        ("a.toml", "models =", "cannot be read: Invalid value"),
        ("a.yaml", None, "cannot be read: No such file"),
        ("a.yaml", b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_a_config_file_that_cannot_be_used(tmp_path, name: str, text: str | bytes | None, says: str) -> None:
    if text is not None:
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SteerOptionError, match=says):
        read_config(tmp_path / name)


def test_a_misspelt_setting_in_a_file_is_refused(tmp_path) -> None:
    (tmp_path / "a.yaml").write_text("modles: [base]\n")
    with pytest.raises(ValidationError, match="modles"):
        settings(config=tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False)]
    + [("192.168.0.1", False), ("example.org", False), ("", False)],
)
def test_only_loopback_is_open_without_a_key(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
    assert settings(host=host, api_key=KEY).host == host
    if loopback:
        assert settings(host=host).api_keys == ()
    else:
        with pytest.raises(ValidationError, match="needs an API key: set api_keys in the config"):
            settings(host=host)


def test_of_a_plain_key_only_the_hash_is_kept(monkeypatch) -> None:
    monkeypatch.setenv("STEER_ASR_API_KEY", KEY)
    other = ApiKey(name="ci", sha256="0" * 64)
    read = settings(api_keys=[other])
    assert read.api_key is None
    assert read.api_keys == (other, ApiKey(name="default", sha256=SHA256))
    assert KEY not in repr(read)


def test_a_short_key_is_refused_without_being_shown() -> None:
    with pytest.raises(ValidationError, match="at least 16") as invalid:
        settings(api_key="short")
    assert "'short'" not in str(invalid.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": 0},
        {"port": 70_000},
        {"replicas": 0},
        {"max_audio_s": float("inf")},
        {"max_steer": 1.5},
        {"modle": "base"},
        {"models": ""},
        {"api_keys": [{"name": "ci", "sha256": "not a hash"}]},
        {"api_keys": [{"name": "two words", "sha256": SHA256}]},
        {"api_keys": [{"name": "a", "sha256": SHA256}, {"name": "b", "sha256": SHA256}]},
        {"api_keys": [{"name": "a", "sha256": SHA256}, {"name": "a", "sha256": "0" * 64}]},
        {"api_keys": [{"name": "a", "sha256": SHA256, "requests_per_minute": 0}]},
    ],
)
def test_nonsense_is_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        settings(**wrong)


def test_cores_are_shared_among_replicas(monkeypatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(8)))
    assert settings().replica_cpus == 8
    assert settings(replicas=3).replica_cpus == 2
    assert settings(replicas=9).replica_cpus == 1
    assert settings(replicas=3, cpus_per_replica=4).replica_cpus == 4


def test_folders_become_absolute(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    read = settings(models="mine,base", allowed_packs="mine")
    assert read.models == (str(tmp_path / "mine"), "base")
    assert read.allowed_packs == (str(tmp_path / "mine"),)
    assert settings(log_file="log").log_file == tmp_path / "log"
