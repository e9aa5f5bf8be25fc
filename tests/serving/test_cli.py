from __future__ import annotations

import hashlib
import socket
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from steer_asr.errors import SteerOptionError
from steer_asr_serving import cli
from steer_asr_serving.settings import Settings

# Ray Serve's own models are written in a way that pydantic deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`")


def run(monkeypatch, *arguments: str) -> object:
    monkeypatch.setattr(sys, "argv", ["steer-asr-serve", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A config file whose port is free."""
    path = tmp_path / "server.yaml"
    path.write_text(f"models: [tiny.en]\nport: {free_port()}\n")
    return path


def test_help_names_every_option_and_how_settings_are_given() -> None:
    text = CliRunner().invoke(cli.cli, ["--help"]).output
    for option in cli.OPTIONS:
        assert f"--{option.replace('_', '-')}" in text
    for word in ("check", "new-key", "STEER_ASR_PORT", "STEER_ASR_API_KEY", "docs/serving.md"):
        assert word in text


def test_every_option_is_a_setting_and_every_setting_is_documented() -> None:
    assert {"models" if name == "model" else name for name in cli.OPTIONS} <= set(Settings.model_fields)
    documented = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
    for name in Settings.model_fields:
        assert f"`{name}`" in documented, name


BAD_OPTIONS = [
    (["--port", "0"], "port: Input should be greater than or equal to 1"),
    (["--host", "0.0.0.0"], "needs an API key: set api_keys in the config file"),
    (["--steer", "1.5"], "1.5 is outside 0 to 1"),
    (["--max-steer", "0.5"], "steer 'default' is above max_steer (0.5)"),
    (["--model", "bose"], "base"),
    (["--model", "tiny.en", "--model", "tiny.en"], "same name"),
    (["--compute-type", "int9"], "did you mean 'int8'"),
    (["--config", "/nowhere.yaml"], "/nowhere.yaml: cannot be read: No such file or directory"),
    (["--log-file", "/nowhere/log"], "cannot write log_file /nowhere/log: No such file or directory"),
]


@pytest.mark.parametrize(("arguments", "says"), BAD_OPTIONS)
@pytest.mark.parametrize("command", [[], ["check"]])
def test_bad_options_end_before_ray_starts(
    monkeypatch, capsys, config, command: list[str], arguments: list[str], says: str
) -> None:
    monkeypatch.setattr("ray.init", lambda **_: pytest.fail("Ray was started"))
    if "--config" not in arguments:
        arguments = ["--config", str(config), *arguments]
    assert run(monkeypatch, *command, *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert says in error


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("modles: [base]", "unknown setting 'modles'; did you mean 'models'?"),
        ("allowed_packs: [quite]", "unknown pack 'quite'"),
        ("allowed_packs: [base]", "pack 'base' was made for none of the served models: tiny.en"),
        ("api_keys: [{name: ci}]", "api_keys.0.sha256: Field required"),
        ("api_keys: [{name: ci, sha265: x}]", "api_keys.0."),
        ("- base", "cannot be read"),
    ],
)
def test_check_finds_what_is_wrong_in_a_file(monkeypatch, capsys, config, lines: str, says: str) -> None:
    config.write_text(f"{config.read_text()}{lines}\n")
    assert run(monkeypatch, "check", "--config", str(config)) == 2
    assert says in capsys.readouterr().err


def test_an_unreadable_variable_is_named(monkeypatch, capsys, config) -> None:
    monkeypatch.setenv("STEER_ASR_API_KEYS", "ci")
    assert run(monkeypatch, "check", "--config", str(config)) == 2
    assert "api_keys" in capsys.readouterr().err


@pytest.mark.parametrize("before", [True, False])
def test_check_says_what_would_be_served(monkeypatch, capsys, config, before: bool) -> None:
    monkeypatch.setenv("STEER_ASR_API_KEY", "a-key-of-enough-length")
    options = ["--config", str(config), "--steer", "0.5"]
    assert run(monkeypatch, *(options + ["check"] if before else ["check", *options])) == 0
    text = capsys.readouterr().out
    assert text.startswith("model tiny.en: packs tiny.en; steered by default: tiny.en at 0.5\n")
    assert "\nkeys: default\n" in text
    assert text.endswith("\nok\n")
    assert "a-key-of-enough-length" not in text


def test_a_new_key_opens_with_the_lines_it_comes_with(monkeypatch, capsys, config) -> None:
    assert run(monkeypatch, "new-key", "ci") == 0
    printed = capsys.readouterr()
    key = printed.err.split()[1]
    assert key not in printed.out
    config.write_text(config.read_text() + printed.out)
    settings = cli.read_settings({"config": config, "host": "0.0.0.0"})
    assert [(entry.name, entry.sha256) for entry in settings.api_keys] == [
        ("ci", hashlib.sha256(key.encode()).hexdigest())
    ]
    assert len(key) >= 32
    assert run(monkeypatch, "new-key", "two words") == 2


def test_taken_port() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SteerOptionError, match=f"cannot listen on 127.0.0.1, port {port}"):
            cli.check_port("127.0.0.1", port)
    cli.check_port("127.0.0.1", port)


def test_missing_extra_says_what_to_install(monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "pydantic", None)
    monkeypatch.delitem(sys.modules, "steer_asr_serving.settings", raising=False)
    assert run(monkeypatch) == 2
    assert "pip install 'steer-asr[serve]'" in capsys.readouterr().err


def test_every_ray_is_private() -> None:
    first, second = cli.private_ray(), cli.private_ray()
    assert first["RAY_AUTH_TOKEN"] != second["RAY_AUTH_TOKEN"]
    assert len(first["RAY_AUTH_TOKEN"]) == 64


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
