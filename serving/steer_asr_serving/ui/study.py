"""The jobs of one recording, in the replica.

studies = Studies(max_bytes=256 * 2**20)
study = studies.of("id of the recording")
model.model = study.tap(model, gone)                # of a shallow copy that serves one job
...
study.picture(model, job.steering, transcription)   # and keeps what the encoder said for the next job
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from steer_asr.steering import Steering
from steer_asr.transcription import Transcription
from steer_asr_serving.ui.memory import Bounds, Heard, RememberedMel, RememberingTap, Shelf
from steer_asr_serving.ui.picture import Picture, draw_features, draw_mel, pack_of

if TYPE_CHECKING:
    from steer_asr import SteeredWhisperModel

MAX_RECORDINGS = 32
MAX_AGE_S = 15 * 60.0
"""Since the last use: who looks at a recording for longer pays for encoding it once more."""
SHARE = 4
"""One recording may take up this part of everything that is kept."""


class Studies:
    """What a replica keeps of recordings, within bounds."""

    def __init__(self, max_bytes: int) -> None:
        bounds = Bounds(MAX_RECORDINGS, max_bytes, MAX_AGE_S)
        self._heard: Shelf[Heard] = Shelf(bounds, lambda heard: heard.bytes)
        self._max_bytes_each = max_bytes // SHARE

    def of(self, session: str) -> Study:
        """For one job on the recording of this name."""
        heard = self._heard.get(session) or Heard(self._max_bytes_each)
        return Study(heard, lambda: self._heard.put(session, heard))

    @property
    def bytes(self) -> int:
        """Of everything that is kept."""
        return self._heard.bytes


class Study:
    """One job."""

    def __init__(self, heard: Heard, keep: Callable[[], None]) -> None:
        self._heard, self._keep = heard, keep
        self._tap: RememberingTap | None = None

    def tap(self, model: SteeredWhisperModel, gone: threading.Event) -> RememberingTap:
        """Stands in for `model.model`; `model`, a shallow copy, also gets the recording's mel instead of its own."""
        extractor = RememberedMel(model.feature_extractor, self._heard)
        model.feature_extractor = extractor  # pyright: ignore[reportAttributeAccessIssue]  (it passes the rest on)
        self._tap = RememberingTap(model.model, gone, self._heard)
        return self._tap

    def picture(self, model: SteeredWhisperModel, steering: Steering | None, transcription: Transcription) -> Picture:
        """What there is to see of the finished job: the recording's sound, or with steering its features."""
        assert self._tap is not None, "the job ran"
        assert self._heard.mel is not None, "the job ran"
        self._keep()
        report, duration_s = transcription.steer, transcription.duration_s
        if steering is None or report is None:
            drawn = draw_mel(self._heard.mel, duration_s)
        else:
            pack = pack_of(str(steering.pack), model.files.sha256, model.files.name)
            drawn = draw_features(self._tap.outputs, report.windows, pack, duration_s)
        return replace(drawn, encoded_windows=self._tap.encoded_windows)
