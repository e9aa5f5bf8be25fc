"""Requests that share batches: the engine is the real one, and so are weights and packs where it says so."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ctranslate2
import numpy as np
import pytest

from steer_asr.audio import decode_audio
from steer_asr.steering import Steering
from steer_asr_serving.batching import Batcher
from steer_asr_serving.deployment import Job, TranscriberReplica
from steer_asr_serving.served import Catalogue
from steer_asr_serving.settings import Settings
from tests.helpers import noise
from tests.serving.conftest import CLIPS, SPOKEN
from tests.serving.scripted_whisper import TEXT
from tests.serving.test_deployment import HeldEncoder

START = 7
MEL, OUTPUT = (1, 80, 3000), (1, 1500, 8)


class Engine:
    """Answers each window with a number of its own, and remembers the batches."""

    device = "cpu"

    def __init__(self) -> None:
        self.encoded: list[int] = []
        self.decoded: list[int] = []
        self.entered, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()
        self.most = 100
        """A larger batch fails."""

    def encode(self, features: ctranslate2.StorageView, to_cpu: bool) -> ctranslate2.StorageView:
        assert to_cpu
        self.entered.set()
        assert self.go_on.wait(30)
        x = np.asarray(features)
        self.encoded.append(len(x))
        if len(x) > self.most:
            raise RuntimeError("out of memory")
        return view(np.broadcast_to(x[:, :1, :1], (len(x), *OUTPUT[1:])))

    def generate(self, features: ctranslate2.StorageView, prompts: Sequence[Any], **_options: Any) -> list[Any]:
        self.decoded.append(len(prompts))
        rows = np.asarray(features)
        return [(float(row[0, 0]), tuple(prompt)) for row, prompt in zip(rows, prompts, strict=True)]


def view(array: np.ndarray) -> ctranslate2.StorageView:
    return ctranslate2.StorageView.from_array(np.array(array, np.float32, order="C"))


def batcher(engine: Any, most: int = 8, wait_s: float = 20.0) -> Batcher:
    return Batcher(engine, max_windows=most, wait_s=wait_s, start_token=START)


def windows(shared: Batcher, n: int, prompts: Any = None, **options: Any) -> tuple[list[Any], list[list[int]]]:
    """(answers, batch sizes) of n requests that are all under way before the first of them asks."""
    ready = threading.Barrier(n)

    def request(number: int) -> tuple[Any, list[int]]:
        with shared.joined() as model:
            ready.wait(30)
            output = model.encode(view(np.full(MEL, number)))
            np.asarray(output)[:] += 0.5  # as steering does, in place
            prompt = [START, 1] if prompts is None else prompts[number]
            [answer] = model.generate(output, [prompt], **options)
            return answer, model.sizes

    with ThreadPoolExecutor(n) as pool:
        answers, sizes = zip(*pool.map(request, range(n)), strict=True)
    return list(answers), list(sizes)


def test_windows_of_requests_under_way_are_one_batch_and_each_gets_its_own_answer() -> None:
    engine = Engine()
    answers, sizes = windows(batcher(engine), 4, beam_size=5, suppress_tokens=[-1])
    assert answers == [(number + 0.5, (START, 1)) for number in range(4)]
    assert (engine.encoded, engine.decoded) == ([4], [4])
    assert sizes == [[4]] * 4


def test_a_batch_has_its_limit() -> None:
    engine = Engine()
    answers, sizes = windows(batcher(engine, most=3), 7)
    assert [answer[0] for answer in answers] == [number + 0.5 for number in range(7)]
    assert max(engine.encoded) == 3
    assert sum(engine.encoded) == sum(engine.decoded) == 7
    assert sorted(size for [size] in sizes) == sorted(size for size in engine.decoded for _ in range(size))
    assert max(engine.decoded) <= 3


@pytest.mark.parametrize(
    "prompts",
    [
        pytest.param([[START, 1], [START, 1, 2]], id="lengths"),
        pytest.param([[3, START, 1], [START, 1, 2]], id="place of the start token"),
    ],
)
def test_prompts_of_another_structure_are_not_decoded_together(prompts: list[list[int]]) -> None:
    engine = Engine()
    answers, _ = windows(batcher(engine, wait_s=0.05), 2, prompts=prompts)
    assert answers == [(0.5, tuple(prompts[0])), (1.5, tuple(prompts[1]))]
    assert engine.encoded == [2]
    assert engine.decoded == [1, 1]


def test_sampling_is_never_batched() -> None:
    engine = Engine()
    _, sizes = windows(batcher(engine, wait_s=0.05), 3, sampling_topk=0, sampling_temperature=0.4)
    assert engine.decoded == [1, 1, 1]
    assert sizes == [[1]] * 3


def test_a_request_alone_does_not_wait() -> None:
    engine = Engine()
    answers, sizes = windows(batcher(engine, wait_s=1000), 1)
    assert (answers, sizes) == ([(0.5, (START, 1))], [[1]])


def test_nobody_waits_for_a_request_that_has_ended() -> None:
    engine = Engine()
    shared = batcher(engine, wait_s=1000)
    with ThreadPoolExecutor(1) as pool, shared.joined() as model:
        with shared.joined():
            asked = pool.submit(model.encode, view(np.zeros(MEL)))
        assert asked.result(30) is not None


def test_what_arrives_while_a_batch_runs_is_the_next() -> None:
    engine = Engine()
    shared = batcher(engine, wait_s=0.0)
    engine.go_on.clear()
    with ThreadPoolExecutor(4) as pool, shared.joined() as model:
        first = pool.submit(model.encode, view(np.zeros(MEL)))
        assert engine.entered.wait(30)
        others = [pool.submit(model.encode, view(np.full(MEL, number))) for number in (1, 2, 3)]
        while len(shared._waiting) < 3:
            threading.Event().wait(0.001)
        engine.go_on.set()
        assert [float(np.asarray(f.result(30))[0, 0, 0]) for f in (first, *others)] == [0, 1, 2, 3]
    assert engine.encoded == [1, 3]


def test_a_batch_that_fails_is_tried_one_by_one() -> None:
    engine = Engine()
    engine.most = 2
    answers, sizes = windows(batcher(engine), 3)
    assert [answer[0] for answer in answers] == [0.5, 1.5, 2.5]
    assert engine.encoded == [3, 1, 1, 1]
    assert sizes == [[3]] * 3
    engine.most = 0
    with pytest.raises(RuntimeError, match="out of memory"):
        windows(batcher(engine), 2)


@pytest.fixture
def batching(served_settings: dict[str, Any]) -> TranscriberReplica:
    settings = Settings(
        **served_settings | {"workers_per_replica": 4, "batch_audio_s": 120, "batch_wait_s": 1.0, "ui": False}
    )
    return TranscriberReplica(settings, Catalogue.find(settings))


@pytest.mark.anyio
async def test_each_window_of_a_batch_is_steered_by_its_own_request(batching, scripted) -> None:
    quiet = str(scripted / "quiet")
    steerings = [None, Steering(quiet), Steering(quiet, 0.05), Steering(quiet)]
    outcomes = await asyncio.gather(*(batching.transcribe(Job("scripted", noise(0.5), s)) for s in steerings))
    assert [outcome.transcription.text for outcome in outcomes] == [TEXT, "", TEXT, ""]
    assert {size for outcome in outcomes for size in outcome.batches} & {2, 3, 4}, "some were decoded together"
    reports = [outcome.transcription.steer for outcome in outcomes]
    assert [None if report is None else report.strength for report in reports] == [None, 1.0, 0.05, 1.0]


@pytest.mark.anyio
async def test_decoding_in_batches_stops_when_the_caller_goes_away(batching, monkeypatch) -> None:
    held = HeldEncoder(batching._models["scripted"], monkeypatch)
    gone = asyncio.create_task(batching.transcribe(Job("scripted", noise(200), None)))
    await asyncio.to_thread(held.started.wait, 30)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    held.go_on.set()
    outcome = await batching.transcribe(Job("scripted", noise(0.5), None))
    assert outcome.transcription.text == TEXT
    await asyncio.to_thread(batching._threads.shutdown)
    assert len(held.threads) == 1 + 1, "one window of the first"


@pytest.mark.slow
@pytest.mark.anyio
async def test_real_speech_and_sounds_read_the_same_in_batches(tiny_en) -> None:
    """Text, times and what steering did, of two strengths and stock in one batch."""
    common: dict[str, Any] = {"models": (tiny_en.name,), "compute_type": "float32", "cpus_per_replica": 1, "ui": False}
    spoken, frogs = (decode_audio(CLIPS / f"{name}.flac") for name in ("speech-short", "frogs"))
    jobs = [
        Job("tiny.en", spoken, None),
        Job("tiny.en", spoken, Steering("tiny.en", 0.5)),
        Job("tiny.en", spoken, Steering("tiny.en")),
        Job("tiny.en", frogs, Steering("tiny.en")),
    ]

    async def outcomes(**extra: Any) -> list[Any]:
        settings = Settings(**common, **extra)
        replica = TranscriberReplica(settings, Catalogue.find(settings))
        return list(await asyncio.gather(*map(replica.transcribe, jobs)))

    alone = await outcomes()
    together = await outcomes(workers_per_replica=4, batch_audio_s=120, batch_wait_s=1.0)
    assert max(size for outcome in together for size in outcome.batches) >= 2, "how many depends on who comes in time"
    assert [outcome.transcription.text for outcome in alone[:3]] == [SPOKEN] * 3
    assert not alone[3].transcription.speech_detected
    for one, other in zip(alone, together, strict=True):
        assert not any(segment.temperature for segment in one.transcription.segments), "nothing was sampled"
        assert one.transcription.text == other.transcription.text
        times = [[(s.start, s.end) for s in outcome.transcription.segments] for outcome in (one, other)]
        assert times[0] == times[1]
        shares = [
            [w.edited_share for w in o.transcription.steer.windows] for o in (one, other) if o.transcription.steer
        ]
        assert not shares or shares[0] == pytest.approx(shares[1], abs=1e-3)
