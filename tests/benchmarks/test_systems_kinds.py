"""The kinds of systems on a random Whisper of two narrow layers, and one on a real HTTP server."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI, Form, Request, UploadFile
from fastapi.responses import JSONResponse

from steer_asr.errors import PackError, SteerOptionError
from steer_asr.gate import Gate
from steer_asr.pack import save_pack
from steer_asr_benchmarks.systems import ModelOptions, Models, make_systems
from steer_asr_benchmarks.systems.base import Decoding, System
from steer_asr_benchmarks.systems.gate import deciding
from steer_asr_benchmarks.systems.server import API_KEY, ServerError
from tests.benchmarks.builders import windows_of
from tests.steer_asr.packs import open_gate, random_pack
from tests.tiny_whisper import WIDTH

NOISE = np.random.default_rng(0).standard_normal(16_000 * 31).astype(np.float32) * 0.1
SHORT = NOISE[:16_000]
PLAIN = Decoding("no_timestamps", "en")


@pytest.fixture(scope="module")
def models(tiny_whisper_dir: Path) -> Models:
    return Models(ModelOptions(str(tiny_whisper_dir), "cpu", "float32", 1))


def system(models: Models, name: str, steer: str = "default") -> System:
    return make_systems([name], models, steer)[0]


def text(models: Models, name: str, audio: np.ndarray = SHORT, mode: Any = "no_timestamps") -> str:
    return system(models, name).transcribe(audio, Decoding(mode, "en")).text


def test_the_rule_drops_what_both_thresholds_call_silence(models: Models) -> None:
    """A random model finds every text improbable; whether it hears speech is a matter of the threshold."""
    [window] = windows_of(system(models, "stock").transcribe(SHORT, PLAIN))
    assert window.avg_logprob is not None
    between = window.no_speech_prob / 2, (1 + window.no_speech_prob) / 2
    assert text(models, f"rule:{between[0]}/-1") == ""
    assert text(models, f"rule:{between[1]}/-1") == text(models, "stock") != ""
    assert text(models, f"rule:{between[0]}/{window.avg_logprob - 1}") == text(models, "stock")
    assert system(models, "rule:0.3/-0.5").options["no_speech_threshold"] == 0.3
    for name in ("rule:2", "rule:0.5/x", "rule:0.5/1"):
        with pytest.raises(SteerOptionError, match="is not a number"):
            system(models, name)


def test_hallucination_silence_threshold_is_on(models: Models) -> None:
    found = system(models, "hst:1.5")
    assert found.options["hallucination_silence_threshold"] == 1.5
    assert found.options["word_timestamps"] is True
    found.transcribe(SHORT, PLAIN)


def test_webrtcs_detector_decides_what_is_heard(models: Models) -> None:
    assert text(models, "webrtcvad:3", np.zeros(16_000, np.float32)) == ""
    loud = np.sign(np.sin(np.arange(16_000 * 2) / 12)).astype(np.float32) * 0.3
    assert text(models, "webrtcvad:0", loud)
    assert system(models, "webrtcvad").options["webrtc"] == 2
    with pytest.raises(SteerOptionError, match="is not 0, 1, 2 or 3"):
        system(models, "webrtcvad:4")


def test_a_gate_alone_is_silence_or_stock(models: Models, tmp_path: Path) -> None:
    hears_nobody = random_pack(WIDTH, models.files.sha256, gate=open_gate(16))
    hears_speech = random_pack(
        WIDTH, models.files.sha256, gate=Gate(np.zeros(16, np.float32), 0.0, 1, 0, (1.0, 2.0), (1.0, 2.0))
    )
    for name, pack in (("nobody", hears_nobody), ("speech", hears_speech)):
        save_pack(pack, tmp_path / name, card="")
    assert text(models, f"gate:0.5@{tmp_path / 'nobody'}", NOISE) == ""
    assert text(models, f"gate:0.5@{tmp_path / 'speech'}", NOISE) == text(models, "stock", NOISE)
    # 0.119 = sigmoid(-2): what the second gate says of everything
    assert text(models, f"gate:0.11@{tmp_path / 'speech'}") == ""
    assert text(models, f"gate:0.13@{tmp_path / 'speech'}") == text(models, "stock")
    prediction = system(models, f"gate:0.13@{tmp_path / 'speech'}").transcribe(SHORT, PLAIN)
    assert prediction.nobody_speaks == pytest.approx(0.119, abs=1e-3)
    ungated = save_pack(random_pack(WIDTH, models.files.sha256), tmp_path / "none", card="")
    with pytest.raises(SteerOptionError, match="has no gate"):
        system(models, f"gate:0.5@{ungated}")
    with pytest.raises(PackError, match="unknown pack"):
        system(models, "gate:0.5@nowhere")


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_a_deciding_gate_decides_at_its_threshold(threshold: float) -> None:
    rng = np.random.default_rng(1)
    gate = Gate(rng.standard_normal(4).astype(np.float32), 0.3, 3, 10, (9.0, 9.0), (1.5, -0.4))
    for _ in range(50):
        reading = gate(rng.standard_normal((40, 4)).astype(np.float32))
        decided = deciding(gate, threshold)(rng.standard_normal((40, 4)).astype(np.float32))
        assert decided.weights.min() == decided.weights.max() or threshold in (0.0, 1.0)
        assert (decided.weights.min() >= 0.5) == (decided.nobody_speaks >= threshold)
        assert 0 < reading.nobody_speaks < 1


def test_a_batch_says_what_its_windows_say(models: Models, tmp_path: Path) -> None:
    pack = save_pack(random_pack(WIDTH, models.files.sha256, gate=open_gate(16)), tmp_path / "p", card="")
    stock = system(models, "stock+batched").transcribe(NOISE, PLAIN)
    assert [len(w.tokens) > 0 for w in windows_of(stock)] == [True, True]
    assert windows_of(stock)[0].tokens == windows_of(system(models, "stock").transcribe(NOISE, PLAIN))[0].tokens
    steered = system(models, f"steered:{pack}+batched").transcribe(NOISE, PLAIN)
    assert [w.edited_share for w in windows_of(steered)] == pytest.approx([1.0, 1.0], abs=1e-3)
    assert steered.text != stock.text
    assert system(models, f"gate:0.5@{pack}+batched").transcribe(NOISE, PLAIN).text == ""
    assert system(models, "stock+vad+batched").transcribe(np.zeros(16_000, np.float32), PLAIN).text == ""
    for name in ("rule+batched", "stock+batched+fallback", "webrtcvad+batched"):
        with pytest.raises(SteerOptionError, match="batched pipeline knows no"):
            system(models, name)


def test_modifiers_reach_the_engine_and_the_report(models: Models) -> None:
    found = system(models, "stock+defaults")
    assert found.options["beam_size"] == 5
    assert found.options["temperature"] == (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    assert found.options["condition_on_previous_text"] is True
    assert found.transcribe(SHORT, PLAIN).windows
    assert system(models, "stock+auto").transcribe(SHORT, PLAIN).language == "en", "an English-only model"
    assert system(models, "quiet=stock+empty").name == "quiet"


def test_a_system_in_int8_has_a_model_of_its_own(models: Models, tmp_path: Path) -> None:
    pack = save_pack(random_pack(WIDTH, models.files.sha256, gate=open_gate(16)), tmp_path / "p", card="")
    for name in ("stock", f"steered:{pack}", f"gate:0.5@{pack}"):
        whole, eighth = (system(models, name + modifier) for modifier in ("", "+int8"))
        assert (whole.options.get("compute_type"), eighth.options["compute_type"]) == (None, "int8")
    plain, coarse = (windows_of(system(models, name).transcribe(NOISE, PLAIN)) for name in ("stock", "stock+int8"))
    assert plain[0].no_speech_prob != coarse[0].no_speech_prob, "int8 rounds"
    assert plain[0].no_speech_prob == pytest.approx(coarse[0].no_speech_prob, rel=0.5)
    int8 = models.at("int8")
    assert (int8.stock.model.compute_type, models.stock.model.compute_type) == ("int8_float32", "float32")
    assert int8 is models.at("int8"), "loaded once"
    assert int8.at("int8") is int8


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Answers as OpenAI does; what it was sent comes back as the text."""
    app = FastAPI()

    @app.post("/v1/audio/transcriptions")
    async def transcribe(request: Request, file: UploadFile, model: Annotated[str, Form()]) -> Any:
        form = await request.form()
        if model == "missing":
            return JSONResponse({"error": {"message": "no such model"}}, 404)
        if model == "silent":
            return {"text": "", "language": "english", "segments": []}
        if model == "odd":
            return ["?"]
        size = len(await file.read())
        said = f"{model} {size} {form.get('language')} {form.get('steer')} {request.headers.get('authorization')}"
        if model == "short":
            return {"text": said}
        segment = {"start": 0.0, "end": 1.0, "text": said, "no_speech_prob": 0.25, "avg_logprob": None}
        return {"text": said, "language": "english", "segments": [segment]}

    running = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}/v1"
    running.should_exit = True
    thread.join()


def test_a_server_is_a_system(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    models = Models(ModelOptions("there-is-no-such-model"))
    monkeypatch.setenv(API_KEY, "secret")
    found = system(models, f"theirs={server}/?steer=0.5#m")
    prediction = found.transcribe(SHORT, PLAIN)
    assert found.name == "theirs"
    assert prediction.text == f"m {44 + 2 * len(SHORT)} en 0.5 Bearer secret"
    [segment] = prediction.segments
    assert (segment.no_speech_prob, segment.avg_logprob) == (0.25, 0.0)
    assert found.transcribe(SHORT, Decoding("timestamps", None)).text.split()[2] == "None"
    assert "secret" not in str(found.options)
    assert models.describe() is None, "no model was loaded here"
    assert system(models, f"{server}#short").transcribe(SHORT, PLAIN).segments[0].end == 1.0
    assert system(models, f"{server}#silent").transcribe(SHORT, PLAIN).text == ""


@pytest.mark.parametrize(
    ("address", "message"),
    [("#missing", "404 no such model"), ("#odd", "not OpenAI's verbose_json"), ("/nowhere#m", "404")],
)
def test_a_server_that_refuses_is_told(server: str, address: str, message: str) -> None:
    with pytest.raises(ServerError, match=message):
        system(Models(ModelOptions("none")), server + address).transcribe(SHORT, PLAIN)


def test_a_server_that_is_not_there_is_told() -> None:
    with pytest.raises(ServerError, match="is the server up"):
        system(Models(ModelOptions("none")), "http://127.0.0.1:9/v1#m").transcribe(SHORT, PLAIN)
    with pytest.raises(SteerOptionError, match="#MODEL"):
        system(Models(ModelOptions("none")), "http://127.0.0.1:9/v1")
