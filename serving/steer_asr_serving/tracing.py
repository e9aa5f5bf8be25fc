"""OpenTelemetry traces of the HTTP process, if an address to send them to is configured.

    provider = provider_for(settings)           # once in a process; provider.shutdown() at its end sends the rest
    app = create_api(..., tracers=provider)

Spans: the request (continuing the client's `traceparent`), `decode`, `transcribe`. They hold sizes, times, names and
probabilities, never audio or text. The replicas trace nothing, since exporters beside CTranslate2 on a GPU were seen to
crash (NeMo Curator, pull request 2271); what they did comes back with each answer.
"""

from __future__ import annotations

from opentelemetry.trace import NoOpTracerProvider, TracerProvider

from steer_asr import __version__
from steer_asr.errors import SteerOptionError
from steer_asr_serving.settings import Settings

SCOPE = "steer_asr_serving"
SERVICE = "steer-asr"


def provider_for(settings: Settings) -> TracerProvider:
    """One that sends spans to `otlp_endpoint` in the background, or one that does nothing.

    OpenTelemetry's own variables hold as well, OTEL_TRACES_SAMPLER or OTEL_RESOURCE_ATTRIBUTES for two. Raises
    `SteerOptionError` when the exporter is not installed.
    """
    if settings.otlp_endpoint is None:
        return NoOpTracerProvider()
    check_tracing(settings)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider as SdkProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({"service.name": SERVICE, "service.version": __version__})
    provider = SdkProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=settings.otlp_endpoint)))
    return provider


def check_tracing(settings: Settings) -> None:
    """Raises `SteerOptionError` when traces are wanted and what sends them is not installed."""
    try:
        if settings.otlp_endpoint is not None:
            import opentelemetry.exporter.otlp.proto.http.trace_exporter
            import opentelemetry.sdk.trace  # noqa: F401
    except ModuleNotFoundError as missing:
        raise SteerOptionError(f"otlp_endpoint needs {missing.name}: pip install 'steer-asr[tracing]'") from missing
