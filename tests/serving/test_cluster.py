"""`steer-asr-serve` as people run it: its own process, a real Ray cluster, tiny.en, OpenAI's client, SIGTERM."""

from __future__ import annotations

import functools
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from websockets.sync.client import connect

from steer_asr.models import ModelFiles

pytestmark = pytest.mark.slow

START_S, STOP_S = 180, 60
ALL_INTERFACES = "0" * 8, "0" * 32
CLIPS = Path(__file__).parents[2] / "benchmarks" / "demo" / "clips"
SPEECH, FROGS, HUM = (CLIPS / f"{name}.flac" for name in ("speech-short", "frogs", "hum"))


@dataclass
class Server:
    process: subprocess.Popen[str]
    port: int
    mark: str
    """In the environment of every process the server starts."""
    requests_log: Path

    @functools.cached_property
    def client(self) -> Any:
        return openai.OpenAI(base_url=f"http://127.0.0.1:{self.port}/v1", api_key="unused", max_retries=0)

    def processes(self) -> dict[int, str]:
        """{process id: command} of all processes that belong to the server."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (folder / "environ").read_bytes():
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            except OSError:  # ended meanwhile, or another user's
                continue
        return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_en: ModelFiles) -> Iterator[Server]:
    """One server for all tests of this file."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    mark = f"STEER_ASR_TEST_RUN={uuid.uuid4()}"
    environment = os.environ | dict([mark.split("=")]) | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "steer_asr_serving.cli", "--model", tiny_en.name, "--port", str(port)]
    command += ["--compute-type", "float32", "--cpus-per-replica", "1", "--log-file", str(log.parent / "requests")]
    with log.open("w") as output:
        process = subprocess.Popen(command, stderr=output, env=environment, text=True)
    running = Server(process, port, mark, log.parent / "requests")
    try:
        deadline = time.monotonic() + START_S
        while f"ready: http://127.0.0.1:{port}/v1" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield running
    finally:
        running.client.close()
        process.terminate()
        process.wait(STOP_S)


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


def test_models_health_and_readiness(server: Server) -> None:
    assert [model.id for model in server.client.models.list()] == ["tiny.en"]
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


def test_sigterm_ends_everything(server: Server) -> None:
    """Last, because it ends the server."""
    assert len(server.processes()) > 5
    server.process.send_signal(signal.SIGTERM)
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
