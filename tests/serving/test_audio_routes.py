"""The audio requests as users send them, with OpenAI's clients, to a real (tiny) model in the same process."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from faster_whisper.vad import VadOptions

from steer_asr.errors import PackError
from steer_asr.steering import Steering
from steer_asr_serving.errors import ApiError
from steer_asr_serving.tap import ModelTap
from tests.helpers import silence
from tests.serving.conftest import as_wav
from tests.serving.scripted_whisper import PARTS, SECONDS, TEXT

pytestmark = pytest.mark.anyio


async def test_json_is_the_default(client, wav, transcriber) -> None:
    answer = await client().audio.transcriptions.create(model="scripted", file=("a.wav", wav))
    assert answer.text == TEXT
    assert (answer.usage.type, answer.usage.seconds) == ("duration", 0.5)
    assert answer.logprobs is None
    assert transcriber.jobs[0].audio.shape == (8000,)
    assert transcriber.jobs[0].audio.dtype == np.float32


async def test_text(client, wav) -> None:
    raw = await client().audio.transcriptions.with_raw_response.create(
        model="scripted", file=("a.wav", wav), response_format="text"
    )
    assert raw.headers["content-type"] == "text/plain; charset=utf-8"
    assert raw.text == TEXT + "\n"


async def test_subtitles(client, wav) -> None:
    create = client().audio.transcriptions.create
    srt = await create(model="scripted", file=("a.wav", wav), response_format="srt")
    assert srt == (
        "1\n00:00:00,000 --> 00:00:00,200\nGood morning.\n\n2\n00:00:00,200 --> 00:00:00,400\nWho is there?\n"
    )
    vtt = await create(model="scripted", file=("a.wav", wav), response_format="vtt")
    assert vtt.startswith("WEBVTT\n\n00:00:00.000 --> 00:00:00.200\nGood morning.\n")


async def test_verbose_json_says_what_steering_did(client, wav) -> None:
    answer = await client().audio.transcriptions.create(
        model="scripted", file=("a.wav", wav), response_format="verbose_json", extra_body={"steer": 0.05}
    )
    assert (answer.text, answer.language, answer.duration, answer.task) == (TEXT, "en", 0.5, "transcribe")
    assert answer.speech_detected is True
    assert (answer.steer["pack"], answer.steer["strength"]) == ("quiet", 0.05)
    assert answer.steer["edited_share"] == 0.05
    assert answer.steer["windows"][0]["features"][0]["feature"] == 7
    assert [(s.text, s.start, s.end) for s in answer.segments] == [
        (PARTS[0], 0.0, SECONDS[0]),
        (PARTS[1], *SECONDS),
    ]
    assert [segment.steer["edited_share"] for segment in answer.segments] == [0.05, 0.05]
    assert answer.words is None


async def test_steering_silences_the_model(client, wav) -> None:
    raw = await client().audio.transcriptions.with_raw_response.create(
        model="scripted", file=("a.wav", wav), response_format="verbose_json", extra_body={"steer": "default"}
    )
    answer = raw.parse()
    assert (answer.text, answer.segments, answer.speech_detected) == ("", [], False)
    assert answer.steer["edited_share"] == 1.0
    assert (raw.headers["x-steer-pack"], raw.headers["x-steer-strength"]) == ("quiet", "1")


async def test_without_steering_nothing_speaks_of_it(client, wav) -> None:
    raw = await client().audio.transcriptions.with_raw_response.create(
        model="scripted", file=("a.wav", wav), response_format="verbose_json", extra_body={"steer": "off"}
    )
    assert "steer" not in raw.text.replace("steer_asr", "")
    assert not [name for name in raw.headers if name.startswith("x-steer")]


@pytest.mark.parametrize(
    ("steer", "meaning"),
    [
        (0.5, Steering("quiet", 0.5)),
        ("0.5", Steering("quiet", 0.5)),
        (1, Steering("quiet")),
        (True, Steering("quiet")),
        ("default", Steering("quiet")),
        ("quiet", Steering("quiet")),
        ("quiet@0.25", Steering("quiet", 0.25)),
        ('{"pack": "quiet", "strength": 0.25}', Steering("quiet", 0.25)),
        ({"pack": "quiet", "strength": 0.25}, Steering("quiet", 0.25)),
        ({"strength": 0.25, "steer_language_detection": True}, Steering("quiet", 0.25, True)),
        ("max_wer=0.25", Steering("quiet", 0.5)),
        ({"pack": "quiet", "max_wer_increase": 0.25}, Steering("quiet", 0.5)),
        ('{"max_wer_increase": 0.5}', Steering("quiet", 0.75)),
        ("off", None),
        (False, None),
        (None, None),
    ],
)
async def test_steer(client, wav, transcriber, steer: object, meaning: Steering | None) -> None:
    extra = {} if steer is None else {"steer": steer}
    await client().audio.transcriptions.create(model="scripted", file=("a.wav", wav), extra_body=extra)
    assert named(transcriber.jobs[0].steering) == meaning


def named(steering: Steering | None) -> Steering | None:
    """A job names the pack by its folder."""
    return None if steering is None else replace(steering, pack=Path(str(steering.pack)).name)


async def test_the_servers_steering_is_the_default(client, wav, transcriber) -> None:
    for model, pack in (("scripted", "quiet"), ("polyglot", "silence")):
        await client(steer="0.5").audio.transcriptions.create(model=model, file=("a.wav", wav))
        assert named(transcriber.jobs[-1].steering) == Steering(pack, 0.5)


@pytest.mark.parametrize(
    ("steer", "says"),
    [
        (1.5, "1.5 is outside 0 to 1"),
        ("nan", "outside 0 to 1"),
        ("", "is not understood"),
        ("quite", "did you mean 'quiet'"),
        ("silence", "unknown pack 'silence'"),  # made for the other model
        ("/etc", "unknown pack '/etc'"),
        ({"pack": "../quiet"}, "unknown pack '../quiet'"),
        ("hf://owner/quiet", "unknown pack 'hf://owner/quiet'"),
        ({"pack": "hf://owner/quiet@main"}, "unknown pack 'hf://owner/quiet@main'"),
        ({"power": 1}, "no option 'power'"),
        ({"strength": "much"}, "strength 'much' is not a number"),
        ({"strength": 1.5, "allow_overdrive": True}, "no option 'allow_overdrive'"),
        ({"strength": 0.5, "max_wer_increase": 0.05}, "give one of them"),
        ({"max_wer_increase": 5}, "share from 0 to 1"),
        ('{"strength": 0.5', "not valid JSON"),
        ("[0.5]", "is not understood"),
        ("[" * 1000, "not valid JSON"),
    ],
)
async def test_bad_steer(client, wav, transcriber, steer: object, says: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await client().audio.transcriptions.create(model="scripted", file=("a.wav", wav), extra_body={"steer": steer})
    assert says in refused.value.message
    assert (refused.value.param, refused.value.code) == ("steer", "invalid_steer")
    assert transcriber.jobs == []


async def test_a_path_to_a_real_pack_is_not_opened(client, wav, scripted) -> None:
    with pytest.raises(openai.BadRequestError, match="unknown pack"):
        await client().audio.transcriptions.create(
            model="scripted", file=("a.wav", wav), extra_body={"steer": str(scripted / "quiet")}
        )


async def test_a_strength_above_the_maximum_is_refused(client, wav, transcriber) -> None:
    create = client(max_steer=0.5).audio.transcriptions.create
    for steer in (0.75, "default", "quiet@0.6", {"pack": "quiet"}):
        with pytest.raises(openai.BadRequestError, match="above this server's maximum; send steer=0.5 or less"):
            await create(model="scripted", file=("a.wav", wav), extra_body={"steer": steer})
    await create(model="scripted", file=("a.wav", wav), extra_body={"steer": 0.5})
    assert [named(job.steering) for job in transcriber.jobs] == [Steering("quiet", 0.5)]


async def test_the_other_fields_reach_the_model(client, wav, transcriber) -> None:
    await client().audio.transcriptions.create(
        model="polyglot", file=("a.wav", wav), language="fr", prompt="Bonjour", temperature=0.5, stream=False,
        extra_body={"hotwords": "Angers"}, keywords=["Nantes", "Le Mans"],
    )  # fmt: skip
    (job,) = transcriber.jobs
    assert (job.model, job.language, job.prompt, job.temperature) == ("polyglot", "fr", "Bonjour", 0.5)
    assert job.hotwords == "Angers, Nantes, Le Mans"
    assert (job.word_timestamps, job.logprobs, job.vad) == (False, False, None)


@pytest.mark.parametrize("field", ["prompt", "hotwords"])
async def test_a_prompt_and_hotwords_reach_the_decoder(client, wav, field: str) -> None:
    """They come before the text, whose script goes by position: the first words are lost."""
    answer = await client().audio.transcriptions.create(
        model="scripted", file=("a.wav", wav), extra_body={field: "Bob"}
    )
    assert "Good morning" not in answer.text
    assert "Who is there?" in answer.text


@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        ("auto", VadOptions()),
        ({"type": "server_vad"}, VadOptions(0.5, min_silence_duration_ms=200, speech_pad_ms=300)),
        (
            {"type": "server_vad", "threshold": 0.25, "silence_duration_ms": 500, "prefix_padding_ms": 100},
            VadOptions(0.25, min_silence_duration_ms=500, speech_pad_ms=100),
        ),
    ],
)
async def test_voice_activity_detection(client, wav, transcriber, strategy: Any, options: VadOptions) -> None:
    create = client().audio.transcriptions.create
    answer = await create(model="scripted", file=("a.wav", wav), chunking_strategy=strategy)
    assert transcriber.jobs[0].vad == options
    assert answer.text == "", "noise is no speech to the detector; without it the model speaks"


async def test_voice_activity_detection_as_json_keeps_speech(client, speech_file) -> None:
    answer = await client().audio.transcriptions.create(
        model="scripted",
        file=("a.flac", speech_file),
        extra_body={"chunking_strategy": json.dumps({"type": "server_vad", "threshold": 0.4})},
    )
    assert answer.text == TEXT


async def test_the_detectors_threshold_is_the_requests(client, speech_file) -> None:
    create = client().audio.transcriptions.create
    for threshold, text in ((0.4, TEXT), (1.0, "")):
        strategy: Any = {"type": "server_vad", "threshold": threshold}
        answer = await create(model="scripted", file=("a.flac", speech_file), chunking_strategy=strategy)
        assert answer.text == text


async def test_a_given_language_is_not_detected(client, wav) -> None:
    create = client().audio.transcriptions.create
    for given, used in (({}, "fr"), ({"language": ""}, "fr"), ({"language": "de"}, "de")):
        answer = await create(model="polyglot", file=("a.wav", wav), response_format="verbose_json", **given)
        assert answer.language == used


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
async def test_the_task_is_in_the_decoders_prompt(client, wav, replica, monkeypatch) -> None:
    tokenizer = replica._models["polyglot"].hf_tokenizer
    prompts: list[list[str]] = []
    generate = ModelTap.generate

    def noted(tap: ModelTap, encoded: Any, tokens: list[list[int]], **options: Any) -> Any:
        prompts.append([tokenizer.id_to_token(token) for token in tokens[0]])
        return generate(tap, encoded, tokens, **options)

    monkeypatch.setattr(ModelTap, "generate", noted)
    await client().audio.translations.create(model="polyglot", file=("a.wav", wav))
    await client().audio.transcriptions.create(model="polyglot", file=("a.wav", wav))
    assert prompts[0] == ["<|startoftranscript|>", "<|fr|>", "<|translate|>"]
    assert prompts[-1] == ["<|startoftranscript|>", "<|fr|>", "<|transcribe|>"]


async def test_no_speech_to_the_detector_is_an_answer_in_every_language(client) -> None:
    answer = await client().audio.transcriptions.create(
        model="polyglot", file=("a.wav", as_wav(silence(1))), chunking_strategy="auto", response_format="verbose_json"
    )
    assert (answer.text, answer.speech_detected, answer.duration) == ("", False, 1.0)


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"temperature": 2}, "temperature", "less than or equal to 1"),
        ({"response_format": "diarized_json"}, "response_format", "'json', 'text'"),
        ({"stream": True, "response_format": "srt"}, "stream", "srt needs stream=false"),
        ({"timestamp_granularities": ["word"]}, "timestamp_granularities", "needs response_format=verbose_json"),
        ({"timestamp_granularities": ["letter"]}, "timestamp_granularities", "'word' or 'segment'"),
        ({"chunking_strategy": "manual"}, "chunking_strategy", "'auto'"),
        ({"chunking_strategy": {"type": "server_vad", "threshold": 2}}, "chunking_strategy", "less than or equal to 1"),
        ({"chunking_strategy": {"type": "server_vad", "treshold": 1}}, "chunking_strategy", "treshold"),
        ({"chunking_strategy": {"threshold": 0.5}}, "chunking_strategy", "type"),
        ({"extra_body": {"chunking_strategy": "{"}}, "chunking_strategy", "not valid JSON"),
        ({"include": ["logprobs"], "response_format": "text"}, "include", "needs response_format=json"),
        ({"include": ["prices"]}, "include", "'logprobs'"),
        ({"keywords": ["word"] * 101}, "keywords", "at most 100"),
        ({"languages": ["en", "fr"]}, "languages", "not supported"),
        ({"known_speaker_names": ["Ann"]}, "known_speaker_names", "not supported"),
        ({"extra_body": {"stear": "off"}}, "stear", "did you mean 'steer'"),
        ({"extra_body": {"steer": "x" * 1001}}, "steer", "steer: String should have at most 1000 characters"),
        ({"extra_body": {"steer": ["off", "on"]}}, "steer", "no option ''"),
        ({"language": "xx"}, "language", "not one of this model's: en"),
    ],
)
async def test_bad_fields(client, wav, fields: dict, param: str, says: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await client().audio.transcriptions.create(model="scripted", file=("a.wav", wav), **fields)
    assert says in refused.value.message
    assert refused.value.param == param
    assert refused.value.type == "invalid_request_error"


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # OpenAI's, since its whisper-1 is to end
async def test_translations(client, wav, transcriber) -> None:
    answer = await client().audio.translations.create(
        model="polyglot", file=("a.wav", wav), response_format="verbose_json", prompt="Hello", temperature=0.25
    )
    assert (answer.task, answer.language, answer.duration) == ("translate", "english", 0.5)
    assert "Who is there?" in answer.text
    (job,) = transcriber.jobs
    assert (job.task, job.language, job.prompt, job.temperature) == ("translate", None, "Hello", 0.25)
    plain = await client().audio.translations.create(
        model="polyglot", file=("a.wav", wav), extra_body={"steer": "silence"}
    )
    assert plain.text == ""


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
async def test_translations_refuse_what_is_not_theirs(client, wav) -> None:
    create = client().audio.translations.create
    with pytest.raises(openai.BadRequestError, match="scripted only knows English and cannot translate"):
        await create(model="scripted", file=("a.wav", wav))
    with pytest.raises(openai.BadRequestError, match="unknown form field 'language'"):
        await create(model="polyglot", file=("a.wav", wav), extra_body={"language": "fr"})


async def test_models_are_chosen_by_name(client, wav, transcriber) -> None:
    for name, spoken in (("polyglot", "fr"), ("scripted", "en"), ("whisper-1", "en")):
        answer = await client().audio.transcriptions.create(
            model=name, file=("a.wav", wav), response_format="verbose_json"
        )
        assert answer.language == spoken
    assert [job.model for job in transcriber.jobs] == ["polyglot", "scripted", "scripted"]


async def test_unknown_model(client, wav, tiny_en) -> None:
    for name in ("large-v3", "tiny.en", str(tiny_en.path)):
        with pytest.raises(openai.NotFoundError, match="is not served here; served: scripted, polyglot") as refused:
            await client().audio.transcriptions.create(model=name, file=("a.wav", wav))
        assert (refused.value.param, refused.value.code) == ("model", "model_not_found")


@pytest.mark.parametrize(
    ("upload", "status", "code"),
    [
        (b"", 400, "empty_file"),
        (b"this is no audio " * 100, 415, "unsupported_audio"),
        (b"RIFF\x00\x00\x00\x00WAVE", 415, "unsupported_audio"),
        (as_wav(silence(0)), 422, "unusable_audio"),
        (as_wav(silence(60))[:1000], 422, "unusable_audio"),
    ],
    ids=["empty", "text", "header only", "no samples", "cut off"],
)
async def test_unusable_uploads(client, transcriber, upload: bytes, status: int, code: str) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        await client().audio.transcriptions.create(model="scripted", file=("a.wav", upload))
    assert (refused.value.status_code, refused.value.code, refused.value.param) == (status, code, "file")
    assert transcriber.jobs == []


@pytest.mark.parametrize(
    ("limits", "code"), [({"max_audio_s": 0.25}, "audio_too_long"), ({"max_decoded_bytes": 1024}, "audio_too_long")]
)
async def test_audio_over_a_limit(client, wav, transcriber, limits: dict, code: str) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        await client(**limits).audio.transcriptions.create(model="scripted", file=("a.wav", wav))
    assert (refused.value.status_code, refused.value.code) == (413, code)
    assert transcriber.jobs == []


async def test_upload_over_the_limit_by_its_announced_size(client, transcriber) -> None:
    with pytest.raises(openai.APIStatusError, match="larger than 2048 bytes") as refused:
        await client(max_upload_bytes=2048).audio.transcriptions.create(model="scripted", file=("a.wav", bytes(4096)))
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


@pytest.mark.parametrize("path", ["/v1/audio/transcriptions", "/v1/audio/translations"])
@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({"json": {"model": "scripted"}}, 415),
        ({"data": {"model": "scripted"}}, 415),
        ({"files": {"model": (None, "scripted")}}, 400),
        ({"files": {"file": (None, "/etc/passwd"), "model": (None, "scripted")}}, 400),
        ({"files": {"audio": ("a.wav", b"x"), "model": (None, "scripted")}}, 400),
        ({"files": [("file", ("a.wav", b"x")), ("model", (None, "scripted")), ("model", (None, "scripted"))]}, 400),
        ({"files": {"file": ("a.wav", b"x")}}, 400),
        ({"content": b"--x", "headers": {"content-type": "multipart/form-data"}}, 400),
        ({"content": b"--y\r\nrubbish", "headers": {"content-type": "multipart/form-data; boundary=x"}}, 400),
    ],
)
async def test_malformed_requests(http, path: str, request_: dict, status: int) -> None:
    answer = await http().post(path, **request_)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("status", "error", "headers"),
    [
        (429, openai.RateLimitError, {"retry-after": "1"}),
        (503, openai.InternalServerError, {"retry-after": "1"}),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_busy_server_asks_for_a_retry(
    client, wav, transcriber, status: int, error: type[openai.APIStatusError], headers: dict, stream: bool
) -> None:
    transcriber.failure = ApiError(status, "not now", code="overloaded")
    with pytest.raises(error) as refused:
        await client().audio.transcriptions.create(model="scripted", file=("a.wav", wav), stream=stream)
    assert (refused.value.status_code, refused.value.code) == (status, "overloaded")
    assert headers.items() <= dict(refused.value.response.headers).items()


async def test_pack_errors_of_the_library_are_the_requests_fault(client, wav, transcriber) -> None:
    transcriber.failure = PackError("no default pack for 'base'")
    with pytest.raises(openai.BadRequestError, match="no default pack for 'base'"):
        await client().audio.transcriptions.create(model="scripted", file=("a.wav", wav), extra_body={"steer": "on"})


async def test_unexpected_failures_tell_the_client_nothing(client, wav, transcriber) -> None:
    transcriber.failure = RuntimeError("secret detail")
    with pytest.raises(openai.InternalServerError) as failed:
        await client().audio.transcriptions.create(model="scripted", file=("a.wav", wav))
    assert failed.value.type == "server_error"
    assert "secret" not in failed.value.response.text
