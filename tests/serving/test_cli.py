from __future__ import annotations

import socket
import sys

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


def test_help_names_every_option() -> None:
    text = CliRunner().invoke(cli.cli, ["--help"]).output
    for option in ("--model", "--steer", "--host", "--port", "--compute-type", "--replicas", "--cpus-per-replica"):
        assert option in text
    for name in Settings.model_fields:
        assert f"--{name.replace('_', '-')}" in text or f"STEER_ASR_{name.upper()}" in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--port", "0"], "port: Input should be greater than or equal to 1"),
        (["--host", "0.0.0.0"], "needs an API key: set STEER_ASR_API_KEY"),
        (["--steer", "1.5"], "1.5 is outside 0 to 1"),
        (["--model", "bose"], "base"),
        (["--compute-type", "int9"], "did you mean 'int8'"),
    ],
)
def test_bad_options_end_before_ray_starts(monkeypatch, capsys, arguments: list[str], says: str) -> None:
    monkeypatch.setattr("ray.init", lambda **_: pytest.fail("Ray was started"))
    assert run(monkeypatch, "--port", str(free_port()), *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert says in error


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
    monkeypatch.delitem(sys.modules, "steer_asr_serving.settings")
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
