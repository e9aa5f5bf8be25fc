"""Which models a replica keeps."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pydantic import ValidationError

from steer_asr_serving.deployment import Job, TranscriberReplica
from steer_asr_serving.served import Catalogue
from steer_asr_serving.settings import Settings
from steer_asr_serving.shelf import ModelShelf
from tests.helpers import noise
from tests.serving.scripted_whisper import TEXT


def test_the_least_recently_used_makes_room() -> None:
    loaded: list[str] = []

    def load(name: str) -> str:
        loaded.append(name)
        return name.upper()

    shelf = ModelShelf(load, 2)
    shelf.fill(["a", "b", "c"])
    assert shelf.names == ("a", "b"), "no more than fit"
    assert shelf["a"] == "A"
    assert shelf["c"] == "C"
    assert shelf.names == ("a", "c")
    assert shelf["b"] == "B"
    assert loaded == ["a", "b", "c", "b"]


def test_a_model_goes_before_another_comes() -> None:
    alive: list[str] = []

    class Model:
        def __init__(self, name: str) -> None:
            self.name = name
            alive.append(name)
            assert len(alive) == 1

        def __del__(self) -> None:
            alive.remove(self.name)

    shelf = ModelShelf(Model, 1)
    assert [shelf[name].name for name in ("a", "b", "a")] == ["a", "b", "a"]


def test_without_a_limit_all_stay() -> None:
    shelf = ModelShelf(str.upper)
    shelf.fill("abc")
    assert shelf.names == ("a", "b", "c")


def test_a_model_that_fails_is_tried_again() -> None:
    failures = [OSError("no such file")]

    def load(name: str) -> str:
        if failures:
            raise failures.pop()
        return name

    shelf = ModelShelf(load, 1)
    with pytest.raises(OSError, match="no such file"):
        shelf["a"]
    assert shelf["a"] == "a"


def test_a_model_loads_once_and_others_do_not_wait_for_it() -> None:
    go_on, loading, loaded = threading.Event(), threading.Event(), []

    def load(name: str) -> str:
        loaded.append(name)
        if name == "slow":
            loading.set()
            assert go_on.wait(30)
        return name

    shelf = ModelShelf(load, 2)
    shelf.fill(["quick"])
    with ThreadPoolExecutor(2) as pool:
        slow = [pool.submit(shelf.__getitem__, "slow") for _ in range(2)]
        assert loading.wait(30)
        assert shelf["quick"] == "quick"
        go_on.set()
        assert [future.result(30) for future in slow] == ["slow", "slow"]
    assert loaded == ["quick", "slow"]


@pytest.mark.anyio
async def test_a_replica_serves_more_models_than_it_keeps(served_settings: dict[str, Any]) -> None:
    settings = Settings(**served_settings, max_loaded_models=1)
    replica = TranscriberReplica(settings, Catalogue.find(settings))
    for name in ("scripted", "polyglot", "scripted"):
        outcome: Any = await replica.transcribe(Job(name, noise(0.5), None))
        assert outcome.transcription.text == TEXT
        assert outcome.transcription.language == {"scripted": "en", "polyglot": "fr"}[name]
        assert replica._models.names == (name,)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"batch_audio_s": 240}, "needs workers_per_replica of 2 or more"),
        ({"batch_audio_s": 30, "workers_per_replica": 4}, "a window takes 30 s"),
        ({"max_loaded_models": 0}, "greater than or equal to 1"),
    ],
)
def test_settings_that_make_no_sense(wrong: Any, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Settings(**wrong)
