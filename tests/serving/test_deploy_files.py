"""The files in serving/deploy: read as what will run them reads them, as far as that can be had here."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from steer_asr.transcription import SteerReport, Transcription, WindowReport
from steer_asr_serving.deployment import Job, Outcome
from steer_asr_serving.metrics import Metrics
from steer_asr_serving.settings import Settings

DEPLOY = Path(__file__).parents[2] / "serving" / "deploy"


def read(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))


def serve_config(name: str) -> dict[str, Any]:
    content = read(name)
    return yaml.safe_load(content["spec"]["serveConfigV2"]) if name == "kuberay.yaml" else content


@pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`")  # Ray's own models
@pytest.mark.parametrize("name", ["serve.yaml", "kuberay.yaml"])
def test_serve_takes_the_configuration_and_we_its_arguments(name: str) -> None:
    from ray.serve.schema import ServeDeploySchema

    config = serve_config(name)
    [application] = ServeDeploySchema.model_validate(config).applications
    assert application.import_path == "steer_asr_serving.app:build_app"
    arguments: dict[str, Any] = dict(application.args)
    arguments.pop("config", None)  # a file of the cluster
    settings = Settings(**arguments)
    assert settings.models == ("base",)
    with pytest.raises(ValidationError):
        Settings(**arguments, replica=2)  # pyright: ignore[reportCallIssue]


def test_a_gpu_replica_finds_a_gpu_where_the_cluster_has_one() -> None:
    settings = serve_config("kuberay.yaml")["applications"][0]["args"]
    [group] = read("kuberay.yaml")["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    [container] = group["template"]["spec"]["containers"]
    assert settings["device"] == "cuda"
    assert int(container["resources"]["limits"]["nvidia.com/gpu"]) * group["replicas"] >= settings["replicas"]
    assert int(container["resources"]["requests"]["cpu"]) >= settings["cpus_per_replica"]


def test_the_servers_settings_are_settings() -> None:
    settings = Settings(config=DEPLOY / "server.yaml")  # pyright: ignore[reportCallIssue]
    assert [key.name for key in settings.api_keys] == ["example"]


def test_all_that_compose_mounts_is_there() -> None:
    compose = read("compose.yaml")
    mounted = [v.split(":")[0] for service in compose["services"].values() for v in service["volumes"]]
    files = [DEPLOY / path for path in mounted if path.startswith(".")]
    assert len(files) == 5
    assert [path for path in files if not path.is_file()] == []
    named = {path for path in mounted if not path.startswith(".")}
    assert named == set(compose["volumes"])
    published = [p for service in compose["services"].values() for p in service.get("ports", ())]
    assert all(port.startswith("127.0.0.1:") for port in published), "nothing but this machine"


def test_the_dashboard_asks_for_numbers_that_there_are() -> None:
    metrics = Metrics()
    window = WindowReport(0.0, 3.0, 0.9, 1.0, np.ones(3, np.float32), ())
    report = SteerReport("base", 1.0, "ct2", [window])
    transcription = Transcription("", (), "en", 1.0, 3.0, False, report)
    metrics.started()
    metrics.outcome(Job("base", np.zeros(0, np.float32), None), Outcome(transcription, 0.5, batches=(2,)))
    metrics.queued("base", 0.1)
    metrics.streamed("base", 3.0)
    metrics.request("/v1/audio/transcriptions", 200, "example", 1.0)
    text = metrics.exposition("text/plain")[0].decode()
    known = {re.split(r"[{ ]", line)[0]: line for line in text.splitlines() if not line.startswith("#")}
    dashboard = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text(encoding="utf-8"))
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked = {name for expression in expressions for name in re.findall(r"steer_asr_\w+", expression)}
    assert asked <= set(known)
    families = {re.sub(r"_(total|bucket|sum|count|created)$", "", name) for name in known}
    shown = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in asked}
    assert families == shown, "every metric has its place"
    for expression in expressions:
        for labels in re.findall(r"by \(([^)]*)\)", expression):
            lines = [
                line
                for name in re.findall(r"steer_asr_\w+", expression)
                for line in text.splitlines()
                if line.startswith(name + "{")
            ]
            assert all(f'{label.strip()}="' in line for label in labels.split(",") for line in lines), expression


def test_the_image_starts_the_server_and_not_as_root() -> None:
    steps = [line.split(maxsplit=1) for line in (DEPLOY / "Dockerfile").read_text().splitlines() if line[:1].isalpha()]
    said = dict(steps)
    assert json.loads(said["ENTRYPOINT"]) == ["steer-asr-serve"]
    assert said["USER"] == "steer"
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    for needed in (
        "LICENSE",
        "NOTICE",
        "README.md",
        "pyproject.toml",
        "steer_asr",
        "training",
        "serving",
        "benchmarks",
    ):
        assert f"!{needed}" in ignored
