"""What can be configured.

    Settings(model="tiny.en", port=9000)        # the rest from the environment, then the defaults

Fields are set by `steer-asr-serve` options, by `STEER_ASR_*` variables, or as arguments in a Serve config file.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Settings of one server. Field `x` is read from `STEER_ASR_X`."""

    model_config = SettingsConfigDict(
        env_prefix="STEER_ASR_", extra="forbid", frozen=True, use_attribute_docstrings=True, hide_input_in_errors=True
    )

    model: str = "base"
    """Model to serve: a name such as base or tiny.en, or a CTranslate2 directory."""
    steer: str = "default"
    """Steering of requests that ask for none: off, default, a strength, PACK, or PACK@STRENGTH."""
    compute_type: str = "default"
    """CTranslate2 compute type, for example float32 or int8; default keeps the type the weights are stored in."""
    host: str = "127.0.0.1"
    """Address to listen on. Anything but loopback needs an API key."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    """Port to listen on."""
    api_key: Annotated[SecretStr | None, Field(min_length=16)] = None
    """Key that requests must carry as `Authorization: Bearer KEY`; without one, no key is asked for."""
    replicas: Annotated[int, Field(ge=1)] = 1
    """Processes that hold the model and transcribe."""
    cpus_per_replica: Annotated[int, Field(ge=0)] = 0
    """CPU threads of a replica; 0 shares the machine's cores among the replicas."""
    workers_per_replica: Annotated[int, Field(ge=1)] = 1
    """Requests a replica transcribes at the same time, each on its share of the replica's threads."""
    max_queued_requests: Annotated[int, Field(ge=1)] = 16
    """Decoded requests that may wait for a worker; the next one is answered 429."""
    max_upload_bytes: Annotated[int, Field(ge=1024)] = 25 * 1024 * 1024
    """Largest request body, counted while it arrives."""
    max_audio_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 3600.0
    """Longest audio in seconds, counted while it is decoded."""

    @field_validator("model")
    @classmethod
    def _absolute_folder(cls, model: str) -> str:
        """A folder means the same to the replicas, whose working directory is not ours."""
        path = Path(model).expanduser()
        return str(path.resolve()) if path.is_dir() else model

    @model_validator(mode="after")
    def _key_unless_loopback(self) -> Settings:
        if self.api_key is None and not is_loopback(self.host):
            raise ValueError(
                f"host {self.host} can be reached by other machines and needs an API key: set STEER_ASR_API_KEY"
            )
        return self

    @property
    def replica_cpus(self) -> int:
        """CPU threads of one replica."""
        return self.cpus_per_replica or max(1, _cores() // self.replicas)


def _cores() -> int:
    """Cores this process may use, where the system can tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
