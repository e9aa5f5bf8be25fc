"""How long audio files are, from their headers: as cheap as opening them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import av
import av.error

from steer_asr._progress import Progress
from steer_asr.audio import FORMATS, SAMPLE_RATE_HZ, decode_audio
from steer_asr.errors import AudioError
from steer_asr.manifest import Clip


def measured(clips: Sequence[Clip]) -> list[Clip]:
    """The clips, with the durations that their datasets do not state. Raises `AudioError` for what is not audio."""
    with Progress(total=sum(math.isnan(clip.duration_s) for clip in clips), unit="clip", label="lengths") as progress:
        found = []
        for clip in clips:
            if math.isnan(clip.duration_s):
                clip = replace(clip, duration_s=round(read_duration_s(clip.audio_path), 4))
                progress.advance(note=clip.source)
            found.append(clip)
    return found


def read_duration_s(path: Path) -> float:
    """Seconds, as the header says; decoded where it does not say. Raises `AudioError` as `decode_audio` does."""
    try:
        with (
            path.open("rb") as file,
            av.open(
                file,
                mode="r",
                options={"format_whitelist": FORMATS, "protocol_whitelist": "none"},
                metadata_errors="ignore",
            ) as container,
        ):
            for stream in container.streams.audio[:1]:
                if stream.duration and stream.time_base:
                    return float(stream.duration * stream.time_base)
            if container.streams.audio and container.duration:
                return container.duration / av.time_base
    except (OSError, av.error.FFmpegError) as error:
        raise AudioError(f"{path}: its length cannot be read ({error.strerror or error})") from error
    return len(decode_audio(path)) / SAMPLE_RATE_HZ
