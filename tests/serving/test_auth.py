"""Keys and their limits."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from typing import Any

import httpx2
import openai
import pytest

from steer_asr_serving import auth
from steer_asr_serving.auth import Allowance
from steer_asr_serving.errors import ApiError
from tests.serving.scripted_whisper import TEXT
from tests.serving.test_deployment import HeldEncoder

pytestmark = pytest.mark.anyio

KEYS = {"ann": "the-key-of-ann-is-this", "bob": "the-key-of-bob-is-this"}


def configured(**limits: dict[str, int]) -> dict[str, Any]:
    """Settings with both keys, each with its own limits."""
    return {
        "api_keys": [
            {"name": name, "sha256": hashlib.sha256(key.encode()).hexdigest(), **limits.get(name, {})}
            for name, key in KEYS.items()
        ]
    }


async def test_every_key_of_the_list_opens(client, wav) -> None:
    for key in KEYS.values():
        answer = await client(key, **configured()).audio.transcriptions.create(model="scripted", file=("a.wav", wav))
        assert answer.text == TEXT


async def test_no_other_key_opens(client, transcriber, wav) -> None:
    for wrong in ("wrong", KEYS["ann"].upper(), KEYS["ann"] + "x", KEYS["ann"][:-1], hash_of("ann")):
        connected = client(wrong, **configured())
        with pytest.raises(openai.AuthenticationError) as refused:
            await connected.models.list()
        assert refused.value.code == "invalid_api_key"
        with pytest.raises(openai.AuthenticationError):
            await connected.audio.transcriptions.create(model="scripted", file=("a.wav", wav))
    assert transcriber.jobs == []


def hash_of(name: str) -> str:
    return hashlib.sha256(KEYS[name].encode()).hexdigest()


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", f"Basic {KEYS['ann']}", KEYS["ann"]])
async def test_a_key_has_to_be_sent_as_a_bearer_token(http, header: str | None) -> None:
    headers = {} if header is None else {"authorization": header}
    for path in ("/v1/audio/transcriptions", "/v1/audio/translations"):
        refused = await http(**configured()).post(path, headers=headers)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    assert (await http(**configured()).get("/v1/models", headers=headers)).status_code == 401


async def test_health_needs_no_key(http) -> None:
    for path in ("/health", "/ready", "/openapi.json"):
        assert (await http(**configured()).get(path)).status_code == 200


async def test_every_hash_is_compared_in_constant_time(client, monkeypatch) -> None:
    compared: list[tuple[int, int]] = []
    compare_digest = hmac.compare_digest

    def noted(given: bytes, known: bytes) -> bool:
        compared.append((len(given), len(known)))
        return compare_digest(given, known)

    monkeypatch.setattr(auth.hmac, "compare_digest", noted)
    await client(KEYS["ann"], **configured()).models.list()
    assert compared == [(32, 32)] * 2, "both, although the first one fits"


async def test_without_keys_only_this_machine_is_answered(http) -> None:
    for host, status in (("127.0.0.1", 200), ("::1", 200), ("192.168.0.7", 401), ("2001:db8::1", 401)):
        answer = await http(client=(host, 1234)).get("/v1/models")
        assert answer.status_code == status, host
    assert (await http(client=("192.168.0.7", 1234)).get("/health")).status_code == 200


async def test_requests_in_a_minute_are_counted_for_each_key(app, wav) -> None:
    now_s = 1000.0
    limits = configured(ann={"requests_per_minute": 2}) | {"requests_per_minute": 3}
    transport = httpx2.ASGITransport(app=app(clock=lambda: now_s, **limits))

    def create(name: str) -> Any:
        http = httpx2.AsyncClient(transport=transport, base_url="http://test")
        client = openai.AsyncOpenAI(base_url="http://test/v1", api_key=KEYS[name], max_retries=0, http_client=http)
        return client.audio.transcriptions.create(model="scripted", file=("a.wav", wav))

    await create("ann")
    await create("ann")
    with pytest.raises(openai.RateLimitError, match="2 requests a minute; try again in 30 s") as refused:
        await create("ann")
    assert refused.value.code == "rate_limit_exceeded"
    assert refused.value.response.headers["retry-after"] == "30"
    for _ in range(3):
        await create("bob")
    with pytest.raises(openai.RateLimitError, match="3 requests a minute"):
        await create("bob")
    now_s += 30
    await create("ann")
    with pytest.raises(openai.RateLimitError):
        await create("ann")


def test_an_allowance_fills_up_to_its_minute_and_no_further() -> None:
    allowance = Allowance(per_minute=4, max_concurrent=None)
    for _ in range(4):
        allowance.take(10_000.0)
    with pytest.raises(ApiError) as full:
        allowance.take(10_007.5)
    assert full.value.retry_after_s == 8
    allowance.take(10_015.0)
    taken = 0
    with pytest.raises(ApiError):
        while taken < 10:
            allowance.take(99_999.0)
            taken += 1
    assert taken == 4


@pytest.mark.parametrize("stream", [False, True])
async def test_requests_in_progress_are_counted_for_each_key(app, wav, replica, monkeypatch, stream: bool) -> None:
    held = HeldEncoder(replica._models["scripted"], monkeypatch)
    transport = httpx2.ASGITransport(app=app(**configured(ann={"max_concurrent": 1})))

    async def create(name: str) -> int:
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as http:
            answer = await http.post(
                "/v1/audio/transcriptions",
                files={"file": ("a.wav", wav)},
                data={"model": "scripted", "stream": str(stream).lower()},
                headers={"authorization": f"Bearer {KEYS[name]}"},
            )
            return answer.status_code

    first = asyncio.create_task(create("ann"))
    await asyncio.to_thread(held.started.wait, 30)
    assert await create("ann") == 429
    other = asyncio.create_task(create("bob"))
    held.go_on.set()
    assert await asyncio.gather(first, other) == [200, 200]
    assert await create("ann") == 200, "the place was given back"


async def test_a_place_is_given_back_after_an_error_too(http, wav) -> None:
    connected = http(max_concurrent=1)
    for _ in range(2):
        refused = await connected.post("/v1/audio/transcriptions", files={"file": ("a.wav", wav)})
        assert refused.status_code == 400
