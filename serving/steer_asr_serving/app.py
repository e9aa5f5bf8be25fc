"""Wires the Ray Serve application: an HTTP deployment in front of replicas that hold the model.

    serve run steer_asr_serving.app:build_app models=tiny.en

That runs it on a Ray cluster that is already there; `steer-asr-serve` starts its own.
"""

# No `from __future__ import annotations`: `serve run` and `serve deploy` make the builder's argument from its type, and
# look for it in the signature, where it must not be text.
import asyncio
import atexit
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve import Application

from steer_asr_serving.api import create_api
from steer_asr_serving.audit import start_audit
from steer_asr_serving.deployment import DEPLOYMENT, RemoteTranscriber, TranscriberReplica
from steer_asr_serving.logs import start_logging
from steer_asr_serving.served import Catalogue
from steer_asr_serving.settings import Settings
from steer_asr_serving.tracing import check_tracing, provider_for

MAX_HTTP_REQUESTS = 200
"""Requests the HTTP deployment holds at once, uploads on disk included. Serve's own default is 5."""
WAITING_IN_REPLICA = 1
"""Requests that a replica holds beyond those its workers do, so that one which is done need not wait for Ray."""
CONSTRUCTOR_RETRIES = 100
"""Replicas in a row that may die while they start before Serve gives up, for good. Its controller forgets that any ever
ran when it is restarted itself, so a low number would let two crashes after that end the service."""
DRAIN_CHECK_S = 0.5
"""How often a replica that is to stop looks whether it is idle."""


class Http:
    """The HTTP deployment; `serve.ingress` adds the application that `build_api` makes."""

    def __init__(self, _transcriber: object) -> None:
        """`bind` hands over the deployment behind this one, so that Serve starts it; the application has a handle."""

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Serve calls this when a deployment's `user_config` changes: other defaults, no restart."""
        await asyncio.to_thread(self.app.state.reconfigure, user_config)  # pyright: ignore[reportAttributeAccessIssue]

    async def drain(self, timeout_s: float) -> int:
        """Refuses new requests and waits for those in progress: how many are left after `timeout_s`."""
        return await self.app.state.drain.run(timeout_s)  # pyright: ignore[reportAttributeAccessIssue]


class RoutedReplica(TranscriberReplica):
    """A replica that keeps only some models, and lets Serve's router know which: it sends jobs where theirs is loaded.

    Serve tells its router what is in its own cache. So each job's model goes through one of the same size, which holds
    nothing but names; the models are in `ModelShelf`, which loads them before the first job and works without Serve.
    """

    def __init__(self, settings: Settings, catalogue: Catalogue) -> None:
        super().__init__(settings, catalogue)
        self._names: Any = serve.multiplexed(max_num_models_per_replica=settings.max_loaded_models or -1)(_same)

    async def announce(self, model: str) -> None:
        await self._names(model)


async def _same(name: str) -> str:
    return name


def build_app(settings: Settings) -> Application:
    """Raises `ModelError`, `PackError` or `SteerOptionError` before anything is started."""
    catalogue = Catalogue.find(settings)
    check_tracing(settings)

    def build_api() -> FastAPI:
        atexit.register(start_logging(settings).stop)
        if (auditing := start_audit(settings)) is not None:
            atexit.register(auditing.stop)
        tracers = provider_for(settings)  # its SDK sends what is left at exit
        transcriber = RemoteTranscriber(
            serve.get_deployment_handle(DEPLOYMENT), by_model=settings.max_loaded_models is not None
        )
        return create_api(  # Ray's proxy returns the id
            settings, catalogue, transcriber, echo_request_id=False, tracers=tracers
        )

    graceful: dict[str, Any] = {
        "graceful_shutdown_timeout_s": settings.drain_s,
        "graceful_shutdown_wait_loop_s": DRAIN_CHECK_S,
    }
    transcriber = serve.deployment(
        name=DEPLOYMENT,
        **_number_of_replicas(settings),
        ray_actor_options={
            "num_cpus": settings.replica_cpus,
            "num_gpus": settings.gpus_per_replica if settings.device == "cuda" else 0,
        },
        max_ongoing_requests=settings.workers_per_replica + WAITING_IN_REPLICA,
        max_queued_requests=settings.max_queued_requests,
        max_constructor_retry_count=CONSTRUCTOR_RETRIES,
        **graceful,
    )(TranscriberReplica if settings.max_loaded_models is None else RoutedReplica)
    http = serve.deployment(
        name="http",
        num_replicas=1,  # keys' limits and metrics are counted in this process
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=MAX_HTTP_REQUESTS,
        **graceful,
    )(serve.ingress(build_api)(Http))
    return http.bind(transcriber.bind(settings, catalogue))


def _number_of_replicas(settings: Settings) -> dict[str, Any]:
    """A fixed number, or as many as keep every worker busy with one request and none waiting."""
    if settings.max_replicas is None:
        return {"num_replicas": settings.replicas}
    scaling = {
        "min_replicas": settings.replicas,
        "max_replicas": settings.max_replicas,
        "target_ongoing_requests": settings.workers_per_replica,
    }
    return {"autoscaling_config": scaling}
