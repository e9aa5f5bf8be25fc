"""Every error this library raises on purpose. All derive from `SteerASRError`; messages say what would work."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SteerASRError(Exception):
    """Base of all errors raised by steer_asr and its sister packages."""


class AudioError(SteerASRError):
    """The audio cannot be used: missing, empty, truncated, not audio, protected, or over a limit."""


class AudioLimitError(AudioError):
    """Decoding was stopped because a limit on seconds or bytes was reached."""


class ModelError(SteerASRError):
    """A Whisper model was not found, is incomplete, or is not what it claims to be."""


class WeightsError(ModelError):
    """A weights file is corrupt, or cannot be converted."""


class PackError(SteerASRError):
    """A steer pack is missing, corrupt, or inconsistent with its own SAE."""


class PackMismatchError(PackError):
    """The pack was made for another model, front-end or hook point than the one it is used with."""


class HubError(PackError):
    """A pack could not be fetched from the Hugging Face Hub, or pushed to it."""


class HubNotFoundError(HubError):
    """There is no such repository or revision, or it is private."""


class HubTokenError(HubError):
    """There is no token, or it does not allow this."""


class HubOfflineError(HubError):
    """The hub cannot be reached, and what was asked for is not in the cache."""


class HookPointError(SteerASRError):
    """The model has no such hook point."""


class SteerOptionError(SteerASRError, ValueError):
    """`steer=` (or another option) has a value outside what is allowed."""


class NotSteeredError(SteerASRError):
    """A block that was to be steered ended, and no encoder output had been steered in it."""


class ManifestError(SteerASRError):
    """A manifest line is broken; the message names the file and the line."""


class WorkerError(SteerASRError):
    """A process that worked for this one was lost. What it had finished is kept."""


class OutputError(SteerASRError):
    """A result could not be written; nothing half-written is left behind."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Message for an unknown name: the nearest known ones, then all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    return f"unknown {kind} {name!r}{hint} Available: {', '.join(known) or 'none'}."
