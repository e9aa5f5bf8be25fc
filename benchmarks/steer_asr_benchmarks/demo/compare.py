"""One clip, transcribed twice: by stock Whisper and steered.

comparison = compare(load_model("tiny.en"), clip, Steering())
comparison.stock_text, comparison.steered_text, comparison.edit_weights
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property
from typing import Any

import numpy as np
from faster_whisper.transcribe import Segment

from steer_asr.audio import SAMPLE_RATE_HZ, decode_audio
from steer_asr.ct2 import SteeredWhisperModel
from steer_asr.manifest import Clip
from steer_asr.steering import FRAME_S, Steering
from steer_asr.transcription import SteerReport, WindowReport
from steer_asr_benchmarks.text import normalize, words_of

DECODING: dict[str, Any] = {"language": "en", "beam_size": 1, "temperature": 0.0, "no_speech_threshold": None}
"""Greedy, and without the rule that drops unlikely text afterwards: what is compared is what the decoder writes."""
DECODING_IN_WORDS = "greedy decoding; faster-whisper's no-speech rule is off"
RULE_NO_SPEECH_PROB, RULE_AVG_LOGPROB = 0.6, -1.0  # faster-whisper's defaults


@dataclass(frozen=True, eq=False)
class Comparison:
    """What came out of one clip."""

    clip: Clip
    duration_s: float
    mel: np.ndarray
    """float32 [n_mels, mel frame]: the log-mel spectrogram that the model heard, 10 ms a frame."""
    stock: tuple[Segment, ...]
    steered: tuple[Segment, ...]
    report: SteerReport

    @property
    def stock_text(self) -> str:
        return text_of(self.stock)

    @property
    def steered_text(self) -> str:
        return text_of(self.steered)

    @cached_property
    def edit_weights(self) -> np.ndarray:
        """float32 [frame]: edit weight times strength along the clip. Where windows overlap, the later one counts."""
        weights = np.zeros(max(1, round(self.duration_s / FRAME_S)), np.float32)
        for window in self.report.windows:
            start = round(window.start_s / FRAME_S)
            piece = window.frame_weights[: max(0, len(weights) - start)]
            weights[start : start + len(piece)] = piece
        return weights

    @property
    def most_edited_window(self) -> WindowReport | None:
        windows = self.report.windows
        return max(windows, key=lambda w: w.edited_share * (w.end_s - w.start_s)) if windows else None

    def only_in_stock(self, segment: Segment) -> bool:
        """True for a segment of the stock transcript most of whose words steering left out."""
        return id(segment) in self._left_out

    @cached_property
    def _left_out(self) -> set[int]:
        """Ids of the stock segments with fewer than half of their words in an alignment with the steered words."""
        stock = [(word, id(segment)) for segment in self.stock for word in _words(segment.text)]
        steered = [word for segment in self.steered for word in _words(segment.text)]
        blocks = SequenceMatcher(None, [word for word, _ in stock], steered, autojunk=False).get_matching_blocks()
        kept = Counter(owner for block in blocks for _, owner in stock[block.a : block.a + block.size])
        return {id(s) for s in self.stock if not kept[id(s)] or 2 * kept[id(s)] < len(_words(s.text))}


def compare(model: SteeredWhisperModel, clip: Clip, steer: Steering) -> Comparison:
    """Transcribes `clip` stock and steered. Raises what `SteeredWhisperModel.transcribe` raises."""
    wave = decode_audio(clip.audio_path)
    steered, info = model.transcribe(wave, steer=steer, **DECODING)
    stock, _ = model.transcribe(wave, steer=None, **DECODING)
    return Comparison(
        clip=clip,
        duration_s=len(wave) / SAMPLE_RATE_HZ,
        mel=model.feature_extractor(wave)[:, :-1],
        stock=tuple(stock),
        steered=tuple(steered),
        report=info.steer,  # pyright: ignore[reportAttributeAccessIssue]  (a SteeredInfo, since steering is on)
    )


def text_of(segments: Sequence[Segment]) -> str:
    return "".join(segment.text for segment in segments).strip()


def dropped_by_rule(segments: Sequence[Segment]) -> bool:
    """True when faster-whisper's default no-speech rule would have dropped a part of this text."""
    return any(s.no_speech_prob > RULE_NO_SPEECH_PROB and s.avg_logprob <= RULE_AVG_LOGPROB for s in segments)


def _words(text: str) -> list[str]:
    return words_of(normalize(text, "en"))
