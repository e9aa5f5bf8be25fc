"""`/v1/audio/stream` over a real socket, with the model that says the same of any sound unless it is steered."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from steer_asr_serving.errors import ApiError
from tests.helpers import noise
from tests.serving.conftest import Recorder
from tests.serving.scripted_whisper import PARTS, TEXT

pytestmark = pytest.mark.anyio
KEY = "a-key-that-is-long-enough"
END = json.dumps({"type": "end"})


def pcm(seconds: float) -> bytes:
    return (noise(seconds) * 32767).astype("<i2").tobytes()


@asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", ws="websockets-sansio"))
    running = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"ws://127.0.0.1:{port}/v1/audio/stream"
    finally:
        server.should_exit = True
        await running


async def events(socket: ClientConnection) -> list[dict[str, Any]]:
    """All that comes until the server closes."""
    found = []
    try:
        while True:
            found.append(json.loads(await asyncio.wait_for(socket.recv(), 60)))
    except ConnectionClosed:
        return found


async def stream(app: FastAPI, messages: list[Any], query: str = "", **options: Any) -> list[dict[str, Any]]:
    async with served(app) as address, connect(address + query, **options) as socket:
        with suppress(ConnectionClosed):  # a bad stream is closed before its last message
            for message in messages:
                await socket.send(message)
        return await events(socket)


async def test_a_stream_is_heard_to_its_end(app: Callable[..., FastAPI]) -> None:
    *finals, done = await stream(app(), [pcm(0.3), pcm(0.3), END])
    finals = [event for event in finals if event["type"] == "transcript.final"]
    assert [event["text"] for event in finals] == list(PARTS)
    assert [(event["start"], event["end"]) for event in finals] == [(0.0, 0.2), (0.2, 0.4)]
    assert done == {"type": "transcript.done", "text": TEXT, "duration": 0.6, "speech_detected": True}


async def test_text_comes_while_sound_still_arrives(app: Callable[..., FastAPI]) -> None:
    async with served(app()) as address, connect(address) as socket:
        await socket.send(pcm(1.0))
        partial = json.loads(await asyncio.wait_for(socket.recv(), 60))
        assert (partial["type"], partial["text"].strip()) == ("transcript.partial", TEXT)
        await socket.send(pcm(1.0))
        final = json.loads(await asyncio.wait_for(socket.recv(), 60))
        assert (final["type"], final["text"]) == ("transcript.final", PARTS[0])


async def test_where_nobody_speaks_nothing_is_sent(app: Callable[..., FastAPI], transcriber: Recorder) -> None:
    """Minutes of noise, sent as fast as they are taken."""
    said = await stream(app(steer="default"), [*[pcm(5.0)] * 30, END])
    assert said == [{"type": "transcript.done", "text": "", "duration": 150.0, "speech_detected": False}]
    assert len(transcriber.jobs) > 4
    assert max(len(job.audio) for job in transcriber.jobs) <= 28 * 16_000


async def test_a_request_can_ask_for_its_own_steering(app: Callable[..., FastAPI]) -> None:
    assert (await stream(app(), [pcm(1), END], "?steer=default"))[-1]["text"] == ""
    *finals, done = await stream(app(steer="default"), [pcm(1), END], "?steer=off&model=polyglot&language=fr")
    assert done["text"]
    assert all(event.get("steer") is None for event in finals)


@pytest.mark.parametrize(
    ("messages", "query", "status", "says"),
    [
        ([END], "?model=nobody", 404, "nobody"),
        ([END], "?steer=2", 400, "strength"),
        ([END], "?colour=red", 400, "colour"),
        (["hello"], "", 400, "binary messages"),
        (['{"type": "stop"}'], "", 400, '"end"'),
        ([pcm(3.0)], "", 413, "2 s"),
        ([END], "?language=tlh", 400, "tlh"),
    ],
)
async def test_bad_streams_are_told_and_closed(
    app: Callable[..., FastAPI], messages: list[Any], query: str, status: int, says: str
) -> None:
    if "language" in query:
        messages = [pcm(0.5), END]
    [event] = await stream(app(max_stream_s=2.0), messages, query)
    assert event["type"] == "error"
    assert says in event["error"]["message"]
    assert event["error"]["type"] == ApiError(status, "").body()["error"]["type"]


async def test_an_empty_stream_has_no_text(app: Callable[..., FastAPI]) -> None:
    assert (await stream(app(), [END]))[-1] == {
        "type": "transcript.done",
        "text": "",
        "duration": 0.0,
        "speech_detected": False,
    }


async def test_a_silent_client_is_let_go(app: Callable[..., FastAPI]) -> None:
    [event] = await stream(app(upload_pause_s=0.2), [])
    assert "no sound came for 0.2 s" in event["error"]["message"]


async def test_keys_and_their_limits_hold(app: Callable[..., FastAPI]) -> None:
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    one = app(api_keys=({"name": "ci", "sha256": digest, "max_concurrent": 1},))
    [event] = await stream(one, [END])
    assert event["error"]["code"] == "invalid_api_key"
    key: dict[str, Any] = {"additional_headers": {"Authorization": f"Bearer {KEY}"}}
    assert (await stream(one, [END], **key))[-1]["type"] == "transcript.done"
    async with served(one) as address, connect(address, **key) as first:
        await first.send(pcm(1.0))
        await first.recv()
        async with connect(address, **key) as second:
            [event] = await events(second)
            assert event["error"]["code"] == "too_many_concurrent_requests"
    assert (await stream(one, [END], **key))[-1]["type"] == "transcript.done", "its place was given back"


async def test_pages_of_another_origin_are_sent_away(app: Callable[..., FastAPI]) -> None:
    [event] = await stream(app(), [END], origin="https://evil.example")
    assert event["error"]["code"] == "foreign_origin"
    async with served(app()) as address:
        own = address.replace("ws://", "http://").removesuffix("/v1/audio/stream")
        async with connect(address, additional_headers={"Origin": own}) as socket:
            await socket.send(END)
            assert (await events(socket))[-1]["type"] == "transcript.done"


async def test_a_busy_server_takes_longer_steps(app: Callable[..., FastAPI], transcriber: Recorder) -> None:
    transcriber.failure = ApiError(429, "too many requests are waiting")
    async with served(app()) as address, connect(address) as socket:
        await socket.send(pcm(1.0))
        while not transcriber.jobs:
            await asyncio.sleep(0.01)
        transcriber.failure = None
        await socket.send(END)
        assert (await events(socket))[-1]["text"] == TEXT


async def test_a_failure_nobody_expected_is_not_described(app: Callable[..., FastAPI], transcriber: Recorder) -> None:
    transcriber.failure = RuntimeError("secret")
    [event] = await stream(app(), [pcm(1.0), END])
    assert event["error"]["type"] == "server_error"
    assert "secret" not in json.dumps(event)


def test_a_streams_sound_is_16_bit() -> None:
    assert np.frombuffer(pcm(1.0), "<i2").size == 16_000
