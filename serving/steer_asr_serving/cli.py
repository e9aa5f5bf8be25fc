"""`steer-asr-serve`: starts Ray on this machine, serves until it is told to stop, and shuts both down.

    steer-asr-serve --model tiny.en --port 9000

Nothing heavier than typer is imported until a command runs.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steer_asr.errors import SteerASRError, SteerOptionError

if TYPE_CHECKING:
    from steer_asr_serving.settings import Settings

SERVE_EXTRA = frozenset({"fastapi", "pydantic", "pydantic_settings", "python_multipart", "ray", "starlette"})
"""Packages that come with `steer-asr[serve]`."""
APP_NAME = "steer_asr"
OBJECT_STORE_BYTES = 1 << 30
"""Shared memory that decoded audio passes through; Ray spills to disk beyond it."""

cli = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def _option(help_text: str, default: str) -> Any:
    return typer.Option(help=help_text, show_default=default)


@cli.command()
def serve(
    model: Annotated[str | None, _option("Name (base, tiny.en) or CTranslate2 directory.", "base")] = None,
    steer: Annotated[
        str | None,
        _option(
            "Steering of requests that ask for none: off, default, a strength from 0 to 1, PACK, or PACK@STRENGTH.",
            "default",
        ),
    ] = None,
    host: Annotated[
        str | None, _option("Address to listen on; anything but loopback needs STEER_ASR_API_KEY.", "127.0.0.1")
    ] = None,
    port: Annotated[int | None, _option("Port to listen on.", "8000")] = None,
    compute_type: Annotated[
        str | None, _option("CTranslate2 compute type, for example float32 or int8.", "as stored")
    ] = None,
    replicas: Annotated[int | None, _option("Processes that hold the model.", "1")] = None,
    cpus_per_replica: Annotated[int | None, _option("CPU threads of each.", "all, shared")] = None,
) -> None:
    """Serve a steered Whisper model behind OpenAI's transcription API.

    Every option is also read from the environment: STEER_ASR_MODEL for --model, and so on. Read only from there:
    STEER_ASR_API_KEY, STEER_ASR_MAX_UPLOAD_BYTES (25 MiB), STEER_ASR_MAX_AUDIO_S (3600),
    STEER_ASR_MAX_QUEUED_REQUESTS (16), STEER_ASR_WORKERS_PER_REPLICA (1).
    """
    options = {
        "model": model,
        "steer": steer,
        "host": host,
        "port": port,
        "compute_type": compute_type,
        "replicas": replicas,
        "cpus_per_replica": cpus_per_replica,
    }
    try:
        run(read_settings({name: value for name, value in options.items() if value is not None}))
    except SteerASRError as error:
        fail(str(error))


def main() -> None:
    """Entry point of the `steer-asr-serve` script."""
    try:
        cli()
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in SERVE_EXTRA:
            raise
        fail(f"steer-asr-serve needs {missing.name}: pip install 'steer-asr[serve]'")


def fail(message: str) -> None:
    """Ends the command because of bad input."""
    typer.echo(f"error: {message}", err=True)
    sys.exit(2)


def read_settings(options: dict[str, Any]) -> Settings:
    """Settings from the given options, then the environment, then the defaults; raises `SteerOptionError`."""
    from pydantic import ValidationError

    from steer_asr_serving.settings import Settings

    try:
        return Settings(**options)
    except ValidationError as invalid:
        first = invalid.errors(include_url=False, include_input=False, include_context=False)[0]
        where = "".join(f"{name}: " for name in first["loc"])
        raise SteerOptionError(where + first["msg"].removeprefix("Value error, ")) from invalid


def run(settings: Settings) -> None:
    """Serves until SIGINT or SIGTERM. Raises `SteerASRError` before Ray starts when the settings cannot be served."""
    check_port(settings.host, settings.port)
    os.environ.update(private_ray())
    import ray
    from ray import serve

    from steer_asr_serving.app import build_app

    app = build_app(settings)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    typer.echo(f"starting Ray, loading {settings.model} ...", err=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        ray.init(
            address="local",
            num_cpus=settings.replicas * settings.replica_cpus,
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            logging_level=logging.WARNING,
        )
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # ray.init has put its own handler there
        quiet = {"log_level": "WARNING", "enable_access_log": False}
        serve.start(http_options={"host": settings.host, "port": settings.port}, logging_config=quiet)
        serve.run(app, name=APP_NAME, route_prefix="/", logging_config=quiet)
        typer.echo(f"ready: http://{_bracketed(settings.host)}:{settings.port}/v1", err=True)
        signal.pause()
    except (KeyboardInterrupt, SystemExit):  # SystemExit: Ray's own answer to SIGTERM while it starts
        typer.echo("stopping ...", err=True)
    finally:
        for signal_number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signal_number, signal.SIG_IGN)
        if ray.is_initialized():
            serve.delete(APP_NAME)  # lets requests in progress end
            ray.shutdown()


def private_ray() -> dict[str, str]:
    """Environment for a Ray that is only ours: loopback (Ray's ports accept code), a fresh token, no usage reports."""
    return {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # despite its name: 0 makes Ray on any system bind to loopback
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",  # it would answer SIGTERM during the start with a stack dump
    }


def check_port(host: str, port: int) -> None:
    """Raises `SteerOptionError` when the address cannot be listened on; Serve would retry for a long time."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise SteerOptionError(f"cannot listen on {host}, port {port}: {error.strerror or error}") from error


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


if __name__ == "__main__":
    main()
