"""What can be configured.

    Settings(models="tiny.en", port=9000)       # the rest from the environment, a config file, then the defaults

Fields are set by `steer-asr-serve` options, by `STEER_ASR_*` variables, in a YAML or TOML file, or as arguments in a
Serve config file. The first of these that names a field wins.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, InitSettingsSource, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from steer_asr.errors import SteerOptionError

MIN_KEY_LENGTH = 16
WINDOW_S = 30.0
"""What a window counts for in a batch, however short its sound is: Whisper's encoder always runs over 30 s."""
_MODEL_CONFIG = {"extra": "forbid", "frozen": True, "use_attribute_docstrings": True, "hide_input_in_errors": True}


def _listed(value: object) -> object:
    """A list in one word, as variables and command lines give it: base,tiny.en"""
    return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value


def _as_text(value: object) -> object:
    """YAML reads off as false and on as true, and a strength as a number."""
    if isinstance(value, bool):
        return "default" if value else "off"
    return str(value) if isinstance(value, int | float) else value


class ApiKey(BaseModel):
    """One client's key, known by its hash, and what that client may use."""

    model_config = ConfigDict(**_MODEL_CONFIG)  # pyright: ignore[reportArgumentType]

    name: Annotated[str, Field(pattern=r"^[\w.-]{1,64}$")]
    """How logs and metrics call the client."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """SHA-256 of the key, in hex; `steer-asr-serve new-key` makes both."""
    requests_per_minute: Annotated[int | None, Field(ge=1)] = None
    """If absent, that of the server."""
    max_concurrent: Annotated[int | None, Field(ge=1)] = None
    """If absent, that of the server."""


class Settings(BaseSettings):
    """Settings of one server. Field `x` is read from `STEER_ASR_X`."""

    model_config = SettingsConfigDict(env_prefix="STEER_ASR_", **_MODEL_CONFIG)  # pyright: ignore[reportArgumentType]

    config: Path | None = None
    """A .yaml, .yml or .toml file with further settings, by these names."""
    models: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed), Field(min_length=1)] = ("base",)
    """Models to serve: names such as base or tiny.en, or CTranslate2 directories. The first one is also whisper-1."""
    allowed_packs: Annotated[tuple[str, ...] | None, NoDecode, BeforeValidator(_listed)] = None
    """Packs that requests may name: names or folders, a model's default first. If absent, all that were made for it."""
    steer: Annotated[str, BeforeValidator(_as_text)] = "default"
    """Steering of requests that ask for none: off, default, a strength, max_wer=0.05, PACK, or PACK@STRENGTH."""
    max_steer: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Highest strength a request may ask for."""
    compute_type: str = "default"
    """CTranslate2 compute type, for example float32 or int8; default keeps the type the weights are stored in."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where models run. With cuda, each replica takes `gpus_per_replica` of a GPU."""
    gpus_per_replica: Annotated[float, Field(gt=0)] = 1.0
    """GPUs of a replica; a half lets two replicas share one. Of no effect on a CPU."""
    host: str = "127.0.0.1"
    """Address to listen on. Anything but loopback needs an API key."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    """Port to listen on."""
    api_key: SecretStr | None = None
    """One key, as it is. Only its hash is kept, in `api_keys` under the name "default"."""
    api_keys: tuple[ApiKey, ...] = ()
    """Keys that requests may carry as `Authorization: Bearer KEY`; without any, only this machine is answered."""
    requests_per_minute: Annotated[int | None, Field(ge=1)] = None
    """Audio requests a key may send in a minute, in one go or spread; the next one is answered 429."""
    max_concurrent: Annotated[int | None, Field(ge=1)] = None
    """Audio requests a key may have in progress; the next one is answered 429."""
    replicas: Annotated[int, Field(ge=1)] = 1
    """Processes that hold the models and transcribe."""
    max_replicas: Annotated[int | None, Field(ge=1)] = None
    """If given, more of them start while requests wait, up to so many; `cpus_per_replica` has to be given, too."""
    cpus_per_replica: Annotated[int, Field(ge=0)] = 0
    """CPU threads of a replica; 0 shares the machine's cores among the replicas."""
    workers_per_replica: Annotated[int, Field(ge=1)] = 1
    """Requests a replica transcribes at the same time, each on its share of the replica's threads."""
    batch_audio_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Seconds of sound that requests of a replica decode together at most, a window of 30 s for each; 0 for none."""
    batch_wait_s: Annotated[float, Field(ge=0, le=1)] = 0.01
    """How long a free model waits for the windows of requests that are under way."""
    max_loaded_models: Annotated[int | None, Field(ge=1)] = None
    """Models a replica keeps in memory, those used last; if absent, all of them."""
    max_queued_requests: Annotated[int, Field(ge=1)] = 16
    """Decoded requests that may wait for a worker; the next one is answered 429."""
    max_upload_bytes: Annotated[int, Field(ge=1024)] = 25 * 1024 * 1024
    """Largest request body, counted while it arrives."""
    max_audio_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 3600.0
    """Longest audio in seconds, counted while it is decoded."""
    max_decoded_bytes: Annotated[int, Field(ge=1024)] = 4 * 2**30
    """Most bytes an upload may decode to in its own rate and channels, counted while it is decoded."""
    max_stream_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 4 * 3600.0
    """Longest live stream in seconds of sound."""
    decode_processes: Annotated[int, Field(ge=0)] = 2
    """Processes of their own that decode uploads, one at a time each; 0 decodes in the server's own, without limits."""
    decodes_per_process: Annotated[int, Field(ge=1)] = 100
    """Uploads one of them decodes before it is replaced."""
    decode_cpu_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 60.0
    """CPU seconds one upload may take to decode, and a third of the time it may take."""
    request_timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 600.0
    """Longest a request may take, its upload included; OpenAI's client waits as long."""
    drain_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 30.0
    """How long requests in progress may go on when the server is told to stop."""
    upload_pause_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 30.0
    """Longest pause in an upload, and how long all pauses may be at no rate at all."""
    min_upload_bytes_per_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1024.0
    """Slowest an upload may be."""
    ui: bool = True
    """Serve the page at /ui."""
    ui_max_audio_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 120.0
    """Longest recording in seconds that the page takes."""
    ui_memory_bytes: Annotated[int, Field(ge=2**20)] = 256 * 2**20
    """Most bytes that recordings on the page may take up in each replica, and once more in the HTTP process."""
    log_requests: bool = True
    """Write one line of JSON for each request."""
    log_text: bool = False
    """Put prompts and transcripts into those lines."""
    log_file: Path | None = None
    """File to append the lines to; without one they go to standard error."""
    audit_file: Path | None = None
    """File to append one line to for each window that steering edited away."""
    audit_text: bool = False
    """Decode such windows once more without steering, and put what stock Whisper writes into the line."""
    otlp_endpoint: str | None = None
    """URL that OpenTelemetry traces are sent to, http://localhost:4318/v1/traces for one; if absent, none are made."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then the environment, then the config file that one of them names."""
        config = init_settings().get("config") or env_settings().get("config")
        if not config:
            return init_settings, env_settings
        return init_settings, env_settings, InitSettingsSource(settings_cls, read_config(Path(config)))

    @model_validator(mode="before")
    @classmethod
    def _keep_only_hashes(cls, values: dict[str, Any]) -> dict[str, Any]:
        plain = values.pop("api_key", None)
        if plain is None:
            return values
        key = plain.get_secret_value() if isinstance(plain, SecretStr) else str(plain)
        if len(key) < MIN_KEY_LENGTH:
            raise ValueError(f"api_key has {len(key)} characters; at least {MIN_KEY_LENGTH} are needed")
        default = {"name": "default", "sha256": hashlib.sha256(key.encode()).hexdigest()}
        return values | {"api_keys": [*(values.get("api_keys") or ()), default]}

    @field_validator("models")
    @classmethod
    def _absolute_folders(cls, models: tuple[str, ...]) -> tuple[str, ...]:
        """A folder means the same to the replicas, whose working directory is not ours."""
        return tuple(map(_absolute, models))

    @field_validator("allowed_packs")
    @classmethod
    def _absolute_packs(cls, packs: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if packs is None else tuple(map(_absolute, packs))

    @field_validator("log_file", "audit_file")
    @classmethod
    def _absolute_log(cls, path: Path | None) -> Path | None:
        return None if path is None else path.expanduser().absolute()

    @field_validator("api_keys")
    @classmethod
    def _one_key_each(cls, keys: tuple[ApiKey, ...]) -> tuple[ApiKey, ...]:
        for what, values in (("name", [key.name for key in keys]), ("sha256", [key.sha256 for key in keys])):
            if twice := next((value for value in values if values.count(value) > 1), None):
                raise ValueError(f"two keys have the same {what}: {twice}")
        return keys

    @model_validator(mode="after")
    def _keys_unless_loopback(self) -> Settings:
        if not self.api_keys and not is_loopback(self.host):
            raise ValueError(
                f"host {self.host} can be reached by other machines and needs an API key: set api_keys in the config "
                "file (steer-asr-serve new-key), or STEER_ASR_API_KEY"
            )
        return self

    @model_validator(mode="after")
    def _batches_need_company(self) -> Settings:
        if not self.batch_audio_s:
            return self
        if self.batch_windows < 2:
            raise ValueError("batch_audio_s: a window takes 30 s, so use 60 or more, or 0 for no batches")
        if self.workers_per_replica < 2:
            raise ValueError("batch_audio_s needs workers_per_replica of 2 or more: requests that run at the same time")
        return self

    @model_validator(mode="after")
    def _audited_somewhere(self) -> Settings:
        if self.audit_text and self.audit_file is None:
            raise ValueError("audit_text needs audit_file, the file that the text goes to")
        return self

    @model_validator(mode="after")
    def _room_to_grow(self) -> Settings:
        if self.max_replicas is None:
            return self
        if self.max_replicas < self.replicas:
            raise ValueError(f"max_replicas is {self.max_replicas}, and replicas already {self.replicas}")
        if not self.cpus_per_replica:
            raise ValueError("max_replicas needs cpus_per_replica: cores cannot be shared among an unknown number")
        return self

    @property
    def batch_windows(self) -> int:
        """Windows in a batch at most; 0 for no batches."""
        return int(self.batch_audio_s // WINDOW_S)

    @property
    def replica_cpus(self) -> int:
        """CPU threads of one replica."""
        return self.cpus_per_replica or max(1, _cores() // self.replicas)


def read_config(path: Path) -> dict[str, Any]:
    """The settings in a YAML or TOML file; raises `SteerOptionError` when it cannot be read or holds something else."""
    parse = {".yaml": yaml.safe_load, ".yml": yaml.safe_load, ".toml": tomllib.loads}.get(path.suffix)
    if parse is None:
        raise SteerOptionError(f"{path}: a config file ends in .yaml, .yml or .toml")
    try:
        content = parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, tomllib.TOMLDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        raise SteerOptionError(f"{path}: cannot be read: {reason}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SteerOptionError(f"{path}: holds no settings; write lines such as 'models: [base]'")
    return content


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _absolute(name: str) -> str:
    path = Path(name).expanduser()
    return str(path.resolve()) if path.is_dir() else name


def _cores() -> int:
    """Cores this process may use, where the system can tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
