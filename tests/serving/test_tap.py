"""Log-probabilities and word times, on real speech with tiny.en."""

from __future__ import annotations

import math
import threading
from types import SimpleNamespace
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
from tokenizers import Tokenizer

from steer_asr.models import ModelFiles
from steer_asr_serving.api import create_api
from steer_asr_serving.deployment import LocalTranscriber, TranscriberReplica
from steer_asr_serving.served import Catalogue
from steer_asr_serving.settings import Settings
from steer_asr_serving.tap import Abandoned, ModelTap
from tests.helpers import silence
from tests.serving.conftest import SPOKEN, as_wav

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def real_app(tiny_en: ModelFiles) -> Any:
    settings = Settings(models=(tiny_en.name,), compute_type="int8", cpus_per_replica=1)
    catalogue = Catalogue.find(settings)
    return create_api(settings, catalogue, LocalTranscriber(TranscriberReplica(settings, catalogue)))


@pytest.fixture
def create(real_app) -> Any:
    http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=real_app), base_url="http://test")
    client = openai.AsyncOpenAI(base_url="http://test/v1", api_key="unused", max_retries=0, http_client=http)
    return client.audio.transcriptions.create


async def test_words_have_times(create, speech_file) -> None:
    answer = await create(
        model="tiny.en",
        file=("a.flac", speech_file),
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )
    words = SPOKEN.rstrip(".").split()
    assert [word.word.strip(" .") for word in answer.words] == words
    times = [time for word in answer.words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert times[-1] <= answer.duration
    assert [segment.text.strip() for segment in answer.segments] == [SPOKEN]


async def test_words_alone_come_without_segments(create, speech_file) -> None:
    answer = await create(
        model="tiny.en", file=("a.flac", speech_file), response_format="verbose_json", timestamp_granularities=["word"]
    )
    assert answer.words
    assert answer.segments is None
    assert answer.steer["pack"] == "tiny.en"


@pytest.mark.parametrize("stream", [False, True])
async def test_logprobs_spell_the_text(create, speech_file, stream: bool) -> None:
    answer = await create(model="tiny.en", file=("a.flac", speech_file), include=["logprobs"], stream=stream)
    events = [event async for event in answer] if stream else [answer]
    for event in events:
        text = event.delta if hasattr(event, "delta") else event.text
        assert "".join(token.token for token in event.logprobs).strip() == text == SPOKEN
        assert b"".join(bytes(map(int, token.bytes)) for token in event.logprobs).decode().strip() == SPOKEN
        assert all(-10 < token.logprob <= 0 for token in event.logprobs)
        assert min(token.logprob for token in event.logprobs) < -0.1 < max(token.logprob for token in event.logprobs)


async def test_silence_has_no_words_and_no_logprobs(create) -> None:
    quiet = ("a.wav", as_wav(silence(1)))
    verbose = await create(
        model="tiny.en", file=quiet, response_format="verbose_json", timestamp_granularities=["word"]
    )
    assert (verbose.text, verbose.words) == ("", [])
    assert (await create(model="tiny.en", file=quiet, include=["logprobs"])).logprobs == []


@pytest.fixture(scope="module")
def tokenizer(tiny_en: ModelFiles) -> Tokenizer:
    return Tokenizer.from_file(str(tiny_en.path / "tokenizer.json"))


def aligned(*results: tuple[list[int], list[float]]) -> ModelTap:
    """A tap whose model has aligned these (tokens, probabilities)."""
    model = SimpleNamespace(
        align=lambda _encoded, _start, texts: [
            SimpleNamespace(text_token_probs=next(p for tokens, p in results if tokens == text)) for text in texts
        ]
    )
    tap = ModelTap(model, threading.Event())
    for tokens, _ in results:
        tap.align(None, None, [tokens])
    return tap


def test_each_segment_gets_its_own_tokens(tokenizer: Tokenizer) -> None:
    """Of three aligned segments, faster-whisper drops the second; time tokens are not text."""
    first, dropped, last = (tokenizer.encode(text, add_special_tokens=False).ids for text in (" a", " b b", " a"))
    tap = aligned((first + dropped, [0.5] + [0.25] * len(dropped)), (last, [0.125]))
    time_token = (tokenizer.token_to_id("<|notimestamps|>") or 0) + 1
    assert [round(math.exp(t.logprob), 3) for t in tap.logprobs([time_token, *first], tokenizer)] == [0.5]
    assert tap.logprobs([time_token], tokenizer) == ()
    assert [round(math.exp(t.logprob), 3) for t in tap.logprobs([*last, time_token], tokenizer)] == [0.125]


def test_tokens_that_are_part_of_a_character(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode(" 🦜é\n", add_special_tokens=False).ids
    logprobs = aligned((tokens, [0.0] * len(tokens))).logprobs(tokens, tokenizer)
    assert bytes(byte for token in logprobs for byte in token.bytes).decode() == " 🦜é\n"
    assert "\ufffd" in logprobs[0].token or "\ufffd" in logprobs[1].token
    assert all(np.isfinite(token.logprob) for token in logprobs)


def test_an_abandoned_model_does_no_more() -> None:
    gone = threading.Event()
    tap = ModelTap(SimpleNamespace(encode=lambda x: x, generate=lambda x: x, is_multilingual=True), gone)
    assert (tap.encode(1), tap.generate(2), tap.is_multilingual) == (1, 2, True)
    gone.set()
    for method in (tap.encode, tap.generate):
        with pytest.raises(Abandoned):
            method(1)
