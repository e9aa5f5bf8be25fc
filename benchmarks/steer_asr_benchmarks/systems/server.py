"""`http://HOST:PORT/v1#MODEL`: any server that speaks OpenAI's audio API.

`?steer=0.5` before the `#` adds fields to every request. A key is taken from `STEER_ASR_BENCH_API_KEY`.
"""

from __future__ import annotations

import io
import json
import os
import urllib.error
import urllib.request
import uuid
import wave
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import numpy as np

from steer_asr.audio import SAMPLE_RATE_HZ
from steer_asr.errors import SteerASRError, SteerOptionError
from steer_asr_benchmarks.systems.base import Decoding, PredictedSegment, Prediction

API_KEY = "STEER_ASR_BENCH_API_KEY"
TIMEOUT_S = 600.0
UNKNOWN = float("nan")


class ServerError(SteerASRError):
    """A server under test did not answer as OpenAI's API says."""


@dataclass(frozen=True)
class Server:
    """A server as a system. Beam and thresholds are its own business; it is told language and temperature."""

    name: str
    url: str
    fields: Mapping[str, str]
    """Sent with every request."""
    options: Mapping[str, Any]

    def transcribe(self, audio: np.ndarray, decoding: Decoding) -> Prediction:
        """Raises `ServerError` when the server is not there, refuses, or answers something else."""
        fields = dict(self.fields)
        if decoding.language is not None:
            fields["language"] = decoding.language
        answer = self._post(fields, as_wav(audio))
        try:
            segments = tuple(_segment(segment) for segment in answer.get("segments") or ())
            text, language = str(answer["text"]), str(answer.get("language") or decoding.language or "en")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ServerError(f"{self.url}: the answer is not OpenAI's verbose_json ({error!r})") from error
        if not segments and text.strip():
            segments = (PredictedSegment(0.0, len(audio) / SAMPLE_RATE_HZ, text, 0.0, 0.0, 0.0),)
        return Prediction(language, decoding.language is not None, segments, ())

    def _post(self, fields: Mapping[str, str], recording: bytes) -> dict[str, Any]:
        body, content_type = multipart(fields, recording)
        request = urllib.request.Request(self.url, body, {"Content-Type": content_type, "Accept": "application/json"})
        if key := os.environ.get(API_KEY):
            request.add_header("Authorization", f"Bearer {key}")
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
                return json.loads(response.read())
        except urllib.error.HTTPError as refused:
            raise ServerError(f"{self.url}: {refused.code} {_message(refused.read())}") from refused
        except (OSError, ValueError) as error:
            raise ServerError(f"{self.url}: no usable answer ({error}); is the server up?") from error


def make_server(name: str, address: str) -> Server:
    """`address` is `http(s)://HOST[:PORT]/PATH[?FIELD=VALUE...]#MODEL`. Raises `SteerOptionError`."""
    parts = urlsplit(address)
    if not parts.hostname or not parts.fragment:
        raise SteerOptionError(f"system {address!r}: write http://HOST:PORT/v1#MODEL")
    url = urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/") + "/audio/transcriptions", "", ""))
    extra = dict(parse_qsl(parts.query))
    fields = {"model": parts.fragment, "response_format": "verbose_json", "temperature": "0", **extra}
    return Server(name, url, fields, {"kind": "server", "url": url, "fields": fields})


def as_wav(audio: np.ndarray) -> bytes:
    """float32 [n_samples] at 16 kHz as a 16-bit WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, SAMPLE_RATE_HZ, 0, "NONE", ""))
        writer.writeframes((np.clip(audio, -1, 1) * 32767).astype("<i2").tobytes())
    return file.getvalue()


def multipart(fields: Mapping[str, str], recording: bytes) -> tuple[bytes, str]:
    """(body, content type) of a form with the fields and a file."""
    boundary = uuid.uuid4().hex
    lines: list[bytes] = []
    for name, value in fields.items():
        lines += [f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()]
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="clip.wav"\r\n'
    lines += [f"{head}Content-Type: audio/wav\r\n\r\n".encode(), recording, f"\r\n--{boundary}--\r\n".encode()]
    return b"".join(lines), f"multipart/form-data; boundary={boundary}"


def _segment(segment: Mapping[str, Any]) -> PredictedSegment:
    def score(key: str, unknown: float) -> float:
        value = segment.get(key)
        return unknown if value is None else float(value)

    # What a server does not tell must not make a rule drop its text: it counts as sure of it.
    return PredictedSegment(
        float(segment["start"]),
        float(segment["end"]),
        str(segment["text"]),
        score("no_speech_prob", 0.0),
        score("avg_logprob", 0.0),
        score("compression_ratio", 0.0),
    )


def _message(body: bytes) -> str:
    try:
        return json.loads(body)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return body[:200].decode("utf-8", "replace")
