"""faster-whisper's front-end as a transformers feature extractor.

Both compute the same log-mel spectrogram. transformers pads the audio with silence first; faster-whisper pads the
finished spectrogram with 0.0, which no silence looks like, and Whisper's encoder tells them apart, on the frames before
the padding too. Steer packs are made behind faster-whisper's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from transformers import BatchFeature, WhisperFeatureExtractor


class FasterWhisperFeatureExtractor(WhisperFeatureExtractor):
    """A `WhisperFeatureExtractor` whose mel frames after the end of the audio are 0.0. For pipelines and processors."""

    def __call__(self, raw_speech: Any, *args: Any, **kwargs: Any) -> BatchFeature:
        """As `WhisperFeatureExtractor`; the audio is float mono at 16 kHz, one array or a list of them."""
        made = super().__call__(raw_speech, *args, **kwargs)
        several = isinstance(raw_speech, list | tuple) and isinstance(raw_speech[0], np.ndarray | list | tuple)
        batch = raw_speech if several or np.ndim(raw_speech) == 2 else [raw_speech]
        for mel, wave in zip(made["input_features"], batch, strict=True):
            mel[:, len(wave) // self.hop_length :] = 0.0
        return made
