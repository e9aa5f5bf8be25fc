"""Server-sent events, over a socket, with OpenAI's synchronous client."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import openai
import pytest
import uvicorn

from steer_asr.errors import PackError
from steer_asr_serving import events as sse
from steer_asr_serving.errors import ApiError
from tests.helpers import noise
from tests.serving.conftest import as_wav
from tests.serving.scripted_whisper import PARTS, TEXT
from tests.serving.test_deployment import HeldEncoder


@pytest.fixture
def url(app) -> Iterator[Callable[..., str]]:
    """`url(**settings)`: where the app is served, by uvicorn in a thread."""
    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def serve(**settings: Any) -> str:
        listening = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app(**settings), log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        running.append((server, thread))
        return f"http://127.0.0.1:{listening.getsockname()[1]}"

    yield serve
    for server, thread in running:
        server.should_exit = True
        thread.join()


@pytest.fixture
def limits() -> dict[str, int]:
    """Settings of the server that `create` talks to."""
    return {}


@pytest.fixture
def create(url, limits) -> Iterator[Callable[..., Any]]:
    """`client.audio.transcriptions.create` of a synchronous client."""
    with openai.OpenAI(base_url=f"{url(**limits)}/v1", api_key="unused", max_retries=0) as client:
        yield client.audio.transcriptions.create


def test_without_streaming(create, wav) -> None:
    assert create(model="scripted", file=("a.wav", wav)).text == TEXT


@pytest.mark.parametrize("response_format", ["json", "text"])
def test_deltas_come_first_and_done_has_the_whole_text(create, wav, response_format: str) -> None:
    events = list(create(model="scripted", file=("a.wav", wav), stream=True, response_format=response_format))
    assert [event.type for event in events] == ["transcript.text.delta"] * 2 + ["transcript.text.done"]
    assert [event.delta for event in events[:2]] == [PARTS[0].lstrip(), PARTS[1]]
    assert events[-1].text == TEXT


def test_the_bytes_of_a_stream(url, wav) -> None:
    answer = httpx2.post(
        f"{url()}/v1/audio/transcriptions",
        files={"file": ("a.wav", wav)},
        data={"model": "scripted", "stream": "true", "steer": "0.05"},
    )
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-steer-strength"] == "0.05"
    lines = answer.text.split("\n\n")
    assert lines.pop() == ""
    assert all(line.startswith("data: ") for line in lines)
    assert json.loads(lines[-1].removeprefix("data: ")) == {"type": "transcript.text.done", "text": TEXT}


def test_silence_streams_an_empty_done(create, wav) -> None:
    (event,) = create(model="scripted", file=("a.wav", wav), stream=True, extra_body={"steer": "default"})
    assert (event.type, event.text) == ("transcript.text.done", "")


def test_a_delta_is_sent_before_the_decode_is_over(create, replica, monkeypatch) -> None:
    """The second window waits until the client has the text of the first."""
    received = threading.Event()
    encode = type(replica._models["scripted"]).encode
    windows = []

    def slow(model: Any, features: Any) -> Any:
        windows.append(features)
        assert len(windows) == 1 or received.wait(30)
        return encode(model, features)

    monkeypatch.setattr(type(replica._models["scripted"]), "encode", slow)
    events = iter(create(model="scripted", file=("a.wav", long_recording()), stream=True))
    assert next(events).delta == PARTS[0].lstrip()
    assert len(windows) <= 2
    received.set()
    assert [event.type for event in events][-1] == "transcript.text.done"
    assert len(windows) > 1


def test_a_connection_that_carries_nothing_is_kept_alive(url, wav, replica, monkeypatch) -> None:
    held = HeldEncoder(replica._models["scripted"], monkeypatch)
    monkeypatch.setattr(sse, "KEEP_ALIVE_S", 0.05)
    data = {"model": "scripted", "stream": "true"}
    address = f"{url()}/v1/audio/transcriptions"
    with httpx2.stream("POST", address, files={"file": ("a.wav", wav)}, data=data) as answer:
        blocks = iter(answer.iter_text())
        assert next(blocks).startswith(": still working\n\n")
        held.go_on.set()
        rest = "".join(blocks)
    assert [json.loads(line[6:])["type"] for line in rest.split("\n\n") if line.startswith("data: ")] == [
        "transcript.text.delta",
        "transcript.text.delta",
        "transcript.text.done",
    ]


def test_openais_client_skips_what_keeps_the_connection_alive(create, wav, replica, monkeypatch) -> None:
    held = HeldEncoder(replica._models["scripted"], monkeypatch)
    monkeypatch.setattr(sse, "KEEP_ALIVE_S", 0.05)
    threading.Timer(0.5, held.go_on.set).start()
    events = create(model="scripted", file=("a.wav", wav), stream=True)
    assert [event.type for event in events] == ["transcript.text.delta"] * 2 + ["transcript.text.done"]


def test_an_early_refusal_has_its_own_status(create, wav) -> None:
    with pytest.raises(openai.BadRequestError, match="language 'xx'"):
        create(model="scripted", file=("a.wav", wav), stream=True, language="xx")


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        (ApiError(503, "the transcriber is restarting", code="unavailable"), "the transcriber is restarting"),
        (PackError("the pack has gone"), "the pack has gone"),
    ],
)
def test_a_late_failure_is_an_event_that_openais_client_raises(
    create, wav, transcriber, failure: Exception, says: str
) -> None:
    transcriber.failure, transcriber.fails_after = failure, 1
    events = iter(create(model="scripted", file=("a.wav", wav), stream=True))
    assert next(events).delta == PARTS[0].lstrip()
    with pytest.raises(openai.APIError, match=says):
        next(events)


@pytest.mark.parametrize("limits", [{"max_concurrent": 1}])
def test_a_client_that_goes_away_ends_the_decode_and_frees_its_place(create, replica, monkeypatch) -> None:
    windows = []
    encode = type(replica._models["scripted"]).encode
    left = threading.Event()

    def slow(model: Any, features: Any) -> Any:
        windows.append(features)
        assert len(windows) == 1 or left.wait(30)
        return encode(model, features)

    monkeypatch.setattr(type(replica._models["scripted"]), "encode", slow)
    events = create(model="scripted", file=("a.wav", long_recording(windows=8)), stream=True)
    next(iter(events))
    events.close()
    time.sleep(0.5)  # for the server to notice; the decode is held meanwhile
    left.set()
    assert create(model="scripted", file=("a.wav", long_recording(windows=1))).text, "the only worker is free again"
    assert len(windows) == 3, "two of the first recording, one of the second"


@pytest.mark.parametrize(
    ("segments", "deltas"),
    [
        ([" Good", " day."], ["Good", " day."]),
        ([" ", " Good ", "", "  day. ", " "], ["Good", "   day."]),
        (["\n", " "], []),
        ([], []),
    ],
)
def test_deltas_join_to_the_final_text(segments: list[str], deltas: list[str]) -> None:
    cutter = sse.Deltas()
    cut = [delta for segment in segments if (delta := cutter.next(segment))]
    assert cut == deltas
    assert "".join(cut) == "".join(segments).strip()


def long_recording(windows: int = 2) -> bytes:

    return as_wav(noise(30.0 * windows - 1))
