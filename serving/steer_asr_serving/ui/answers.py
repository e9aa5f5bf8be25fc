"""Finished jobs as the page gets them. Pure functions."""

from __future__ import annotations

from typing import Any

from steer_asr.formats import verbose
from steer_asr.steering import FRAME_S
from steer_asr_serving.deployment import Outcome
from steer_asr_serving.ui.picture import edit_weights
from steer_asr_serving.ui.schemas import Analysis, Line, Mel, Reading, Steered, Track, Window


def analysis(session: str, model: str, outcome: Outcome) -> Analysis:
    """What a stock job found."""
    body, picture = verbose(outcome.transcription), outcome.picture
    assert picture is not None, "the job belongs to a session"
    assert picture.mel is not None, "the job was a stock one"
    bins, columns = picture.mel.shape
    return Analysis(
        id=session,
        model=model,
        language=body["language"],
        duration=body["duration"],
        stock=Reading(**_reading(body, outcome)),
        mel=Mel(bins=bins, columns=columns, column_s=picture.column_s, levels=picture.mel.tobytes()),
    )


def steered(outcome: Outcome) -> Steered:
    """What a steered job found."""
    transcription, picture = outcome.transcription, outcome.picture
    assert picture is not None, "the job belongs to a session"
    assert transcription.steer is not None, "the job was steered"
    body = verbose(transcription)
    report = body["steer"]
    return Steered(
        **_reading(body, outcome),
        pack=report["pack"],
        strength=report["strength"],
        nobody_speaks=report["nobody_speaks"],
        edited_share=report["edited_share"],
        frame_s=FRAME_S,
        edit=edit_weights(transcription.steer, transcription.duration_s).tobytes(),
        windows=[
            Window(**{name: window[name] for name in ("start", "end", "nobody_speaks", "edited_share")})
            for window in report["windows"]
        ],
        features=[
            Track(feature=track.feature, peak=round(track.peak, 4), levels=track.levels.tobytes())
            for track in picture.features
        ],
        encoder="ran" if picture.encoded_windows else "kept",
    )


def _reading(body: dict[str, Any], outcome: Outcome) -> dict[str, Any]:
    return {
        "text": body["text"],
        "speech_detected": body["speech_detected"],
        "segments": [_line(segment) for segment in body["segments"]],
        "seconds": round(outcome.seconds, 3),
    }


def _line(segment: dict[str, Any]) -> Line:
    steer = segment.get("steer", {})
    return Line(
        **{name: segment[name] for name in ("start", "end", "text", "avg_logprob", "no_speech_prob")},
        nobody_speaks=steer.get("nobody_speaks"),
        edited_share=steer.get("edited_share"),
        features=[feature["feature"] for feature in steer.get("features", ())],
    )
