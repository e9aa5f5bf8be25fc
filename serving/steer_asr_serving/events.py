"""A running transcription as server-sent events, in OpenAI's vocabulary.

    written = await begin(transcriber.stream(job), on_done, on_error)
    return StreamingResponse(written, media_type="text/event-stream")

One event for each segment, one with the whole text at the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any

from steer_asr_serving.answers import as_json, logprobs_body
from steer_asr_serving.deployment import Outcome, Piece
from steer_asr_serving.errors import ApiError, as_api_error
from steer_asr_serving.tap import TokenLogprob

KEEP_ALIVE_S = 15.0
"""Minutes of silence make no event, and what stands between gives up on connections that carry nothing."""
KEEP_ALIVE = ": still working\n\n"
"""A comment; clients skip it."""

Pieces = AsyncGenerator[Piece | Outcome, None]


async def begin(
    pieces: Pieces, on_done: Callable[[Outcome], None], on_error: Callable[[ApiError], None]
) -> AsyncGenerator[str, None]:
    """The events of a stream, once there is something to send.

    Whatever goes wrong before (or within `KEEP_ALIVE_S`) is raised, and can be answered with its own status. Later it
    becomes an event, which OpenAI's client raises; a failure nobody expected is raised as well, after that event.
    """
    ahead = _Ahead(pieces)
    try:
        first = await ahead.next()
    except BaseException:
        await ahead.aclose()
        raise
    return _events(first, ahead, on_done, on_error)


async def _events(
    first: Piece | Outcome | None,
    ahead: _Ahead,
    on_done: Callable[[Outcome], None],
    on_error: Callable[[ApiError], None],
) -> AsyncGenerator[str, None]:
    deltas = Deltas()
    async with aclosing(ahead):
        try:
            item = first
            while not isinstance(item, Outcome):
                if item is None:
                    yield KEEP_ALIVE
                elif text := deltas.next(item.text):
                    yield _event("transcript.text.delta", {"delta": text}, item.logprobs)
                item = await ahead.next()
            on_done(item)
            yield _event("transcript.text.done", {"text": item.transcription.text}, item.logprobs)
        except Exception as error:
            answer = as_api_error(error)
            on_error(answer)
            yield _event("error", answer.body())
            if answer.status == 500:
                raise


class Deltas:
    """Cuts a growing text so that the deltas joined are the final text, which has no space at either end."""

    def __init__(self) -> None:
        self._begun = False
        self._space = ""

    def next(self, text: str) -> str:
        """What `text` adds; empty when that cannot be told yet."""
        body = text.rstrip()
        if not self._begun:
            body = body.lstrip()
        if not body:
            self._space += text if self._begun else ""
            return ""
        delta = self._space + body
        self._begun, self._space = True, text[len(text.rstrip()) :]
        return delta


class _Ahead:
    """Waits for the next piece in a task of its own, so that not waiting any longer does not lose it."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces
        self._task: asyncio.Future[Piece | Outcome] | None = None

    async def next(self) -> Piece | Outcome | None:
        """The next piece, or None if there is none after `KEEP_ALIVE_S`. Raises what the pieces raise."""
        if self._task is None:
            self._task = asyncio.ensure_future(anext(self._pieces))
        await asyncio.wait({self._task}, timeout=KEEP_ALIVE_S)
        if not self._task.done():
            return None
        task, self._task = self._task, None
        return task.result()

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self._pieces.aclose()


def _event(kind: str, body: dict[str, Any], logprobs: Sequence[TokenLogprob] | None = None) -> str:
    extra = {} if logprobs is None else {"logprobs": logprobs_body(logprobs)}
    return f"data: {as_json({'type': kind, **body, **extra})}\n\n"
