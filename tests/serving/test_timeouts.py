"""Requests that take too long and uploads that are too slow, over a socket where that matters."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import httpx2
import openai
import pytest
from starlette.types import Message, Receive, Scope, Send

from steer_asr.audio import AudioLimits
from steer_asr_serving import api
from steer_asr_serving.deployment import Job, RemoteTranscriber
from steer_asr_serving.errors import ApiError
from steer_asr_serving.sandbox import DecoderPool
from steer_asr_serving.sandbox_worker import Plan
from steer_asr_serving.timeouts import Deadline, UploadPace, too_late
from tests.helpers import noise
from tests.serving.conftest import as_wav
from tests.serving.fuzz import serving
from tests.serving.scripted_whisper import TEXT
from tests.serving.test_deployment import HeldEncoder

pytestmark = pytest.mark.anyio
PATH = "/v1/audio/transcriptions"


@pytest.fixture
def url(app) -> Iterator[Callable[..., str]]:
    """`url(**settings)`: where the app is served."""
    with ExitStack() as running:
        yield lambda **settings: running.enter_context(serving(app(**settings)))


@pytest.fixture
def held(replica, monkeypatch) -> Iterator[HeldEncoder]:
    encoder = HeldEncoder(replica._models["scripted"], monkeypatch)
    yield encoder
    encoder.go_on.set()


@pytest.mark.usefixtures("held")
@pytest.mark.parametrize("stream", [False, True])
async def test_a_late_answer_is_504_and_not_sent_for_again(client, wav, transcriber, stream: bool) -> None:
    patient = client(request_timeout_s=0.3).with_options(max_retries=2)
    with pytest.raises(openai.InternalServerError, match="took longer than 0.3 s") as late:
        await patient.audio.transcriptions.create(model="scripted", file=("a.wav", wav), stream=stream)
    assert (late.value.status_code, late.value.code) == (504, "request_timeout")
    assert len(transcriber.jobs) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_at_the_deadline_the_decode_stops(client, replica, held, stream: bool) -> None:
    with pytest.raises(openai.InternalServerError):
        await client(request_timeout_s=0.3).audio.transcriptions.create(
            model="scripted", file=("a.wav", as_wav(noise(100))), stream=stream
        )
    held.go_on.set()
    await replica.transcribe(Job("scripted", noise(0.5), None))  # waits for the only worker
    assert len(held.threads) <= 1 + 1, "at most one window of the first; on a busy machine it has not even begun"


async def test_a_stream_that_has_begun_ends_at_the_deadline() -> None:
    """With an error, which test_streaming.py shows to become an event."""
    closed = False

    async def pieces() -> AsyncGenerator[int, None]:
        nonlocal closed
        try:
            yield 1
            await asyncio.sleep(600)
        finally:
            closed = True

    received = []
    with pytest.raises(ApiError) as late:
        async for piece in Deadline(0.5).each(pieces(), too_late(0.5)):
            received.append(piece)
    assert (late.value.status, received, closed) == (504, [1], True)
    assert [piece async for piece in Deadline(60).each(some(), too_late(60))] == [1, 2]


async def some() -> AsyncGenerator[int, None]:
    yield 1
    yield 2


async def test_at_the_deadline_a_decoder_is_stopped(client, wav, monkeypatch) -> None:
    plan = Plan(AudioLimits(), cpu_s=60, memory_bytes=1 << 28, uploads=100)
    decoder = DecoderPool(1, plan, "tests.serving.rogue_decoder")
    monkeypatch.setattr(api, "decoder_for", lambda _settings: decoder)
    with closing(decoder):
        with pytest.raises(openai.InternalServerError) as late:
            await client(request_timeout_s=0.5).audio.transcriptions.create(
                model="scripted", file=("a.wav", b"order:sleep")
            )
        assert late.value.status_code == 504
        answer = await client().audio.transcriptions.create(model="scripted", file=("a.wav", wav))
        assert answer.text == TEXT, "the only decoder is free again"


class Handle:
    """A Serve handle whose answer never comes."""

    def __init__(self) -> None:
        self.cancelled = False
        self.transcribe = self

    def remote(self, _job: Job) -> Handle:
        return self

    def __await__(self) -> Any:
        return asyncio.sleep(60).__await__()

    def cancel(self) -> None:
        self.cancelled = True


@pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`")  # Ray Serve's own models
async def test_the_deadline_cancels_the_replicas_work() -> None:
    handle: Any = Handle()
    with pytest.raises(ApiError):
        async with Deadline(0.01).enforced(too_late(0.01)):
            await RemoteTranscriber(handle).transcribe(Job("scripted", noise(0.5), None))
    assert handle.cancelled


async def test_somebody_elses_timeout_is_not_the_deadline() -> None:
    with pytest.raises(TimeoutError):
        async with Deadline(60).enforced(too_late(60)):
            raise TimeoutError


def upload(url: str, body: bytes, announced: int | None = None) -> socket.socket:
    """A connection that has sent the head of a request, and so much of its body."""
    host, _, port = url.removeprefix("http://").partition(":")
    connection = socket.create_connection((host, int(port)), timeout=60)
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: test\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        f"Content-Length: {announced or len(body)}\r\n\r\n"
    )
    connection.sendall(head.encode() + body)
    return connection


def form(data: bytes) -> bytes:
    """All but the end."""
    return (
        b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nscripted\r\n'
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + data
    )


def received(connection: socket.socket) -> tuple[bytes, dict[str, Any]]:
    """(head, JSON body), once the server has closed the connection."""
    content = b""
    while block := connection.recv(1 << 16):
        content += block
    head, _, body = content.partition(b"\r\n\r\n")
    return head, json.loads(body)


@pytest.mark.parametrize(
    "settings", [{"upload_pause_s": 0.3}, {"request_timeout_s": 0.3}], ids=["pause", "whole request"]
)
def test_an_upload_that_stops_is_given_up(url, transcriber, settings: dict[str, float]) -> None:
    address = url(**settings)
    before = open_files()
    with upload(address, form(bytes(3 << 20)), announced=4 << 20) as connection:
        head, body = received(connection)
    assert head.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in head.lower()
    assert (body["error"]["code"], body["error"]["param"]) == ("upload_timeout", "file")
    assert transcriber.jobs == []
    assert open_files() - before == set()


def test_an_upload_that_drips_is_given_up(url) -> None:
    with upload(url(upload_pause_s=0.5, min_upload_bytes_per_s=1e6), form(b""), announced=1 << 20) as connection:
        connection.settimeout(0.1)
        for _ in range(300):
            connection.sendall(b"x")
            try:
                assert connection.recv(1, socket.MSG_PEEK) == b"H"
            except TimeoutError:
                continue
            break
        connection.settimeout(60)
        assert received(connection)[1]["error"]["code"] == "upload_timeout"


def test_an_upload_in_pieces_is_waited_for(url, wav) -> None:
    whole = form(wav) + b"\r\n--x--\r\n"
    address = url(upload_pause_s=5)
    with upload(address, whole[:5000], announced=len(whole)) as connection:
        for start in range(5000, len(whole), 5000):
            time.sleep(0.02)
            connection.sendall(whole[start : start + 5000])
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 OK")


async def test_pauses_count_and_bytes_make_up_for_them() -> None:
    """Ten seconds a kilobyte by the clock: a rate of 100 bytes a second is kept for ever, 103 until 30 s are used."""
    taken: list[Message] = []
    await pieces_taken(100, taken)
    assert len(taken) == 1000
    taken.clear()
    with pytest.raises(ApiError, match="too slow"):
        await pieces_taken(103, taken)
    assert 90 < len(taken) < 110


async def pieces_taken(min_bytes_per_s: float, taken: list[Message]) -> None:
    """Reads 1000 pieces of 1000 bytes, as far as it gets."""
    now_s = 0.0

    async def receive() -> Message:
        nonlocal now_s
        await asyncio.sleep(0)
        now_s += 10.0
        return {"type": "http.request", "body": bytes(1000), "more_body": len(taken) < 999}

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        while len(taken) < 1000:
            taken.append(await receive())

    async def send(_message: Message) -> None:
        raise AssertionError

    paced = UploadPace(app, pause_s=30, min_bytes_per_s=min_bytes_per_s, clock=lambda: now_s)
    await paced({"type": "http"}, receive, send)


def test_an_aborted_upload_leaves_nothing_behind(url, wav, caplog) -> None:
    caplog.set_level(logging.INFO, "steer_asr_serving")
    address = url(max_concurrent=1)
    before = open_files()
    for _ in range(3):
        upload(address, form(bytes(3 << 20)), announced=4 << 20).close()
        deadline = time.monotonic() + 30
        while not any(getattr(record, "facts", {}).get("status") == 499 for record in caplog.records):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        caplog.clear()
    assert open_files() - before == set()
    answer = httpx2.post(f"{address}{PATH}", files={"file": ("a.wav", wav)}, data={"model": "scripted"})
    assert answer.json()["text"] == TEXT, "its place is free again"
    assert [record.levelname for record in caplog.records if record.levelno > logging.INFO] == []


def open_files() -> set[str]:
    """Regular files that this process has open, where the system shows it."""
    try:
        links = [os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
    except FileNotFoundError:
        pytest.skip("needs /proc")
    return {target for link in links if os.path.lexists(link) and (target := os.readlink(link)).startswith("/tmp")}


@pytest.mark.parametrize("path", [PATH, "/ui/api/analyze"])
def test_a_client_that_leaves_while_it_waits_ends_the_decode(url, replica, held, path: str) -> None:
    """Also without streaming, and whatever serves the app."""
    address = url().removeprefix("http://").split(":")
    data = as_wav(noise(100))
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    tail = b'\r\n--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nscripted\r\n--x--\r\n'
    body = head + data + tail
    request = (
        f"POST {path} HTTP/1.1\r\nHost: test\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((address[0], int(address[1]))) as client:
        client.sendall(request.encode() + body)
        assert held.started.wait(30)
    time.sleep(0.5)  # the server notices
    held.go_on.set()
    asyncio.run(replica.transcribe(Job("scripted", noise(0.5), None)))  # waits for the only worker
    assert len(held.threads) == 1 + 1, "one window of the first"
