"""Who may send requests, and how many.

    gate = Gate(settings, time.monotonic)
    router = APIRouter(dependencies=[Depends(gate.admit)])

Counts are kept in this process. They are exact because one HTTP process answers all requests (see `app`).
"""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from steer_asr_serving.errors import ApiError
from steer_asr_serving.settings import ApiKey, Settings, is_loopback

BEARER = HTTPBearer(auto_error=False, description="A key of this server; none is needed if it has no keys.")
Given = Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)]
KEYLESS = "none"
"""Name of the client where no keys are asked for."""


@dataclass
class Allowance:
    """What one client may still do: a token bucket for requests, a counter for those in progress."""

    per_minute: int | None
    max_concurrent: int | None
    running: int = 0
    _left: float = math.inf
    _seen_s: float = -math.inf

    def take(self, now_s: float) -> None:
        """Books one request. Raises `ApiError` 429, which says when the next one is possible."""
        if self.max_concurrent is not None and self.running >= self.max_concurrent:
            message = f"this key may have {self.max_concurrent} requests in progress"
            raise ApiError(429, message, code="too_many_concurrent_requests")
        if self.per_minute is not None:
            self._left = min(self.per_minute, self._left + (now_s - self._seen_s) * self.per_minute / 60)
            self._seen_s = now_s
            if self._left < 1:
                wait_s = math.ceil((1 - self._left) * 60 / self.per_minute)
                message = f"this key may send {self.per_minute} requests a minute; try again in {wait_s} s"
                raise ApiError(429, message, code="rate_limit_exceeded", retry_after_s=wait_s)
            self._left -= 1
        self.running += 1

    def give_back(self) -> None:
        """The request has ended."""
        self.running -= 1


class Gate:
    """Checks keys and limits, as FastAPI dependencies."""

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._keys = [(bytes.fromhex(key.sha256), key.name) for key in settings.api_keys]
        self._allowances = {
            key.name: Allowance(
                settings.requests_per_minute if key.requests_per_minute is None else key.requests_per_minute,
                settings.max_concurrent if key.max_concurrent is None else key.max_concurrent,
            )
            for key in settings.api_keys or (ApiKey(name=KEYLESS, sha256="0" * 64),)
        }

    async def identify(self, request: Request, given: Given) -> str:
        """Name of the key that a request carries. Raises `ApiError` 401."""
        name = self._client(given, request.client and request.client.host)
        request.state.facts["key"] = name
        return name

    async def admit(self, request: Request, given: Given) -> AsyncIterator[None]:
        """Holds one of the key's places until the answer has been sent. Raises `ApiError` 401 or 429."""
        allowance = self._allowances[await self.identify(request, given)]
        allowance.take(self._clock())
        try:
            yield
        finally:
            allowance.give_back()

    @contextmanager
    def admitted(
        self, given: HTTPAuthorizationCredentials | None, host: str | None, facts: dict[str, Any]
    ) -> Iterator[None]:
        """The same for a WebSocket, from `host`: holds one place, and notes the key. Raises `ApiError` 401 or 429."""
        facts["key"] = name = self._client(given, host)
        allowance = self._allowances[name]
        allowance.take(self._clock())
        try:
            yield
        finally:
            allowance.give_back()

    def _client(self, given: HTTPAuthorizationCredentials | None, host: str | None) -> str:
        return self._named(given) if self._keys else self._local(host)

    def _named(self, given: HTTPAuthorizationCredentials | None) -> str:
        """Hashes, compared in constant time and with every key, give away neither a key nor which one came close."""
        digest = hashlib.sha256((given.credentials if given else "").encode()).digest()
        names = [name for sha256, name in self._keys if hmac.compare_digest(digest, sha256)]
        if given is None or not names:
            raise ApiError(401, "a valid API key is needed: Authorization: Bearer KEY", code="invalid_api_key")
        return names[0]

    def _local(self, host: str | None) -> str:
        """A server without keys, started on an open address by other means than ours, still answers nobody else."""
        if host is not None and not is_loopback(host):
            message = "this server has no API keys and answers only its own machine; set api_keys"
            raise ApiError(401, message, code="invalid_api_key")
        return KEYLESS
