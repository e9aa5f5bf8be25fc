"""The replica with a real (tiny) model, and the way to it through Serve's handles; test_cluster.py runs it in Ray."""

from __future__ import annotations

import asyncio
import pickle
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import steer_asr
from steer_asr.errors import PackError
from steer_asr.steering import Steering
from steer_asr_serving.deployment import DEPLOYMENT, Job, Outcome, Piece, RemoteTranscriber, TranscriberReplica
from steer_asr_serving.errors import ApiError
from steer_asr_serving.served import Catalogue
from steer_asr_serving.settings import Settings
from tests.helpers import noise
from tests.serving.scripted_whisper import PARTS, TEXT

pytestmark = [
    pytest.mark.anyio,
    # Ray Serve's own models are written in a way that pydantic deprecates.
    pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`"),
]

SOUND = noise(0.5)


class HeldEncoder:
    """Holds every encoder call of one model until `go_on` is set."""

    def __init__(self, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.started, self.go_on = threading.Event(), threading.Event()
        self.threads: list[str] = []
        encode = type(model).encode

        def held(this: Any, features: np.ndarray) -> Any:
            self.threads.append(threading.current_thread().name)
            self.started.set()
            assert self.go_on.wait(30)
            return encode(this, features)

        monkeypatch.setattr(type(model), "encode", held)


@pytest.fixture
def held(replica: TranscriberReplica, monkeypatch: pytest.MonkeyPatch) -> HeldEncoder:
    return HeldEncoder(replica._models["scripted"], monkeypatch)


def test_threads_of_each_model_match_the_replica(served_settings, monkeypatch) -> None:
    given: list[dict[str, Any]] = []
    load_model = steer_asr.load_model

    def noted(name: str, **options: Any) -> Any:
        given.append(options)
        return load_model(name, **options)

    monkeypatch.setattr("steer_asr.load_model", noted)
    settings = Settings(**served_settings | {"cpus_per_replica": 8, "workers_per_replica": 4})
    TranscriberReplica(settings, Catalogue.find(settings))
    wanted = {"device": "cpu", "compute_type": "float32", "cpu_threads": 2, "num_workers": 4}
    assert given == [wanted, wanted]


async def test_a_job_runs_in_a_worker_thread_and_leaves_the_loop_free(replica, held) -> None:
    running = asyncio.create_task(replica.transcribe(Job("scripted", SOUND, None)))
    await asyncio.to_thread(held.started.wait, 30)
    held.go_on.set()  # only a free loop gets here
    outcome = await running
    assert isinstance(outcome, Outcome)
    assert outcome.transcription.text == TEXT
    assert outcome.seconds > 0
    assert [name.startswith("transcribe") for name in held.threads] == [True]


async def test_temperature_zero_may_rise_and_any_other_is_the_only_one(replica) -> None:
    for given, tried in ((0.0, 0.0), (0.5, 0.5)):
        outcome = await replica.transcribe(Job("scripted", SOUND, None, temperature=given))
        assert {segment.temperature for segment in outcome.transcription.segments} == {tried}


async def test_steering_of_each_job_is_its_own(replica, scripted) -> None:
    quiet = str(scripted / "quiet")
    steerings = [None, Steering(quiet), Steering(quiet, 0.05), None]
    outcomes = await asyncio.gather(*(replica.transcribe(Job("scripted", SOUND, s)) for s in steerings))
    assert [outcome.transcription.text for outcome in outcomes] == [TEXT, "", TEXT, TEXT]


async def test_refusals_come_back_as_values(replica, tmp_path) -> None:
    unknown = await replica.transcribe(Job("scripted", SOUND, None, language="xx"))
    assert isinstance(unknown, ApiError)
    assert (unknown.status, unknown.param) == (400, "language")
    broken = await replica.transcribe(Job("scripted", SOUND, Steering(str(tmp_path))))
    assert isinstance(broken, PackError)
    assert [type(item) async for item in replica.stream(Job("scripted", SOUND, None, language="xx"))] == [ApiError]


async def test_pieces_come_before_the_outcome(replica) -> None:
    *pieces, outcome = [item async for item in replica.stream(Job("scripted", SOUND, None))]
    assert pieces == [Piece(part) for part in PARTS]
    assert outcome.transcription.text == TEXT


@pytest.mark.parametrize("streamed", [False, True])
async def test_decoding_stops_when_the_caller_goes_away(replica, held, streamed: bool) -> None:
    job = Job("scripted", noise(200), None)
    call = asyncio.create_task(anext(replica.stream(job)) if streamed else replica.transcribe(job))
    await asyncio.to_thread(held.started.wait, 30)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    held.go_on.set()
    await replica.transcribe(Job("scripted", SOUND, None))  # waits for the only worker, so the first job has ended
    assert len(held.threads) == 1 + 1


async def test_a_job_that_still_waits_is_never_begun(replica, held) -> None:
    first = asyncio.create_task(replica.transcribe(Job("scripted", SOUND, None)))
    await asyncio.to_thread(held.started.wait, 30)
    waiting = asyncio.create_task(anext(replica.stream(Job("scripted", SOUND, None))))
    await asyncio.sleep(0)
    waiting.cancel()
    held.go_on.set()
    assert (await first).transcription.text == TEXT
    await replica.transcribe(Job("scripted", SOUND, None))
    assert len(held.threads) == 2


@pytest.fixture
def handle(served_settings) -> Any:
    """A Serve handle on a replica in this process."""
    from ray import serve

    settings = Settings(**served_settings)
    transcriber = serve.deployment(name=DEPLOYMENT)(TranscriberReplica)
    app = transcriber.bind(settings, Catalogue.find(settings))
    return serve.run(app, _local_testing_mode=True)


async def test_through_a_handle(handle) -> None:
    remote = RemoteTranscriber(handle)
    assert (await remote.transcribe(Job("scripted", SOUND, None))).transcription.text == TEXT
    *pieces, outcome = [item async for item in remote.stream(Job("scripted", SOUND, None))]
    assert pieces == [Piece(part) for part in PARTS]
    assert isinstance(outcome, Outcome)
    with pytest.raises(ApiError, match="language 'xx'"):
        await remote.transcribe(Job("scripted", SOUND, None, language="xx"))
    with pytest.raises(ApiError, match="language 'xx'"):
        await anext(remote.stream(Job("scripted", SOUND, None, language="xx")))


class BrokenHandle:
    """A Serve handle whose calls fail, and which notes what is cancelled."""

    def __init__(self, trouble: Exception) -> None:
        self.trouble = trouble
        self.cancelled = False
        self.transcribe = self.stream = SimpleNamespace(remote=lambda _job: self)

    def options(self, *, stream: bool) -> BrokenHandle:
        assert stream
        return self

    def __await__(self) -> Any:
        raise self.trouble
        yield

    async def __aiter__(self) -> AsyncIterator[Any]:
        raise self.trouble
        yield

    def cancel(self) -> None:
        self.cancelled = True


async def test_trouble_in_serve_asks_for_a_retry() -> None:
    from ray.exceptions import ActorDiedError
    from ray.serve.exceptions import BackPressureError

    for trouble, status in ((BackPressureError(16, 16), 429), (ActorDiedError(), 503)):
        broken: Any = BrokenHandle(trouble)
        with pytest.raises(ApiError) as refused:
            await RemoteTranscriber(broken).transcribe(Job("scripted", SOUND, None))
        assert refused.value.status == status
        assert refused.value.response().headers["retry-after"] == "1"
        with pytest.raises(ApiError) as refused:
            await anext(RemoteTranscriber(broken).stream(Job("scripted", SOUND, None)))
        assert refused.value.status == status
        assert broken.cancelled


def test_refusals_survive_the_way_between_processes() -> None:
    refusal = pickle.loads(pickle.dumps(ApiError(429, "slower", "file", "rate_limit_exceeded", 7)))
    assert (refusal.status, refusal.message, refusal.param) == (429, "slower", "file")
    assert refusal.code == "rate_limit_exceeded"
    assert refusal.response().headers["retry-after"] == "7"


def test_settings_carry_no_key_to_the_replicas(served_settings) -> None:
    settings = Settings(**served_settings, api_key="a-key-of-enough-length")  # pyright: ignore[reportArgumentType]
    assert b"a-key-of-enough-length" not in pickle.dumps(settings)
    assert Path(pickle.loads(pickle.dumps(settings)).models[0]).name == "scripted"
