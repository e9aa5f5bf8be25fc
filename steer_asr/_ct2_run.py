"""One steered transcription with CTranslate2's decoder: its settings, and what it did to each window.

What the `ct2` and `hybrid` executors share; `steer_asr.ct2` binds a copy of the model to a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import ctranslate2
import numpy as np
from faster_whisper.transcribe import Segment

from steer_asr import _cuda_edit
from steer_asr.pack import SteerPack
from steer_asr.steering import FRAME_S, FrameReport, Steering, steer_frames, top_features, window_report
from steer_asr.transcription import SegmentSteering, SteeredSegment, SteerReport, WindowReport, extend


@dataclass
class Run:
    """One steered transcription: its settings, and what it did."""

    steering: Steering
    pack: SteerPack
    executor: str
    tape: FeatureTape | None = None
    """The mel features being cut into windows (sequential path)."""
    chunks: list[dict[str, Any]] | None = None
    """The chunks of the batch being encoded (batched path)."""
    plain: np.ndarray | None = None
    """The last encoder output before it was edited; kept only while language is detected per window."""
    keep_plain: bool = False
    recent: list[tuple[WindowReport, FrameReport]] = field(default_factory=list)
    """The windows of the last `steer` call."""
    silent: list[float | None] = field(default_factory=list)
    """One for each window of the last `steer` call: the gate's probability where nobody speaks, else None."""
    report: SteerReport = field(init=False)

    def __post_init__(self) -> None:
        self.report = SteerReport(self.pack.name, self.steering.strength, self.executor)

    def steer(self, output: ctranslate2.StorageView, audio_frames: Sequence[int]) -> ctranslate2.StorageView:
        """Edits an encoder output, [batch, frame, d_model], in place if it can be viewed, and records what it did.

        `audio_frames` says for each window where its padding begins.
        """
        if _cuda_edit.can_edit(output):
            if self.keep_plain:
                self.plain = _cuda_edit.view(output).to("cpu", copy=True).numpy()
            self.record(_cuda_edit.edit_in_place(output, self.pack, self.steering.strength, audio_frames))
            return output
        output = _on_host(output)
        x = np.asarray(output)
        if self.keep_plain:
            self.plain = x.copy()
        frames = []
        for i, heard in enumerate(audio_frames):
            window = x[i] if x.dtype == np.float32 else x[i].astype(np.float32)
            frames.append(steer_frames(window, self.pack, self.steering.strength, heard))
            if x.dtype != np.float32:
                x[i] = window
        self.record(frames)
        return output

    def record(self, batch: Sequence[FrameReport]) -> None:
        """Notes what was done to each window of an encoded batch."""
        self.recent, self.silent = [], []
        for spot, frames in zip(self._spots(len(batch)), batch, strict=True):
            self.silent.append(frames.nobody_speaks if frames.silent else None)
            if spot is not None:
                self.recent.append((window_report(frames, self.pack, *spot), frames))
        self.report.windows += [window for window, _ in self.recent]

    def _spots(self, batch: int) -> list[tuple[float, float] | None]:
        """(start, duration) in seconds of each window of the batch; None when only the caller knows."""
        if self.chunks is not None:
            return [(chunk["offset"], chunk["duration"]) for chunk in self.chunks]
        if self.tape is not None:
            return [self.tape.spot]
        return [None] * batch

    def annotate(self, segment: Segment) -> SteeredSegment:
        """Attaches to a segment what was done between its start and end, in the window it came from.

        Feature times count from the segment's start here: with VAD, faster-whisper moves segments only afterwards.
        """
        window, frames = next(
            (pair for pair in reversed(self.recent) if pair[0].start_s <= segment.start + 1e-3), self.recent[0]
        )
        n = len(window.frame_weights)
        start = min(n - 1, max(0, int((segment.start - window.start_s) / FRAME_S)))
        end = min(n, max(start + 1, round((segment.end - window.start_s) / FRAME_S)))
        steer = SegmentSteering(
            edited_share=float(window.frame_weights[start:end].mean()),
            nobody_speaks=window.nobody_speaks,
            features=top_features(frames, self.pack, start, end, -start * FRAME_S),
        )
        return extend(SteeredSegment, segment, steer=steer)


class FeatureTape:
    """Stands in for the mel features that `generate_segments` cuts into windows, and remembers the last cut.

    faster-whisper asks the features for their shape and for `features[:, start:stop]`, then encodes what it got;
    `encode` itself is not told where in the audio it is.
    """

    def __init__(self, features: np.ndarray) -> None:
        self.features, self.shape = features, features.shape
        self.spot = (0.0, 0.0)

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        mel_frame_s = FRAME_S / 2
        self.spot = (key[1].start * mel_frame_s, (key[1].stop - key[1].start) * mel_frame_s)
        return self.features[key]


class PlainLanguageDetection:
    """A CTranslate2 Whisper whose `detect_language` sees the encoder output as it was before the edit."""

    def __init__(self, model: Any, run: Run) -> None:
        self.wrapped, self._steer_run = model, run
        run.keep_plain = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrapped, name)

    def detect_language(self, _steered: ctranslate2.StorageView) -> Any:
        return self.wrapped.detect_language(ctranslate2.StorageView.from_array(self._steer_run.plain))


def _on_host(output: ctranslate2.StorageView) -> ctranslate2.StorageView:
    """The output in host memory, in a type that numpy can view. A no-op on CPU, except for bfloat16."""
    if output.dtype == ctranslate2.DataType.bfloat16:
        output = output.to(ctranslate2.DataType.float32)
    return output if output.device == "cpu" else output.to_device(ctranslate2.Device.cpu)
