"""A server that stops; test_cluster.py ends a real one while it works."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from pydantic import ValidationError

from steer_asr_serving import cli
from steer_asr_serving.draining import Drain
from steer_asr_serving.settings import Settings
from tests.serving.scripted_whisper import TEXT
from tests.serving.test_deployment import HeldEncoder

pytestmark = pytest.mark.anyio
PATH = "/v1/audio/transcriptions"


async def test_what_has_begun_ends_and_what_comes_is_sent_away(app, wav, replica, monkeypatch) -> None:
    import httpx2

    held = HeldEncoder(replica._models["scripted"], monkeypatch)
    served = app()
    transport = httpx2.ASGITransport(app=served, client=("127.0.0.1", 1))
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as http:

        async def post() -> httpx2.Response:
            return await http.post(PATH, files={"file": ("a.wav", wav)}, data={"model": "scripted"})

        begun = asyncio.create_task(post())
        await asyncio.to_thread(held.started.wait, 30)
        draining = asyncio.create_task(served.state.drain.run(60))
        await asyncio.sleep(0)
        late = await post()
        assert (late.status_code, late.json()["error"]["code"]) == (503, "stopping")
        assert int(late.headers["retry-after"]) >= 1
        assert late.headers["x-request-id"]
        assert [(await http.get(path)).status_code for path in ("/ready", "/health", "/metrics")] == [503, 200, 200]
        assert not draining.done()
        held.go_on.set()
        assert (await begun).json()["text"] == TEXT
        assert await draining == 0


async def test_waiting_has_an_end() -> None:
    drain = Drain()
    with drain.counted(), drain.counted():
        assert await drain.run(0.01) == 2
    assert await drain.run(0.01) == 0


async def test_a_live_stream_is_told(app) -> None:
    served = app()
    await served.state.drain.run(0)
    sent: list[Any] = []

    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/v1/audio/stream", "headers": [], "query_string": b"", "client": None}
    await served(scope, receive, send)
    accepted, told, closed = sent
    assert (accepted["type"], closed["type"], closed["code"]) == ("websocket.accept", "websocket.close", 1012)
    assert json.loads(told["text"])["error"]["code"] == "stopping"


class Handle:
    def __init__(self, left: int | BaseException) -> None:
        self.left, self.given = left, []
        self.drain = self

    def remote(self, timeout_s: float) -> Handle:
        self.given.append(timeout_s)
        return self

    def result(self, timeout_s: float) -> int:
        self.given.append(timeout_s)
        if isinstance(self.left, BaseException):
            raise self.left
        return self.left


@pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`")  # Ray's own models
@pytest.mark.parametrize(
    ("answer", "left", "says"),
    [
        (0, 0, ""),
        (2, 2, "2 requests took longer than drain_s (9 s)"),
        (RuntimeError("no replica"), 0, "were not waited for: no replica"),
        (KeyboardInterrupt(), 1, ""),
    ],
)
async def test_the_command_waits_for_the_app(monkeypatch, capsys, answer: Any, left: int, says: str) -> None:
    handle = Handle(answer)
    monkeypatch.setattr("ray.serve.get_app_handle", lambda _name: handle)
    assert cli.drained(9) == left
    assert says in capsys.readouterr().err
    assert handle.given[0] == 9
    assert handle.given[1] > 9


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"max_replicas": 2, "replicas": 3, "cpus_per_replica": 1}, "max_replicas is 2, and replicas already 3"),
        ({"max_replicas": 2}, "max_replicas needs cpus_per_replica"),
        ({"drain_s": -1}, "greater than or equal to 0"),
    ],
)
async def test_settings_that_make_no_sense(wrong: Any, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Settings(**wrong)


@pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`")
async def test_the_number_of_replicas_is_fixed_or_grows() -> None:
    from steer_asr_serving.app import _number_of_replicas

    assert _number_of_replicas(Settings(replicas=2)) == {"num_replicas": 2}
    growing = Settings(replicas=1, max_replicas=4, cpus_per_replica=1, workers_per_replica=2)
    assert _number_of_replicas(growing) == {
        "autoscaling_config": {"min_replicas": 1, "max_replicas": 4, "target_ongoing_requests": 2}
    }
