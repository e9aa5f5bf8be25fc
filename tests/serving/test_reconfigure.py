"""`serve deploy`'s configuration on a real cluster: what `user_config` changes, changes without a restart."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from tests.helpers import noise
from tests.own_ray import ray_workers
from tests.serving.conftest import as_wav
from tests.serving.scripted_whisper import TEXT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(700),
    pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`"),  # Ray's own models
]

DEPLOY = Path(__file__).parents[2] / "serving" / "deploy" / "serve.yaml"
WAIT_S = 300


@pytest.fixture
def port(ray_cluster: dict[str, str]) -> Iterator[int]:
    """Where Serve will listen; it is ended afterwards."""
    assert ray_cluster
    from ray import serve

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        found = probe.getsockname()[1]
    yield found
    serve.shutdown()


def deploy(environment: dict[str, str], folder: Path, port: int, scripted: Path, **user_config: Any) -> None:
    """The committed file for a small machine and model, with other defaults."""
    import ray

    config = yaml.safe_load(DEPLOY.read_text(encoding="utf-8"))
    config["http_options"]["port"] = port
    [application] = config["applications"]
    application["args"] |= {"models": [str(scripted / "scripted")], "allowed_packs": [str(scripted / "quiet")]}
    application["args"] |= {"replicas": 1, "cpus_per_replica": 1, "workers_per_replica": 1, "steer": "off"}
    application["deployments"] = [{"name": "http", "user_config": user_config}]
    path = folder / "serve.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    address = ray.get_runtime_context().gcs_address
    command = [str(Path(sys.executable).with_name("serve")), "run", "--non-blocking", "--address", address, str(path)]
    environment = environment | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=WAIT_S)
    assert done.returncode == 0, done.stderr


def test_defaults_change_and_no_process_is_started_anew(
    ray_cluster: dict[str, str], port: int, scripted: Path, tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{port}"

    def text() -> str:
        files = {"file": ("a.wav", as_wav(noise(3)))}
        answer = httpx2.post(f"{url}/v1/audio/transcriptions", files=files, data={"model": "scripted"}, timeout=WAIT_S)
        assert answer.status_code == 200, answer.text
        return answer.json()["text"]

    def wait_for_highest(strength: float) -> None:
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                models = httpx2.get(f"{url}/v1/models").json()["data"]
                if [model["max_steer"] for model in models] == [strength]:
                    return
            except (httpx2.TransportError, ValueError, KeyError):  # not there yet
                pass
            assert time.monotonic() < deadline
            time.sleep(0.2)

    deploy(ray_cluster, tmp_path, port, scripted, steer="off")
    wait_for_highest(1.0)
    assert text() == TEXT
    processes = ray_workers("ServeReplica")
    assert len(processes) == 2
    deploy(ray_cluster, tmp_path, port, scripted, steer="0.9", max_steer=0.9)
    wait_for_highest(0.9)
    assert text() == ""
    assert ray_workers("ServeReplica") == processes
