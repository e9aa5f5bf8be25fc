"""Security headers on every kind of answer, and request ids that are safe to repeat."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from steer_asr_serving.errors import ApiError
from steer_asr_serving.observe import SECURITY_HEADERS
from tests.serving.test_auth import KEYS, configured

pytestmark = pytest.mark.anyio
PATH = "/v1/audio/transcriptions"


async def one_of_each(http: Any, wav: bytes, transcriber: Any) -> AsyncIterator[tuple[int, Any]]:
    """(status, answer)."""

    async def post(connected: Any, content: bytes = wav, **fields: str) -> Any:
        return await connected.post(PATH, files={"file": ("a.wav", content)}, data={"model": "scripted"} | fields)

    yield 200, await post(http())
    yield 200, await post(http(), stream="true")
    yield 200, await http().get("/openapi.json")
    yield 200, await http(**configured()).get("/metrics", headers={"authorization": f"Bearer {KEYS['ann']}"})
    yield 400, await post(http(), steer="2")
    yield 401, await post(http(**configured()))
    yield 404, await http().get("/nothing")
    yield 405, await http().get(PATH)
    yield 413, await post(http(max_upload_bytes=1024))
    yield 415, await post(http(), content=b"no audio" * 100)
    transcriber.failure = ApiError(503, "not now")
    yield 503, await post(http())
    transcriber.failure = RuntimeError("broken")
    yield 500, await post(http())


async def test_every_answer_has_the_security_headers(http, wav, transcriber) -> None:
    async for status, answer in one_of_each(http, wav, transcriber):
        assert answer.status_code == status
        assert {name: answer.headers.get(name) for name in SECURITY_HEADERS} == SECURITY_HEADERS, status


@pytest.mark.parametrize("given", ["<script>", 'a"b', "two words", "ä", "\x1b[31m", "", "x\ty"])
async def test_an_id_that_is_unsafe_is_not_repeated(http, given: str) -> None:
    answer = await http().get("/health", headers={"x-request-id": given.encode()})
    (returned,) = answer.headers.get_list("x-request-id")
    assert len(returned) == 32
    assert int(returned, 16)


@pytest.mark.parametrize("given", ["0af7651916cd43dd8448eb211c80319c", "req_1:2.3/4+5=6@7-8"])
async def test_any_other_id_is(http, given: str) -> None:
    assert (await http().get("/health", headers={"x-request-id": given})).headers["x-request-id"] == given
