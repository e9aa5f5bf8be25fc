"""Wires the Ray Serve application: an HTTP deployment in front of replicas that hold the model.

    serve run steer_asr_serving.app:build_app model=tiny.en

That runs it on a Ray cluster that is already there; `steer-asr-serve` starts its own.
"""

# No `from __future__ import annotations`: `serve run` and `serve deploy` make the builder's argument from its type, and
# look for it in the signature, where it must not be text.
from fastapi import FastAPI
from ray import serve
from ray.serve import Application

from steer_asr_serving.api import create_api
from steer_asr_serving.deployment import DEPLOYMENT, RemoteTranscriber, TranscriberReplica
from steer_asr_serving.served import ServedModel
from steer_asr_serving.settings import Settings

MAX_HTTP_REQUESTS = 200
"""Requests the HTTP deployment holds at once, uploads on disk included. Serve's own default is 5."""


def build_app(settings: Settings) -> Application:
    """Raises `ModelError`, `PackError` or `SteerOptionError` before anything is started."""
    served = ServedModel.find(settings)

    def build_api() -> FastAPI:
        return create_api(settings, served, RemoteTranscriber(serve.get_deployment_handle(DEPLOYMENT)))

    transcriber = serve.deployment(
        name=DEPLOYMENT,
        num_replicas=settings.replicas,
        ray_actor_options={"num_cpus": settings.replica_cpus},
        max_ongoing_requests=settings.workers_per_replica,
        max_queued_requests=settings.max_queued_requests,
        max_constructor_retry_count=1,
    )(TranscriberReplica)
    http = serve.deployment(
        name="http",
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=MAX_HTTP_REQUESTS,
    )(serve.ingress(build_api)())
    return http.bind(transcriber.bind(settings, served.default_steering))
