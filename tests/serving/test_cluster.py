"""`steer-asr-serve` as people run it: its own process, a real Ray cluster, tiny.en, OpenAI's client, SIGTERM."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from websockets.sync.client import connect

from steer_asr.models import ModelFiles
from tests.helpers import noise as loud_noise
from tests.serving import soak
from tests.serving.conftest import as_wav
from tests.serving.running import STOP_S, Server, started
from tests.serving.scripted_whisper import TEXT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(700)]

ALL_INTERFACES = "0" * 8, "0" * 32
CLIPS = Path(__file__).parents[2] / "benchmarks" / "demo" / "clips"
SPEECH, FROGS, HUM = (CLIPS / f"{name}.flac" for name in ("speech-short", "frogs", "hum"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_en: ModelFiles, scripted: Path) -> Iterator[Server]:
    """One server for all tests of this file, with more models than it keeps in memory, and batches."""
    environment = {
        "STEER_ASR_MODELS": f"{tiny_en.name},{scripted / 'scripted'}",
        "STEER_ASR_ALLOWED_PACKS": f"{tiny_en.name},{scripted / 'quiet'}",
        "STEER_ASR_MAX_LOADED_MODELS": "1",
        "STEER_ASR_WORKERS_PER_REPLICA": "2",
        "STEER_ASR_BATCH_AUDIO_S": "60",
        "STEER_ASR_UPLOAD_PAUSE_S": str(soak.PAUSE_S),
    }
    options = "--compute-type", "float32", "--cpus-per-replica", "1"
    with started(tmp_path_factory.mktemp("server"), *options, environment=environment) as running:
        yield running


def test_speech_is_transcribed_as_json_and_as_text(server: Server) -> None:
    create = server.client.audio.transcriptions.create
    spoken = "He might even have been made amiable himself."
    assert create(model="tiny.en", file=SPEECH).text == spoken
    assert create(model="whisper-1", file=SPEECH, response_format="text") == spoken + "\n"


def test_steering_is_chosen_by_each_request(server: Server) -> None:
    frogs = {
        steer: server.client.audio.transcriptions.create(
            model="tiny.en",
            file=FROGS,
            response_format="verbose_json",
            extra_body={} if steer is None else {"steer": steer},
        )
        for steer in ("off", "default", 0.5, None)
    }
    assert frogs["off"].text, "something; what, is left to chance once stock Whisper falls back to sampling"
    assert frogs["off"].speech_detected is True
    assert "steer" not in frogs["off"].model_extra
    edited = {steer: frogs[steer].steer["windows"][0]["edited_share"] for steer in ("default", 0.5, None)}
    assert edited["default"] == edited[None] == pytest.approx(2 * edited[0.5], rel=0.01)
    assert [frogs[steer].steer["strength"] for steer in ("default", 0.5, None)] == [1.0, 0.5, 1.0]
    assert {answer.duration for answer in frogs.values()} == {5.989}


def test_nothing_is_written_where_nobody_speaks(server: Server) -> None:
    answer = server.client.audio.transcriptions.create(model="tiny.en", file=HUM, response_format="verbose_json")
    assert (answer.text, answer.speech_detected) == ("", False)


def test_bad_requests_get_the_envelope(server: Server) -> None:
    create = server.client.audio.transcriptions.create
    with pytest.raises(openai.BadRequestError) as empty:
        create(model="tiny.en", file=("a.wav", b""))
    assert empty.value.code == "empty_file"
    with pytest.raises(openai.BadRequestError, match="language 'fr' is not one of this model's: en") as language:
        create(model="tiny.en", file=SPEECH, language="fr")  # refused by the replica, past Ray
    assert language.value.param == "language"
    with pytest.raises(openai.APIStatusError) as large:
        create(model="tiny.en", file=("a.wav", bytes(26 << 20)))
    assert (large.value.status_code, large.value.code) == (413, "upload_too_large")


def test_text_streams_through_the_cluster(server: Server) -> None:
    events = list(server.client.audio.transcriptions.create(model="tiny.en", file=SPEECH, stream=True))
    *deltas, done = events
    assert done.type == "transcript.text.done"
    assert "".join(event.delta for event in deltas) == done.text == "He might even have been made amiable himself."
    with pytest.raises(openai.BadRequestError, match="language 'fr'"):
        server.client.audio.transcriptions.create(model="tiny.en", file=SPEECH, stream=True, language="fr")


def test_live_streams_pass_the_proxy(server: Server) -> None:
    with connect(f"ws://127.0.0.1:{server.port}/v1/audio/stream?steer=default") as stream:
        stream.send(bytes(32_000))
        stream.send('{"type": "end"}')
        assert json.loads(stream.recv(timeout=60)) == {
            "type": "transcript.done",
            "text": "",
            "duration": 1.0,
            "speech_detected": False,
        }


def test_request_ids_logs_and_metrics(server: Server) -> None:
    raw = server.client.audio.transcriptions.with_raw_response.create(
        model="tiny.en", file=SPEECH, response_format="text", extra_headers={"x-request-id": "of-this-test"}
    )
    assert raw.headers.get_list("x-request-id") == ["of-this-test"]
    assert (raw.headers["x-steer-pack"], raw.headers["x-steer-strength"]) == ("tiny.en", "1")
    deadline = time.monotonic() + STOP_S
    while '"of-this-test"' not in server.requests_log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    [line] = [line for line in map(json.loads, server.requests_log.read_text().splitlines()) if "pack" in line][-1:]
    assert (line["request_id"], line["status"], line["audio_s"], line["pack"]) == ("of-this-test", 200, 3.29, "tiny.en")
    assert "amiable" not in server.requests_log.read_text()
    metrics = httpx2.get(f"http://127.0.0.1:{server.port}/metrics").text
    assert 'steer_asr_audio_seconds_total{model="tiny.en",task="transcribe"}' in metrics


def test_more_models_are_served_than_fit_in_memory(server: Server) -> None:
    def text(model: str) -> str:
        return server.client.audio.transcriptions.create(model=model, file=SPEECH, extra_body={"steer": "off"}).text

    assert [text(model) for model in ("scripted", "tiny.en", "scripted")] == [TEXT, soak.SPOKEN, TEXT]


def test_a_client_that_leaves_frees_the_replica(server: Server) -> None:
    """Without streaming, through Ray's proxy: the log says 499 long before five minutes of noise are transcribed."""
    noise = as_wav(loud_noise(300))
    with pytest.raises(httpx2.TimeoutException):
        httpx2.post(
            f"{server.url}/v1/audio/transcriptions",
            files={"file": ("a.wav", noise)},
            data={"model": "tiny.en", "steer": "off"},
            headers={"x-request-id": "left"},
            timeout=httpx2.Timeout(30, read=4),
        )
    deadline = time.monotonic() + STOP_S
    while not (line := [line for line in server.requests_log.read_text().splitlines() if '"left"' in line]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert json.loads(line[0])["status"] == 499
    while "steer_asr_jobs_in_progress 0.0" not in httpx2.get(f"{server.url}/metrics").text:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_models_health_and_readiness(server: Server) -> None:
    assert [model.id for model in server.client.models.list()] == ["tiny.en", "scripted"]
    for path in ("/health", "/ready"):
        answer = httpx2.get(f"http://127.0.0.1:{server.port}{path}")
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_only_loopback_is_listened_on(server: Server) -> None:
    """Except by the replicas, whose ports Ray binds everywhere; it guards them with the run's token."""
    processes = server.processes()
    exposed = [
        (processes[pid].split(":")[0:3], port)
        for pid, address, port in listening(processes)
        if address in ALL_INTERFACES
    ]
    assert {tuple(command) for command, _ in exposed} <= {("ray", "", "ServeReplica")}
    import grpc

    for _, port in exposed:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary("/ray.serve.ASGIService/HandleRequest")(b"", timeout=10)
        assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_a_minute_of_load_with_parts_of_the_server_killed(server: Server) -> None:
    """`make soak`, in short: every request gets its right answer, if need be after a clean 503."""
    report = soak.Soak(server, minutes=1.0, kill_every_s=30).run()
    assert report.failures == [], soak.table(report, "in a test")
    assert report.lost == 0
    assert report.killed["controller"] == 1
    assert report.killed["replica"] >= 1
    assert report.slow["408"] >= 1
    assert set(report.right) >= {"speech", "nobody speaks"}


def test_sigterm_ends_everything(server: Server) -> None:
    """Last, because it ends the server. What it has begun it finishes."""
    assert len(server.processes()) > 5

    def create() -> Any:
        return server.client.audio.transcriptions.create(model="tiny.en", file=SPEECH)

    with ThreadPoolExecutor(3) as clients:
        begun = [clients.submit(create) for _ in range(3)]
        while "steer_asr_jobs_in_progress 3.0" not in httpx2.get(f"{server.url}/metrics").text:
            assert not any(future.done() for future in begun), "one worker does them one after the other"
        server.process.send_signal(signal.SIGTERM)
        assert [future.result().text for future in begun] == [soak.SPOKEN] * 3
    assert server.process.wait(STOP_S) == 0
    deadline = time.monotonic() + STOP_S
    while (left := server.processes()) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == {}


def listening(processes: dict[int, str]) -> Iterator[tuple[int, str, int]]:
    """(process id, address in hex, port) of each listening TCP socket, from Linux's /proc."""
    owners = {}
    for pid in processes:
        for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                owners[os.readlink(descriptor)] = pid
            except OSError:  # closed meanwhile
                continue
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and (pid := owners.get(f"socket:[{fields[9]}]")):
                address, port = fields[1].split(":")
                yield pid, address, int(port, 16)
