"""The HTTP side, called by OpenAI's client as users call it; only the model is a stand-in."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator

import numpy as np
import openai
import pytest

from steer_asr.errors import PackError
from steer_asr.steering import Steering
from steer_asr_serving.errors import ApiError

pytestmark = pytest.mark.anyio

TEXT = "the text that was heard"
KEY = "a-key-of-enough-length"


async def test_json_is_the_default(client, wav, transcriber) -> None:
    answer = await client().audio.transcriptions.create(model="base", file=("a.wav", wav))
    assert answer.text == TEXT
    assert transcriber.jobs[0].audio.shape == (8000,)
    assert transcriber.jobs[0].audio.dtype == np.float32
    assert transcriber.jobs[0].steering == Steering()


async def test_text(client, wav) -> None:
    raw = await client().audio.transcriptions.with_raw_response.create(
        model="base", file=("a.wav", wav), response_format="text"
    )
    assert raw.headers["content-type"] == "text/plain; charset=utf-8"
    assert raw.text.strip() == TEXT


@pytest.mark.parametrize(
    ("response_format", "start"), [("srt", "1\n00:00:00,000 --> 00:00:00,500\n"), ("vtt", "WEBVTT")]
)
async def test_subtitles(client, wav, response_format: str, start: str) -> None:
    answer = await client().audio.transcriptions.create(
        model="base", file=("a.wav", wav), response_format=response_format
    )
    assert answer.startswith(start)
    assert TEXT in answer


async def test_verbose_json_says_what_steering_did(client, wav) -> None:
    answer = await client().audio.transcriptions.create(
        model="base", file=("a.wav", wav), response_format="verbose_json"
    )
    assert (answer.text, answer.language, answer.duration) == (TEXT, "en", 0.5)
    assert answer.speech_detected is True
    assert answer.steer["pack"] == "quiet"
    assert answer.steer["strength"] == 1.0
    (segment,) = answer.segments
    assert (segment.start, segment.end, segment.tokens, segment.no_speech_prob) == (0.0, 0.5, [1, 2], 0.125)
    assert segment.steer["edited_share"] == 0.5
    assert answer.words is None


async def test_verbose_json_with_words(client, wav, transcriber) -> None:
    answer = await client().audio.transcriptions.create(
        model="base", file=("a.wav", wav), response_format="verbose_json", timestamp_granularities=["word", "segment"]
    )
    assert transcriber.jobs[0].word_timestamps is True
    assert [(word.start, word.end, word.word.strip()) for word in answer.words] == [(0.0, 0.5, "the")]


@pytest.mark.parametrize(
    ("steer", "meaning"),
    [
        (0.5, Steering(strength=0.5)),
        ("0.5", Steering(strength=0.5)),
        (1, Steering()),
        (True, Steering()),
        ("default", Steering()),
        ("quiet", Steering("quiet")),
        ("quiet@0.25", Steering("quiet", 0.25)),
        ('{"pack": "quiet", "strength": 0.25}', Steering("quiet", 0.25)),
        ({"pack": "quiet", "strength": 0.25}, Steering("quiet", 0.25)),
        ({"strength": 0.25, "steer_language_detection": True}, Steering("default", 0.25, True)),
        ("off", None),
        (False, None),
    ],
)
async def test_steer(client, wav, transcriber, steer: object, meaning: Steering | None) -> None:
    await client().audio.transcriptions.create(model="base", file=("a.wav", wav), extra_body={"steer": steer})
    assert transcriber.jobs[0].steering == meaning


@pytest.mark.parametrize(
    ("steer", "says"),
    [
        (1.5, "1.5 is outside 0 to 1"),
        ("nan", "outside 0 to 1"),
        ("", "is not understood"),
        ("quite", "did you mean 'quiet'"),
        ("/etc", "unknown pack '/etc'"),
        ({"pack": "../quiet"}, "unknown pack '../quiet'"),
        ({"power": 1}, "no option 'power'"),
        ({"strength": "much"}, "strength 'much' is not a number"),
        ({"strength": 1.5, "allow_overdrive": True}, "no option 'allow_overdrive'"),
        ('{"strength": 0.5', "not valid JSON"),
        ("[0.5]", "is not understood"),
        ("[" * 1000, "not valid JSON"),
    ],
)
async def test_bad_steer(client, wav, transcriber, steer: object, says: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await client().audio.transcriptions.create(model="base", file=("a.wav", wav), extra_body={"steer": steer})
    assert says in refused.value.message
    assert (refused.value.param, refused.value.code) == ("steer", "invalid_steer")
    assert transcriber.jobs == []


async def test_a_path_to_a_real_pack_is_not_opened(client, wav, tmp_path) -> None:
    (tmp_path / "steer.json").write_text("{}")
    with pytest.raises(openai.BadRequestError, match="unknown pack"):
        await client().audio.transcriptions.create(
            model="base", file=("a.wav", wav), extra_body={"steer": str(tmp_path)}
        )


async def test_the_other_fields_reach_the_model(client, wav, transcriber) -> None:
    await client().audio.transcriptions.create(
        model="whisper-1", file=("a.wav", wav), language="fr", prompt="Bonjour", temperature=0.5, stream=False
    )
    (job,) = transcriber.jobs
    assert (job.language, job.prompt, job.temperature, job.word_timestamps) == ("fr", "Bonjour", 0.5, False)


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"temperature": 2}, "temperature", "less than or equal to 1"),
        ({"response_format": "diarized_json"}, "response_format", "'json', 'text'"),
        ({"stream": True}, "stream", "not supported"),
        ({"timestamp_granularities": ["word"]}, "timestamp_granularities", "needs response_format=verbose_json"),
        ({"timestamp_granularities": ["letter"]}, "timestamp_granularities", "'word' or 'segment'"),
        ({"chunking_strategy": "auto"}, "chunking_strategy", "not supported"),
        ({"include": ["logprobs"]}, "include", "not supported"),
        ({"extra_body": {"stear": "off"}}, "stear", "did you mean 'steer'"),
        ({"extra_body": {"steer": ["off", "on"]}}, "steer", "no option ''"),
    ],
)
async def test_bad_fields(client, wav, transcriber, fields: dict, param: str, says: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await client().audio.transcriptions.create(model="base", file=("a.wav", wav), **fields)
    assert says in refused.value.message
    assert refused.value.param == param
    assert refused.value.type == "invalid_request_error"
    assert transcriber.jobs == []


async def test_unknown_model(client, wav) -> None:
    with pytest.raises(openai.NotFoundError, match="'large-v3' is not served here; served: base") as refused:
        await client().audio.transcriptions.create(model="large-v3", file=("a.wav", wav))
    assert (refused.value.param, refused.value.code) == ("model", "model_not_found")


@pytest.mark.parametrize(
    ("upload", "status", "code"),
    [
        (b"", 400, "empty_file"),
        (b"this is no audio " * 100, 415, "unsupported_audio"),
        (b"RIFF\x00\x00\x00\x00WAVE", 415, "unsupported_audio"),
    ],
)
async def test_unusable_uploads(client, transcriber, upload: bytes, status: int, code: str) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        await client().audio.transcriptions.create(model="base", file=("a.wav", upload))
    assert (refused.value.status_code, refused.value.code, refused.value.param) == (status, code, "file")
    assert transcriber.jobs == []


async def test_audio_that_is_too_long(client, wav) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        await client(max_audio_s=0.25).audio.transcriptions.create(model="base", file=("a.wav", wav))
    assert (refused.value.status_code, refused.value.code) == (413, "audio_too_long")


async def test_upload_over_the_limit_by_its_announced_size(client, transcriber) -> None:
    with pytest.raises(openai.APIStatusError, match="larger than 2048 bytes") as refused:
        await client(max_upload_bytes=2048).audio.transcriptions.create(model="base", file=("a.wav", bytes(4096)))
    assert (refused.value.status_code, refused.value.code) == (413, "upload_too_large")
    assert transcriber.jobs == []


async def test_upload_over_the_limit_is_cut_off_while_it_arrives(http) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        while True:
            sent += 1024
            yield bytes(1024)

    answer = await http(max_upload_bytes=8192).post(
        "/v1/audio/transcriptions", content=endless(), headers={"content-type": "multipart/form-data; boundary=x"}
    )
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "upload_too_large"
    assert sent <= 8192 + 1024


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({"json": {"model": "base"}}, 415),
        ({"data": {"model": "base"}}, 415),
        ({"files": {"model": (None, "base")}}, 400),
        ({"files": {"file": (None, "/etc/passwd"), "model": (None, "base")}}, 400),
        ({"files": {"audio": ("a.wav", b"x"), "model": (None, "base")}}, 400),
        ({"files": [("file", ("a.wav", b"x")), ("model", (None, "base")), ("model", (None, "base"))]}, 400),
        ({"files": {"file": ("a.wav", b"x")}}, 400),
        ({"content": b"--x", "headers": {"content-type": "multipart/form-data"}}, 400),
        ({"content": b"--y\r\nrubbish", "headers": {"content-type": "multipart/form-data; boundary=x"}}, 400),
    ],
)
async def test_malformed_requests(http, request_: dict, status: int) -> None:
    answer = await http().post("/v1/audio/transcriptions", **request_)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


async def test_models(client) -> None:
    models = [model async for model in client().models.list()]
    assert [model.id for model in models] == ["base"]
    assert (await client().models.retrieve("base")).id == "base"
    with pytest.raises(openai.NotFoundError, match="served: base"):
        await client().models.retrieve("gpt-5")


async def test_health_and_readiness(http, transcriber) -> None:
    assert (await http().get("/health")).json() == {"status": "ok"}
    assert (await http().get("/ready")).status_code == 200
    transcriber.is_ready = False
    starting = await http().get("/ready")
    assert (starting.status_code, starting.json()) == (503, {"status": "starting"})


async def test_api_key(client, http, wav) -> None:
    for wrong in ("wrong", "a-key-of-enough-lengtH", KEY + "x"):
        with pytest.raises(openai.AuthenticationError) as refused:
            await client(wrong, api_key=KEY).models.list()
        assert refused.value.code == "invalid_api_key"
    answer = await client(KEY, api_key=KEY).audio.transcriptions.create(model="base", file=("a.wav", wav))
    assert answer.text == TEXT
    unkeyed = await http(api_key=KEY).post("/v1/audio/transcriptions")
    assert (unkeyed.status_code, unkeyed.headers["www-authenticate"]) == (401, "Bearer")
    assert (await http(api_key=KEY).get("/health")).status_code == 200


async def test_busy_server_asks_for_a_retry(client, wav, transcriber) -> None:
    transcriber.failure = ApiError(429, "too many requests are waiting", code="overloaded")
    with pytest.raises(openai.RateLimitError) as refused:
        await client().audio.transcriptions.create(model="base", file=("a.wav", wav))
    assert refused.value.response.headers["retry-after"] == "1"
    assert refused.value.code == "overloaded"


async def test_pack_errors_of_the_library_are_the_requests_fault(client, wav, transcriber) -> None:
    transcriber.failure = PackError("no default pack for 'base'")
    with pytest.raises(openai.BadRequestError, match="no default pack for 'base'"):
        await client().audio.transcriptions.create(model="base", file=("a.wav", wav), extra_body={"steer": "on"})


async def test_unexpected_failures_tell_the_client_nothing(client, wav, transcriber) -> None:
    transcriber.failure = RuntimeError("secret detail")
    with pytest.raises(openai.InternalServerError) as failed:
        await client().audio.transcriptions.create(model="base", file=("a.wav", wav))
    assert failed.value.type == "server_error"
    assert "secret" not in failed.value.response.text


async def test_wrong_urls_answer_in_the_envelope(http) -> None:
    missing, wrong_method = await http().get("/v1/nothing"), await http().get("/v1/audio/transcriptions")
    assert (missing.status_code, missing.json()["error"]["message"]) == (404, "there is nothing at GET /v1/nothing")
    assert (wrong_method.status_code, wrong_method.json()["error"]["type"]) == (405, "invalid_request_error")


async def test_schema_describes_the_form(http) -> None:
    schema = (await http().get("/openapi.json")).json()
    body = schema["paths"]["/v1/audio/transcriptions"]["post"]["requestBody"]
    form = body["content"]["multipart/form-data"]["schema"]
    assert form["required"] == ["file", "model"]
    assert set(form["properties"]) == {
        "file", "model", "language", "prompt", "response_format", "temperature", "timestamp_granularities[]", "stream",
        "steer",
    }  # fmt: skip
    json.dumps(schema)


async def test_what_was_said_is_not_logged(client, wav, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    await client().audio.transcriptions.create(model="base", file=("a.wav", wav), prompt="a private prompt")
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith(("openai", "httpcore"))]
    assert not any(TEXT in line or "private" in line for line in ours)
