"""Numbers for Prometheus.

    metrics = Metrics()
    metrics.request("/v1/audio/transcriptions", 200, "ci", 0.8)
    text, media_type = metrics.exposition(accept_header)

They live in the HTTP process. It sees every request and, with each answer, what the replicas did for it; so these are
the whole server's numbers although the replicas keep none. That takes exactly one HTTP process: with several, a scrape
would reach one of them by chance. Ray's own `serve_*` metrics are separate, and come from each node's metrics agent.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder

from steer_asr_serving.deployment import Job, Outcome
from steer_asr_serving.suppressed import silent, suppressed

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
REAL_TIME_FACTORS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
PROBABILITIES = tuple(tenth / 10 for tenth in range(1, 11))
BATCHES = (1, 2, 4, 8, 16, 32)
NO_PACK = "off"


class Metrics:
    """All metrics of one server, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "steer_asr_requests", "Requests answered.", ("route", "status", "key"), registry=registry
        )
        self._seconds = Histogram(
            "steer_asr_request_seconds",
            "Time from a request's first byte to the last of its answer.",
            ("route",),
            buckets=SECONDS,
            registry=registry,
        )
        self._running = Gauge("steer_asr_requests_in_progress", "Requests being answered.", registry=registry)
        self._audio = Counter("steer_asr_audio_seconds", "Audio transcribed.", ("model", "task"), registry=registry)
        self._busy = Counter(
            "steer_asr_transcribe_seconds", "Time models were busy.", ("model", "task"), registry=registry
        )
        self._factor = Histogram(
            "steer_asr_real_time_factor",
            "Time a model was busy over seconds of audio, by request.",
            ("model",),
            buckets=REAL_TIME_FACTORS,
            registry=registry,
        )
        self._jobs = Gauge(
            "steer_asr_jobs_in_progress",
            "Transcriptions handed to the replicas: those that wait for a worker and those that run.",
            registry=registry,
        )
        self._queue = Histogram(
            "steer_asr_queue_seconds",
            "Time a transcription waited for a worker, and was on its way.",
            ("model",),
            buckets=SECONDS,
            registry=registry,
        )
        self._batches = Histogram(
            "steer_asr_batch_windows",
            "Windows decoded together, by window; 1 is alone. Nothing is counted where batch_audio_s is 0.",
            ("model",),
            buckets=BATCHES,
            registry=registry,
        )
        self._streams = Gauge("steer_asr_streams_in_progress", "Live streams that are open.", registry=registry)
        self._streamed = Counter("steer_asr_streamed_seconds", "Audio of ended streams.", ("model",), registry=registry)
        by_pack = ("model", "pack")
        self._answers = Counter("steer_asr_transcriptions", "Transcriptions made.", by_pack, registry=registry)
        self._silent = Counter(
            "steer_asr_transcriptions_without_speech", "Transcriptions without a word.", by_pack, registry=registry
        )
        self._windows = Counter("steer_asr_windows", "Steered windows of up to 30 s.", by_pack, registry=registry)
        self._edited = Counter(
            "steer_asr_windows_edited", "Windows of which steering edited half or more.", by_pack, registry=registry
        )
        self._silenced = Counter(
            "steer_asr_windows_silenced",
            "Windows of which steering edited half or more, and in which no word was written.",
            by_pack,
            registry=registry,
        )
        self._nobody_speaks = Histogram(
            "steer_asr_nobody_speaks",
            "Probability that nobody speaks, by window.",
            by_pack,
            buckets=PROBABILITIES,
            registry=registry,
        )

    def started(self) -> None:
        """A request has arrived."""
        self._running.inc()

    def request(self, route: str, status: int, key: str, seconds: float) -> None:
        """A request has been answered."""
        self._running.dec()
        self._requests.labels(route, status, key).inc()
        self._seconds.labels(route).observe(seconds)

    def outcome(self, job: Job, outcome: Outcome) -> None:
        """A transcription has been made."""
        transcription = outcome.transcription
        self._audio.labels(job.model, job.task).inc(transcription.duration_s)
        self._busy.labels(job.model, job.task).inc(outcome.seconds)
        if transcription.duration_s:
            self._factor.labels(job.model).observe(outcome.seconds / transcription.duration_s)
        report = transcription.steer
        labels = job.model, NO_PACK if report is None else report.pack
        self._answers.labels(*labels).inc()
        self._silent.labels(*labels).inc(not transcription.speech_detected)
        for size in outcome.batches:
            self._batches.labels(job.model).observe(size)
        for window in [] if report is None else report.windows:
            self._windows.labels(*labels).inc()
            self._edited.labels(*labels).inc(suppressed(window))
            self._silenced.labels(*labels).inc(silent(window, transcription, after_vad=job.vad is not None))
            if window.nobody_speaks == window.nobody_speaks:  # NaN from a pack without a gate
                self._nobody_speaks.labels(*labels).observe(window.nobody_speaks)

    def job_begins(self) -> None:
        """A transcription is handed to the replicas."""
        self._jobs.inc()

    def job_ends(self) -> None:
        """It has come back, or nobody waits for it any more."""
        self._jobs.dec()

    def queued(self, model: str, seconds: float) -> None:
        """A transcription has come back, after so much time in which no model worked on it."""
        self._queue.labels(model).observe(seconds)

    def stream_opened(self) -> None:
        """A live stream begins."""
        self._streams.inc()

    def stream_closed(self) -> None:
        """A live stream has ended, however."""
        self._streams.dec()

    def streamed(self, model: str, audio_s: float) -> None:
        """A live stream was heard to its end."""
        self._streamed.labels(model).inc(audio_s)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """(text, media type) in the format that an Accept header asks for."""
        encode, media_type = choose_encoder(accept)
        return encode(self._registry), media_type
