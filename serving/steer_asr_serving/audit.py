"""What steering suppressed, for whoever has to answer for it: one line of JSON for each window that was edited away.

    writer = start_audit(settings)              # once in a process; None without `audit_file`
    record(job, outcome, facts)                 # facts: request_id and key

A line says which request, when in its audio, how sure the gate was, and which features the edit moved most. What stock
Whisper would have written there is in it only with `audit_text`, which decodes such windows a second time.
"""

from __future__ import annotations

import logging
import logging.handlers
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from steer_asr_serving.deployment import Job, Outcome
from steer_asr_serving.logs import json_writer
from steer_asr_serving.settings import Settings
from steer_asr_serving.suppressed import silent, suppressed

logger = logging.getLogger("steer_asr_serving.audit")
logger.addHandler(logging.NullHandler())
logger.propagate = False  # the requests' log is another file


def start_audit(settings: Settings) -> logging.handlers.QueueListener | None:
    """Sends lines to `audit_file` until the returned writer is stopped. Raises `OSError` when it cannot be opened."""
    if settings.audit_file is None:
        return None
    handler = logging.handlers.WatchedFileHandler(settings.audit_file, encoding="utf-8")
    logger.setLevel(logging.INFO)
    return json_writer(logger, handler)


def record(job: Job, outcome: Outcome, facts: Mapping[str, Any]) -> None:
    """Writes the lines of a finished job."""
    for line in lines(job, outcome):
        logger.info("suppressed", extra={"facts": {key: facts.get(key) for key in ("request_id", "key")} | line})


def lines(job: Job, outcome: Outcome) -> Iterator[dict[str, Any]]:
    """One for each suppressed window, without the text that stayed anywhere else."""
    report = outcome.transcription.steer
    if report is None:
        return
    texts = iter(outcome.stock_texts)
    for window in filter(suppressed, report.windows):
        line: dict[str, Any] = {
            "model": job.model,
            "pack": report.pack,
            "strength": report.strength,
            "start_s": round(window.start_s, 3),
            "end_s": round(window.end_s, 3),
            "after_vad": job.vad is not None,
            "nobody_speaks": round(window.nobody_speaks, 6) if math.isfinite(window.nobody_speaks) else None,
            "edited_share": round(window.edited_share, 4),
            "silent": silent(window, outcome.transcription, after_vad=job.vad is not None),
            "features": [asdict(feature) for feature in window.features],
        }
        if job.stock_texts:
            line["stock_text"] = next(texts, None)
        yield line
