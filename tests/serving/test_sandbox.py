"""Decoding in processes of its own: the same samples, and nothing that such a process does reaches the server."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import openai
import pytest

from steer_asr import audio
from steer_asr.audio import AudioLimits, decode_audio
from steer_asr.errors import AudioError
from steer_asr_serving import cli, sandbox
from steer_asr_serving.errors import ApiError
from steer_asr_serving.sandbox import DecoderPool, decoder_for
from steer_asr_serving.sandbox_worker import Plan
from steer_asr_serving.settings import Settings
from tests.helpers import noise
from tests.serving.conftest import as_wav
from tests.serving.damage import CONTAINERS, clip
from tests.serving.rogue_decoder import REPLIES
from tests.serving.scripted_whisper import TEXT

pytestmark = pytest.mark.anyio
ROGUE = "tests.serving.rogue_decoder"
PLAN = Plan(AudioLimits(max_seconds=60), cpu_s=30, memory_bytes=1 << 28, uploads=1000)


@pytest.fixture(scope="module")
def rogue() -> Iterator[DecoderPool]:
    """One decoder that obeys orders, for tests that do not mind who was there before."""
    decoder = DecoderPool(1, PLAN, ROGUE)
    yield decoder
    decoder.close()


@pytest.fixture
def pool() -> Iterator[Callable[..., DecoderPool]]:
    """`pool(**plan)`: decoders of one's own, by default one that obeys orders."""
    made: list[DecoderPool] = []

    def create(processes: int = 1, worker: str = ROGUE, **plan: Any) -> DecoderPool:
        made.append(DecoderPool(processes, replace(PLAN, **plan), worker))
        return made[-1]

    yield create
    for each in made:
        each.close()


async def test_samples_are_those_of_decoding_here(pool) -> None:
    decoder = pool(worker=sandbox.WORKER)
    for container in CONTAINERS:
        data = clip(container)
        decoded = await decoder.decode(io.BytesIO(data))
        assert decoded.dtype == np.float32
        np.testing.assert_array_equal(decoded, decode_audio(data), err_msg=container)
    assert len(await decoder.decode(io.BytesIO(as_wav(noise(0))))) == 0


@pytest.mark.parametrize(
    "data", [b"", b"this is no audio " * 100, clip("ogg")[:-200], as_wav(noise(60))[:4000], as_wav(noise(70))]
)
async def test_errors_are_those_of_decoding_here(rogue, data: bytes) -> None:
    with pytest.raises(AudioError) as here:
        decode_audio(data, limits=AudioLimits(max_seconds=60))
    before = rogue.process_ids
    with pytest.raises(AudioError) as there:
        await rogue.decode(io.BytesIO(data))
    assert (type(there.value), str(there.value)) == (type(here.value), str(here.value))
    assert len(await rogue.decode(io.BytesIO(as_wav(noise(0.5))))) == 8000
    assert before in ([], rogue.process_ids), "the same process"


async def test_warnings_reach_the_log(rogue, caplog) -> None:
    data = bytearray(clip("mp3", seconds=4))
    data[9000:9100] = bytes(100)
    here = decode_audio(bytes(data))
    (expected,) = [record.getMessage() for record in caplog.records]
    caplog.clear()
    np.testing.assert_array_equal(await rogue.decode(io.BytesIO(data)), here)
    assert [(record.name, record.getMessage()) for record in caplog.records] == [(audio.logger.name, expected)]


async def refused(decoder: DecoderPool, order: str) -> ApiError:
    with pytest.raises(ApiError) as error:
        await decoder.decode(io.BytesIO(f"order:{order}".encode()))
    return error.value


@pytest.mark.parametrize("order", ["crash", "exit", "stumble", *REPLIES])
async def test_a_decoder_that_crashes_or_lies_costs_one_request(rogue, order: str) -> None:
    rogue.warm()
    before = rogue.process_ids
    error = await refused(rogue, order)
    assert (error.status, error.code) == (422, "decoder_failed")
    assert len(await rogue.decode(io.BytesIO(as_wav(noise(0.5))))) == 8000
    assert len(rogue.process_ids) == 1
    assert rogue.process_ids != before


async def test_the_log_says_why_a_decoder_failed(rogue, caplog) -> None:
    await refused(rogue, "stumble")
    await refused(rogue, "crash")
    stumbled, crashed = (record.getMessage() for record in caplog.records)
    assert stumbled.endswith("is replaced: ZeroDivisionError: in the parser")
    assert crashed.endswith(f"is replaced: it ended with status {-signal.SIGSEGV}")


@pytest.mark.parametrize(
    ("order", "plan", "says"),
    [
        ("spin", {"cpu_s": 0.5}, "more than 0.5 s of CPU time"),
        ("sleep", {"cpu_s": 0.1}, "longer than 0.3 s"),
        ("eat", {}, "more than 268435456 bytes of memory"),
    ],
)
async def test_limits_of_a_process(pool, monkeypatch, order: str, plan: dict[str, Any], says: str) -> None:
    monkeypatch.setattr(sandbox, "PATIENCE", 3.0 if order == "sleep" else 1000.0)
    decoder = pool(**plan)
    error = await refused(decoder, order)
    assert (error.status, error.code) == (413, "audio_too_costly")
    assert says in error.message
    assert len(await decoder.decode(io.BytesIO(as_wav(noise(0.5))))) == 8000


async def test_memory_that_ffmpeg_or_numpy_asks_for_counts(pool) -> None:
    decoder = pool(worker=sandbox.WORKER, memory_bytes=4 << 20)
    with pytest.raises(ApiError, match="more than 4194304 bytes of memory"):
        await decoder.decode(io.BytesIO(as_wav(noise(59))))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have fewer limits")
@pytest.mark.parametrize("order", ["open", "connect", "fork", "raise limits"])
async def test_a_decoder_can_do_little_else(rogue, order: str) -> None:
    with pytest.raises(AudioError, match="refused: "):
        await rogue.decode(io.BytesIO(f"order:{order}".encode()))


async def test_a_decoder_sees_no_keys_and_is_not_root(pool, monkeypatch) -> None:
    monkeypatch.setenv("STEER_ASR_API_KEY", "secret")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    with pytest.raises(AudioError) as answer:
        await pool().decode(io.BytesIO(b"order:who"))
    user, _, variables = str(answer.value).partition(" ")
    assert user != "0"
    assert "STEER_ASR_API_KEY" not in variables
    assert "RAY_AUTH_TOKEN" not in variables


async def test_decoders_are_replaced_after_their_share(pool) -> None:
    decoder = pool(uploads=2)
    decoder.warm()
    used = []
    for _ in range(4):
        used += decoder.process_ids
        with pytest.raises(AudioError):
            await decoder.decode(io.BytesIO(b"order:who"))
    assert [used[0] == used[1], used[1] == used[2], used[2] == used[3]] == [True, False, True]


async def test_decoders_that_the_system_has_ended_are_replaced(pool) -> None:
    decoder = pool()
    decoder.warm()
    (process,) = decoder.process_ids
    os.kill(process, signal.SIGKILL)
    os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
    assert len(await decoder.decode(io.BytesIO(as_wav(noise(0.5))))) == 8000


async def test_no_more_processes_than_asked_for_and_the_loop_stays_free(pool) -> None:
    decoder = pool(processes=2)
    running = [asyncio.create_task(decoder.decode(io.BytesIO(b"order:sleep"))) for _ in range(4)]
    while len(decoder.process_ids) < 2:
        await asyncio.sleep(0.01)  # only a free loop gets here
    assert len(decoder.process_ids) == 2
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    assert len(await decoder.decode(io.BytesIO(as_wav(noise(0.5))))) == 8000


async def test_decoding_stops_when_the_caller_goes_away(pool) -> None:
    decoder = pool()
    decoder.warm()
    (process,) = decoder.process_ids
    call = asyncio.create_task(decoder.decode(io.BytesIO(b"order:spin")))
    while cpu_ticks(process) < 50:
        await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert len(await decoder.decode(io.BytesIO(as_wav(noise(0.5))))) == 8000
    assert process not in decoder.process_ids


async def test_decoders_end_with_the_server() -> None:
    """Even with one that is killed."""
    code = (
        "import sys, time; from steer_asr_serving.sandbox import decoder_for; "
        "from steer_asr_serving.settings import Settings; decoder = decoder_for(Settings()); decoder.warm(); "
        "print(*decoder.process_ids, flush=True); time.sleep(600)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdout is not None
        processes = [int(word) for word in server.stdout.readline().split()]
        server.kill()
    assert len(processes) == 2
    deadline = time.monotonic() + 60
    while any(map(is_running, processes)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


async def test_closing_ends_every_process(pool) -> None:
    decoder = pool(processes=2)
    decoder.warm()
    assert len(processes := decoder.process_ids) == 2
    decoder.close()
    deadline = time.monotonic() + 60
    while any(map(is_running, processes)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


async def test_a_decoder_that_does_not_start_is_the_servers_fault(pool, capfd) -> None:
    with pytest.raises(RuntimeError, match="standard error says why"):
        await pool(worker="tests.serving.no_such_module").decode(io.BytesIO(as_wav(noise(0.5))))
    assert "no_such_module" in capfd.readouterr().err


async def test_the_app_decodes_in_processes(client, wav, monkeypatch) -> None:
    monkeypatch.setattr(sandbox, "WORKER", ROGUE)
    create = client(decode_processes=1).audio.transcriptions.create
    for _ in range(2):
        assert (await create(model="scripted", file=("a.wav", wav))).text == TEXT
        with pytest.raises(openai.UnprocessableEntityError) as failed:
            await create(model="scripted", file=("a.wav", b"order:crash"))
        assert (failed.value.code, failed.value.param) == ("decoder_failed", "file")


def test_settings_choose_the_decoder() -> None:
    assert isinstance(decoder_for(Settings(decode_processes=0)), sandbox.InProcessDecoder)
    pooled = decoder_for(Settings(decode_processes=3, max_audio_s=100, max_upload_bytes=1 << 20))
    assert isinstance(pooled, DecoderPool)
    assert pooled._plan.memory_bytes == (1 << 20) + 2 * 100 * 64_000 + sandbox.WORKING_BYTES
    assert Plan.from_json(pooled._plan.as_json()) == pooled._plan


def test_check_warns_of_decoding_in_the_server() -> None:
    assert cli.doubts(Settings()) == []
    assert "decode_processes is 0" in cli.doubts(Settings(decode_processes=0))[0]


def cpu_ticks(process: int) -> int:
    """CPU time used, where the system shows it."""
    try:
        with open(f"/proc/{process}/stat") as file:
            return sum(map(int, file.read().rpartition(")")[2].split()[11:13]))
    except FileNotFoundError:
        pytest.skip("needs /proc")


def is_running(process: int) -> bool:
    """Not ended, and not merely waiting for its parent to take note."""
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
