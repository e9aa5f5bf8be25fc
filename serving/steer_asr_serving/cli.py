"""`steer-asr-serve`: starts Ray on this machine, serves until it is told to stop, and shuts both down.

    steer-asr-serve --model tiny.en --port 9000
    steer-asr-serve check --config server.yaml
    steer-asr-serve new-key ci

Nothing heavier than typer is imported until a command runs.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import logging
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steer_asr import _cluster
from steer_asr.errors import SteerASRError, SteerOptionError, unknown_name

if TYPE_CHECKING:
    from steer_asr_serving.served import Catalogue
    from steer_asr_serving.settings import Settings

SERVE_EXTRA = frozenset(
    {
        "fastapi",
        "opentelemetry",
        "prometheus_client",
        "pydantic",
        "pydantic_settings",
        "python_multipart",
        "ray",
        "starlette",
        "yaml",
    }
)
"""Packages that come with `steer-asr[serve]`."""
APP_NAME = "steer_asr"
DRAIN_ANSWER_S = 5.0
OBJECT_STORE_BYTES = 1 << 30
"""Shared memory that decoded audio passes through; Ray spills to disk beyond it."""

cli = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def _option(help_text: str, default: str = "") -> Any:
    return typer.Option(help=help_text, show_default=default or False)


OPTIONS: dict[str, Any] = {
    "config": (Path, _option("YAML or TOML file with settings; docs/serving.md has them all.")),
    "model": (list[str], _option("Name (base, tiny.en) or CTranslate2 directory; give it again for more.", "base")),
    "steer": (
        str,
        _option(
            "Steering of requests that ask for none: off, default, 0 to 1, max_wer=0.05, PACK, PACK@0.5.",
            "default",
        ),
    ),
    "max_steer": (float, _option("Highest strength that a request may ask for.", "1")),
    "host": (str, _option("Address to listen on; anything but loopback needs an API key.", "127.0.0.1")),
    "port": (int, _option("Port to listen on.", "8000")),
    "compute_type": (str, _option("CTranslate2 compute type, for example float32 or int8.", "as stored")),
    "replicas": (int, _option("Processes that hold the models.", "1")),
    "cpus_per_replica": (int, _option("CPU threads of each.", "all, shared")),
    "log_file": (Path, _option("File for one JSON line a request.", "standard error")),
}
"""The settings that are options too: {name: (type, what typer shows)}."""


def _with_options(command: Callable[[typer.Context, dict[str, Any]], None]) -> Callable[..., None]:
    """Gives `command` all of `OPTIONS`; it gets those that were used, by the names of the settings."""

    @functools.wraps(command)
    def wrapper(context: typer.Context, **options: Any) -> None:
        used = {name: value for name, value in options.items() if value not in (None, [])}
        command(context, {("models" if name == "model" else name): value for name, value in used.items()})

    hints = {name: Annotated[kind | None, option] for name, (kind, option) in OPTIONS.items()}
    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint)
        for name, hint in hints.items()
    ]
    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    wrapper.__annotations__ = {"context": typer.Context, **hints}
    vars(wrapper).pop("__wrapped__")  # typer would look at the signature of what is wrapped
    wrapper.__signature__ = inspect.Signature([context, *parameters])  # pyright: ignore[reportAttributeAccessIssue]
    return wrapper


@cli.callback(invoke_without_command=True)
@_with_options
def serve(context: typer.Context, options: dict[str, Any]) -> None:
    """Serve steered Whisper models behind OpenAI's audio API.

    \b
    On this machine only, without a key:
      steer-asr-serve --model base
    For others, with keys and limits from a file:
      steer-asr-serve new-key ci             (prints a key, and lines for the file)
      steer-asr-serve check --config server.yaml
      steer-asr-serve --config server.yaml --host 0.0.0.0

    Without a command, it serves until Ctrl-C. Every setting is also read from the environment (STEER_ASR_PORT for
    port, STEER_ASR_MODELS for models) and from the config file; options come before variables, variables before the
    file. STEER_ASR_API_KEY sets one key without a file.
    """
    if context.invoked_subcommand is not None:
        context.obj = options
        return
    try:
        run(read_settings(options))
    except SteerASRError as error:
        fail(str(error))


@cli.command(short_help="Check settings, models and packs; start nothing.")
@_with_options
def check(context: typer.Context, options: dict[str, Any]) -> None:
    """Check settings, models and packs, say what would be served, and start nothing.

    Ends with status 0 if a server could start with these options, and with 2 and the reason if not.
    """
    try:
        settings = read_settings(context.obj | options)
        from steer_asr_serving.served import Catalogue
        from steer_asr_serving.tracing import check_tracing

        catalogue = Catalogue.find(settings)
        check_port(settings.host, settings.port)
        check_files(settings)
        check_tracing(settings)
    except SteerASRError as error:
        fail(str(error))
    else:
        typer.echo(summary(settings, catalogue))
        for warning in doubts(settings):
            typer.echo(f"warning: {warning}", err=True)


@cli.command(short_help="Make an API key.")
def new_key(name: Annotated[str, typer.Argument(help="How logs and metrics shall call the client.")]) -> None:
    """Make an API key: print it once, and the lines for the config file, which hold only its hash."""
    from pydantic import ValidationError

    from steer_asr_serving.settings import ApiKey

    key = secrets.token_urlsafe(32)
    try:
        entry = ApiKey(name=name, sha256=hashlib.sha256(key.encode()).hexdigest())
    except ValidationError:
        fail(f"name {name!r}: use letters, digits, and _ . - (64 at most)")
    else:
        typer.echo(f"key: {key}\n\nFor the client; it is kept nowhere. For the config file:\n", err=True)
        typer.echo(f"api_keys:\n  - name: {entry.name}\n    sha256: {entry.sha256}")


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
    """Settings from the options, the environment, the config file, the defaults; raises `SteerOptionError`."""
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from steer_asr_serving.settings import Settings

    try:
        return Settings(**options)
    except SettingsError as unreadable:
        raise SteerOptionError(f"environment: {unreadable}; lists of keys are written as JSON") from unreadable
    except ValidationError as invalid:
        first = invalid.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise SteerOptionError(unknown_name("setting", where, Settings.model_fields)) from invalid
        message = first["msg"].removeprefix("Value error, ")
        raise SteerOptionError(f"{where}: {message}" if where else message) from invalid


def summary(settings: Settings, catalogue: Catalogue) -> str:
    """What a server with these settings offers, for people."""
    lines = []
    for served in catalogue.models.values():
        steering = served.default_steering
        default = "off" if steering is None else f"{served.pack_name(steering)} at {steering.strength:g}"
        lines.append(f"model {served.name}: packs {', '.join(served.packs) or 'none'}; steered by default: {default}")
    lines.append(f"steer: at most {settings.max_steer:g}")
    lines.append(f"keys: {', '.join(key.name for key in settings.api_keys) or 'none, this machine only'}")
    lines.append(
        f"limits: {settings.max_upload_bytes} bytes, {settings.max_audio_s:g} s of audio, "
        f"{settings.max_queued_requests} waiting, {settings.requests_per_minute or 'any number of'} requests a minute "
        f"and {settings.max_concurrent or 'any number'} at once for a key that says nothing else"
    )
    lines.append(
        f"decoding: {settings.decode_processes or 'no'} processes of its own, {settings.decode_cpu_s:g} s of CPU time; "
        f"requests: {settings.request_timeout_s:g} s"
    )
    lines.append(f"{settings.replicas} x {settings.replica_cpus} CPU threads on {address(settings)}")
    return "\n".join([*lines, "ok"])


def doubts(settings: Settings) -> list[str]:
    """What is allowed, and unwise."""
    if settings.decode_processes:
        return []
    return ["decode_processes is 0: a file that makes the decoder crash or hang does so to the whole server"]


def run(settings: Settings) -> None:
    """Serves until SIGINT or SIGTERM. Raises `SteerASRError` before Ray starts when the settings cannot be served."""
    check_port(settings.host, settings.port)
    check_files(settings)
    os.environ.update(private_ray())
    import ray
    from ray import serve

    from steer_asr_serving.app import build_app

    app = build_app(settings)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    for warning in doubts(settings):
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(f"starting Ray, loading {', '.join(settings.models)} ...", err=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    ready = False
    try:
        ray.init(
            address="local",
            num_cpus=(settings.max_replicas or settings.replicas) * settings.replica_cpus,
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            logging_level=logging.WARNING,
        )
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # ray.init has put its own handler there
        quiet = {"log_level": "WARNING", "enable_access_log": False}
        serve.start(http_options={"host": settings.host, "port": settings.port}, logging_config=quiet)
        serve.run(app, name=APP_NAME, route_prefix="/", logging_config=quiet)
        ready = True
        typer.echo(f"ready: {address(settings)}/v1", err=True)
        signal.pause()
    except (KeyboardInterrupt, SystemExit):  # SystemExit: Ray's own answer to SIGTERM while it starts
        typer.echo("stopping ...", err=True)
    finally:
        left = drained(settings.drain_s) if ready else 0
        for signal_number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signal_number, signal.SIG_IGN)
        if ray.is_initialized():
            if not left:  # Serve would wait for them once more
                serve.delete(APP_NAME)
            ray.shutdown()


def drained(timeout_s: float) -> int:
    """Lets the app end what it has begun, and take no more: how many requests are left. A second Ctrl-C cuts it short.

    Without an app that answers, nothing is left.
    """
    from ray import serve

    try:
        left = serve.get_app_handle(APP_NAME).drain.remote(timeout_s).result(timeout_s=timeout_s + DRAIN_ANSWER_S)
    except KeyboardInterrupt:
        return 1
    except Exception as error:
        typer.echo(f"warning: requests in progress were not waited for: {error}", err=True)
        return 0
    if left:
        typer.echo(f"warning: {left} requests took longer than drain_s ({timeout_s:g} s)", err=True)
    return left


def private_ray() -> dict[str, str]:
    """Environment for a Ray that is only ours, sends no usage reports, and leaves a small machine to the models."""
    return _cluster.private_ray() | {
        "RAY_USAGE_STATS_ENABLED": "0",
        # Ray's 5 s are too few for its proxy's imports on a busy machine, and three misses end the start.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        "RAY_SERVE_MAX_PER_REPLICA_RETRY_COUNT": "10",  # the smaller one of this times replicas and ours counts
        "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",  # it would answer SIGTERM during the start with a stack dump
        "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",  # Serve's own 0.1 takes time from the models
        "RAY_task_events_report_interval_ms": "0",  # for Ray's dashboard, which is off
        "RAY_DEDUP_LOGS": "0",  # it would take the lines of two alike requests for one
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


def check_files(settings: Settings) -> None:
    """Raises `SteerOptionError` when a log cannot be appended to; an HTTP replica would fail over and over."""
    for name in ("log_file", "audit_file"):
        path: Path | None = getattr(settings, name)
        try:
            if path is not None:
                path.open("a").close()
        except OSError as error:
            raise SteerOptionError(f"cannot write {name} {path}: {error.strerror or error}") from error


def address(settings: Settings) -> str:
    """URL of the server."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{settings.port}"


if __name__ == "__main__":
    main()
