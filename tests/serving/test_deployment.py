"""The replica's own logic, with a stand-in for the Whisper model; test_cluster.py runs it in Ray."""

from __future__ import annotations

import asyncio
import pickle
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from faster_whisper.transcribe import Segment

from steer_asr.errors import PackError
from steer_asr.steering import Steering
from steer_asr.transcription import Transcription
from steer_asr_serving.deployment import FALLBACK_TEMPERATURES, Job, RemoteTranscriber, TranscriberReplica
from steer_asr_serving.errors import ApiError
from steer_asr_serving.settings import Settings

pytestmark = [
    pytest.mark.anyio,
    # Ray Serve's own models are written in a way that pydantic deprecates.
    pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`"),
]

SILENCE = np.zeros(16_000, np.float32)


class StandInModel:
    supported_languages = ("en",)

    def __init__(self) -> None:
        self.options: dict[str, object] = {}
        self.calls: list[dict] = []
        self.threads: set[str] = set()
        self.consumed = 0
        self.go_on = threading.Event()
        self.go_on.set()
        self.started = threading.Event()

    def steered(self, _steer: object) -> StandInModel:
        return self

    def transcribe(self, _audio: np.ndarray, **options: object):
        self.calls.append(options)
        self.threads.add(threading.current_thread().name)
        if isinstance(options["steer"], Steering) and options["steer"].pack == "broken":
            raise PackError("pack 'broken' is broken")
        return self._segments(), SimpleNamespace(language="en", language_probability=1.0, duration=1.0)

    def _segments(self):
        for i in range(3):
            self.started.set()
            self.go_on.wait(10)
            self.consumed += 1
            yield Segment(i, 0, 0.0, 1.0, f" word{i}", [], -0.1, 1.0, 0.1, None, 0.0)


@pytest.fixture
def model(monkeypatch) -> StandInModel:
    model = StandInModel()

    def load_model(_name: str, **options: object) -> StandInModel:
        model.options = options
        return model

    monkeypatch.setattr("steer_asr.load_model", load_model)
    return model


def replica(**settings: Any) -> TranscriberReplica:
    return TranscriberReplica(Settings(**settings), Steering())


async def test_threads_of_the_model_match_the_replica(model) -> None:
    replica(cpus_per_replica=8, workers_per_replica=4, compute_type="int8")
    assert model.options == {"device": "cpu", "compute_type": "int8", "cpu_threads": 2, "num_workers": 4}


async def test_a_job_becomes_a_call_in_a_worker_thread(model) -> None:
    transcription = await replica().transcribe(Job(SILENCE, Steering(strength=0.5), "en", "a prompt", 0.0, True))
    assert isinstance(transcription, Transcription)
    assert transcription.text == "word0 word1 word2"
    assert model.calls == [
        {
            "steer": Steering(strength=0.5),
            "language": "en",
            "initial_prompt": "a prompt",
            "temperature": FALLBACK_TEMPERATURES,
            "word_timestamps": True,
        }
    ]
    assert model.threads == {"transcribe_0"}


async def test_a_given_temperature_is_the_only_one(model) -> None:
    await replica().transcribe(Job(SILENCE, None, temperature=0.5))
    assert model.calls[0]["temperature"] == 0.5


async def test_refusals_come_back_as_values(model) -> None:
    unknown = await replica().transcribe(Job(SILENCE, None, language="xx"))
    assert isinstance(unknown, ApiError)
    assert (unknown.status, unknown.param) == (400, "language")
    broken = await replica().transcribe(Job(SILENCE, Steering("broken")))
    assert isinstance(broken, PackError)
    assert model.consumed == 0


async def test_decoding_stops_when_the_caller_goes_away(model) -> None:
    model.go_on.clear()
    server = replica()
    call = asyncio.create_task(server.transcribe(Job(SILENCE, None)))
    await asyncio.to_thread(model.started.wait, 10)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    model.go_on.set()
    model.started.clear()
    await server.transcribe(Job(SILENCE, None))  # waits for the only worker, so the first job has ended by now
    assert model.consumed == 1 + 3


def handle(*, returns: object = None, raises: Exception | None = None) -> Any:
    """A Serve handle whose calls end so."""

    async def remote(_job: Job) -> object:
        if raises is not None:
            raise raises
        return returns

    return SimpleNamespace(transcribe=SimpleNamespace(remote=remote))


async def test_trouble_in_serve_asks_for_a_retry() -> None:
    from ray.exceptions import ActorDiedError
    from ray.serve.exceptions import BackPressureError

    for trouble, status in ((BackPressureError(16, 16), 429), (ActorDiedError(), 503)):
        with pytest.raises(ApiError) as refused:
            await RemoteTranscriber(handle(raises=trouble)).transcribe(Job(SILENCE, None))
        assert refused.value.status == status
        assert refused.value.response().headers["retry-after"] == "1"


async def test_refusals_survive_the_way_between_processes() -> None:
    refusal = pickle.loads(pickle.dumps(ApiError(400, "no such language", "language", "invalid")))
    with pytest.raises(ApiError, match="no such language") as raised:
        await RemoteTranscriber(handle(returns=refusal)).transcribe(Job(SILENCE, None))
    assert (raised.value.status, raised.value.param, raised.value.code) == (400, "language", "invalid")
