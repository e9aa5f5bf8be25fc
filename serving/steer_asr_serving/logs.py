"""One line of JSON for each request.

    writer = start_logging(settings)        # once in a process that serves; writer.stop() at its end
    log_request(facts)

A line holds no audio, and no text unless `log_text` is set. Lines are written by a thread of their own: the event loop
never waits for a disk.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import queue
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from steer_asr_serving.settings import Settings

logger = logging.getLogger("steer_asr_serving")
logger.addHandler(logging.NullHandler())
QUEUED_LINES = 10_000
"""Lines that may wait for the writer; more are dropped rather than kept in memory."""


class JsonLines(logging.Formatter):
    """Log records as JSON objects, one a line; `extra={"facts": {...}}` adds keys."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class _Handover(logging.handlers.QueueHandler):
    """Passes records on unformatted, since the writer is in this process, and drops what is too much."""

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            return


def start_logging(settings: Settings) -> logging.handlers.QueueListener:
    """Sends this package's log to `log_file` or standard error, until the returned writer is stopped.

    Raises `OSError` when the file cannot be opened.
    """
    if settings.log_file is None:
        handler: logging.Handler = logging.StreamHandler()
    else:
        handler = logging.handlers.WatchedFileHandler(settings.log_file, encoding="utf-8")
    logger.setLevel(logging.INFO if settings.log_requests else logging.WARNING)
    logger.propagate = False
    return json_writer(logger, handler)


def json_writer(log: logging.Logger, handler: logging.Handler) -> logging.handlers.QueueListener:
    """Starts a thread that writes the log's lines with `handler` as JSON, in place of all handlers it had."""
    handler.setFormatter(JsonLines())
    lines: queue.Queue[logging.LogRecord] = queue.Queue(QUEUED_LINES)
    writer = logging.handlers.QueueListener(lines, handler)
    for old in log.handlers[:]:
        log.removeHandler(old)
    log.addHandler(_Handover(lines))
    writer.start()
    return writer


def log_request(facts: Mapping[str, Any]) -> None:
    """Writes what is known of an answered request."""
    logger.info("request", extra={"facts": facts})
