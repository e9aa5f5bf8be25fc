"""The server that many people write first: FastAPI in front of faster-whisper, one request at a time.

    python -m steer_asr_benchmarks.plain_server --model tiny.en --port 9000 --threads 2

What `serving_load` compares with. It has the answer that OpenAI's clients expect, and nothing else.
"""

from __future__ import annotations

import os
import threading
from typing import Annotated, Any

import typer
from fastapi import FastAPI, Form, UploadFile


def plain_app(whisper: Any) -> FastAPI:
    """An app that transcribes with a `faster_whisper.WhisperModel`, as its own documentation does."""
    app, alone = FastAPI(), threading.Lock()

    # Not async: FastAPI runs it in a thread, so waiting for the lock blocks nobody's connection.
    @app.post("/v1/audio/transcriptions")
    def transcribe(file: UploadFile, language: Annotated[str | None, Form()] = None) -> dict[str, Any]:
        with alone:
            segments, info = whisper.transcribe(file.file, language=language)
            return {"text": "".join(segment.text for segment in segments).strip(), "language": info.language}

    @app.get("/ready")
    def ready() -> str:
        return "ok"

    return app


def main(
    model: Annotated[str, typer.Option(help="Name or CTranslate2 directory.")] = "tiny.en",
    port: Annotated[int, typer.Option(help="Port on loopback.")] = 9000,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    compute_type: Annotated[str, typer.Option(help="CTranslate2's.")] = "float32",
) -> None:
    """Serve stock faster-whisper, one request at a time."""
    import uvicorn
    from faster_whisper import WhisperModel

    from steer_asr.models import find_model

    folder = os.fspath(find_model(model).path)
    whisper = WhisperModel(folder, device="cpu", compute_type=compute_type, cpu_threads=threads)
    uvicorn.run(plain_app(whisper), host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    typer.run(main)
