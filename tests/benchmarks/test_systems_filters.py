"""What is taken out of a text afterwards; no model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from steer_asr.errors import SteerOptionError
from steer_asr_benchmarks.loops import has_loop, without_loops
from steer_asr_benchmarks.systems.base import Decoding, PredictedSegment, Prediction
from steer_asr_benchmarks.systems.filters import known_phrases, make_boh, make_nospeech

AUDIO = np.zeros(16_000, np.float32)
DECODING = Decoding("timestamps", "en")


class Says:
    """A system that always says the same."""

    name = "says"
    options = {"kind": "stock", "suppress_blank": True}

    def __init__(self, *texts: str, no_speech: float = 0.1) -> None:
        self.segments = tuple(
            PredictedSegment(float(i), i + 1.0, text, no_speech, -0.3, 1.0) for i, text in enumerate(texts)
        )

    def transcribe(self, audio: np.ndarray, decoding: Decoding) -> Prediction:
        assert audio is AUDIO
        assert decoding is DECODING
        return Prediction("en", True, self.segments, ())


def said(*texts: str, phrases: str | None = None) -> list[str]:
    found = make_boh("boh", Says(*texts), phrases).transcribe(AUDIO, DECODING)
    return [segment.text for segment in found.segments]


@pytest.mark.parametrize(
    "text", [" Thank you.", " THANKS for watching!", " Bye. Bye.", " you", " Thank you. Thank you."]
)
def test_phantom_phrases_go(text: str) -> None:
    assert said(text) == []


@pytest.mark.parametrize("text", [" Thank you, doctor.", " I said thank you.", " Are you there?", " 12", " ..."])
def test_sentences_with_a_phrase_in_them_stay(text: str) -> None:
    assert said(text) == [text]


def test_of_a_loop_one_turn_stays() -> None:
    assert said(" I see it. I see it. I see it. Yes.") == [" I see it. Yes."]
    assert said(" Look out.", " Look out!", " Look out.", " Now.") == [" Look out.", " Now."]


def test_own_phrases_take_the_place_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "phrases.txt"
    path.write_text("# heard on line 4\nplease hold   # music\n")
    assert said(" Please hold.", " Thank you.", phrases=str(path)) == [" Thank you."]
    assert make_boh("boh", Says(), str(path)).options["phrases"] == 1
    path.write_text("# nothing\n")
    with pytest.raises(SteerOptionError, match="no phrase in it"):
        make_boh("boh", Says(), str(path))
    with pytest.raises(SteerOptionError, match="not a list of phrases"):
        make_boh("boh", Says(), str(tmp_path / "none.txt"))


def test_our_phrases_are_phrases() -> None:
    assert ("thank", "you") in known_phrases()
    assert all(phrase and all(phrase) for phrase in known_phrases())


def test_segments_of_unlikely_speech_go() -> None:
    for no_speech, stays in ((0.6, True), (0.61, False)):
        system = make_nospeech("nospeech", Says(" Hello.", no_speech=no_speech), 0.6)
        assert bool(system.transcribe(AUDIO, DECODING).segments) is stays
    assert system.options["kind"] == "nospeech"
    assert system.options["suppress_blank"] is True


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (" no no no no no", " no"),
        (" no no no no", " no no no no"),
        (" a b a b a b c", " a b c"),
        ("So, so. So? so! SO", "So,"),
        (" a  b", " a  b"),
        ("", ""),
    ],
)
def test_loops_by_hand(text: str, left: str) -> None:
    assert without_loops(text) == left
    assert not has_loop(left.split())
