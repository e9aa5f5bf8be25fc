from __future__ import annotations

import pytest
from pydantic import SecretStr, ValidationError

from steer_asr_serving.settings import Settings, is_loopback

KEY = "a-key-of-enough-length"


def test_environment_is_read_and_arguments_win(monkeypatch) -> None:
    monkeypatch.setenv("STEER_ASR_MODEL", "tiny.en")
    monkeypatch.setenv("STEER_ASR_PORT", "9000")
    settings = Settings(port=9001)
    assert (settings.model, settings.port, settings.steer) == ("tiny.en", 9001, "default")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False)]
    + [("192.168.0.1", False), ("example.org", False), ("", False)],
)
def test_only_loopback_is_open_without_a_key(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
    assert Settings(host=host, api_key=SecretStr(KEY)).host == host
    if loopback:
        assert Settings(host=host).api_key is None
    else:
        with pytest.raises(ValidationError, match="needs an API key: set STEER_ASR_API_KEY"):
            Settings(host=host)


def test_the_key_is_not_shown() -> None:
    assert KEY not in repr(Settings(api_key=SecretStr(KEY)))
    with pytest.raises(ValidationError) as invalid:
        Settings(api_key=SecretStr("short"))
    assert "'short'" not in str(invalid.value)


@pytest.mark.parametrize(
    "wrong", [{"port": 0}, {"port": 70_000}, {"replicas": 0}, {"max_audio_s": float("inf")}, {"modle": "base"}]
)
def test_nonsense_is_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        Settings(**wrong)


def test_cores_are_shared_among_replicas(monkeypatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(8)))
    assert Settings().replica_cpus == 8
    assert Settings(replicas=3).replica_cpus == 2
    assert Settings(replicas=9).replica_cpus == 1
    assert Settings(replicas=3, cpus_per_replica=4).replica_cpus == 4


def test_a_model_folder_becomes_absolute(tmp_path, monkeypatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert Settings(model="mine").model == str(tmp_path / "mine")
    assert Settings(model="base").model == "base"
