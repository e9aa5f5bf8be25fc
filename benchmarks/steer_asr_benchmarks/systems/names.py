"""How systems are called: `[ALIAS=]KIND[:ARGUMENT][+MODIFIER...]`, or the address of a server.

SystemName.parse("steered:0.5+vad")
SystemName.parse("svector=steered:packs/svector")       # "svector" in the results
SystemName.parse("http://127.0.0.1:8000/v1#base")
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from steer_asr.errors import SteerOptionError, unknown_name

ALIAS = re.compile(r"[\w.+-]+")
SERVER = "http"


@dataclass(frozen=True)
class Kind:
    """One kind of system."""

    says: str
    argument: str = ""
    """What may stand behind the colon, for people; empty when nothing may."""


KINDS: Mapping[str, Kind] = {
    "stock": Kind("plain faster-whisper"),
    "steered": Kind("with a steer pack; without an argument, that of --steer", "STRENGTH, PACK or PACK@STRENGTH"),
    "gate": Kind(
        "the pack's gate alone: a window where it hears nobody is not decoded", "PROBABILITY[@PACK], else 0.5"
    ),
    "rule": Kind("stock that drops windows as Whisper does", "NO_SPEECH[/LOGPROB], else 0.6/-1.0"),
    "nospeech": Kind("stock without segments whose no_speech_prob is higher", "PROBABILITY, else 0.6"),
    "hst": Kind("stock with hallucination_silence_threshold and word timestamps", "SECONDS, else 2.0"),
    "webrtcvad": Kind("stock behind WebRTC's detector", "AGGRESSIVENESS 0 to 3, else 2"),
    "compiled": Kind("plain faster-whisper on a model that steer-asr compile wrote", "DIR"),
    "boh": Kind("stock without known phantom phrases and loops (bag of hallucinations)", "FILE of phrases, else ours"),
}


@dataclass(frozen=True)
class Modifier:
    """Something that is put behind the name of a kind."""

    says: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of `transcribe` that it sets."""
    batched: bool = False
    executor: str | None = None
    compute_type: str | None = None
    """CTranslate2's; None: that of the run."""


FALLBACK = {
    "temperature": (0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
    "compression_ratio_threshold": 2.4,
    "log_prob_threshold": -1.0,
    "no_speech_threshold": 0.6,
}
"""faster-whisper's defaults."""
MODIFIERS: Mapping[str, Modifier] = {
    "vad": Modifier("behind faster-whisper's Silero filter", {"vad_filter": True}),
    "empty": Modifier("allowed to answer nothing; steered and gate always are", {"suppress_blank": False}),
    "beam5": Modifier("beam search of width 5", {"beam_size": 5}),
    "fallback": Modifier("with faster-whisper's thresholds and rising temperatures", FALLBACK),
    "defaults": Modifier(
        "as faster-whisper is called without options: beam 5, fallback, earlier text as a prompt",
        {"beam_size": 5, "condition_on_previous_text": True, **FALLBACK},
    ),
    "auto": Modifier("language detected and not forced", {"language": None}),
    "batched": Modifier("through the batched pipeline, 8 windows at a time", {"batch_size": 8}, batched=True),
    "int8": Modifier("with weights in int8, whatever --compute-type says", compute_type="int8"),
    "hybrid": Modifier("with a torch encoder before CTranslate2's decoder; steered and gate only", executor="hybrid"),
    "hf": Modifier("in transformers, greedy or with beams, 30 s at a time; stock and steered only", executor="hf"),
}


@dataclass(frozen=True)
class SystemName:
    """A parsed system name."""

    text: str
    """As it is called in the results: the alias, if there is one."""
    kind: str
    argument: str | None
    modifiers: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> SystemName:
        """Raises `SteerOptionError` for an unknown kind or modifier, with the nearest names."""
        text = text.strip()
        alias, equals, rest = text.partition("=")
        if not equals or not ALIAS.fullmatch(alias):
            alias, rest = "", text
        if rest.startswith(("http://", "https://")):
            return cls(alias or rest, SERVER, rest, ())
        head, *modifiers = rest.split("+")
        kind, colon, argument = head.partition(":")
        if kind not in KINDS:
            raise SteerOptionError(unknown_name("system", kind, KINDS))
        for modifier in modifiers:
            if modifier not in MODIFIERS:
                raise SteerOptionError(f"system {text!r}: " + unknown_name("modifier", modifier, MODIFIERS))
        if colon and not (KINDS[kind].argument and argument):
            takes = [name for name, known in KINDS.items() if known.argument]
            wanted = KINDS[kind].argument or f"nothing; only {', '.join(takes)} take an argument"
            raise SteerOptionError(f"system {text!r}: behind '{kind}:' stands {wanted}")
        return cls(alias or text, kind, argument or None, tuple(modifiers))

    def arguments(self) -> dict[str, Any]:
        """Arguments of `transcribe` that the modifiers set, the later ones winning."""
        return {key: value for name in self.modifiers for key, value in MODIFIERS[name].arguments.items()}

    @property
    def batched(self) -> bool:
        return any(MODIFIERS[name].batched for name in self.modifiers)

    @property
    def executor(self) -> str:
        """What runs the encoder and the decoder; the last one named."""
        return next((e for name in reversed(self.modifiers) if (e := MODIFIERS[name].executor)), "ct2")

    @property
    def compute_type(self) -> str | None:
        """CTranslate2's compute type; None: that of the run."""
        return next((c for name in self.modifiers if (c := MODIFIERS[name].compute_type)), None)

    def number(self, default: float, low: float, high: float) -> float:
        """The argument as a number; raises `SteerOptionError` when it is none, or none from `low` to `high`."""
        return number(self.text, self.argument, default, low, high)


def number(system: str, text: str | None, default: float, low: float, high: float) -> float:
    """`text` as a number from `low` to `high`, `default` without one. Raises `SteerOptionError`."""
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise SteerOptionError(f"system {system!r}: {text!r} is not a number from {low:g} to {high:g}")
    return value


def listing() -> Iterator[tuple[str, str]]:
    """(name, what it is) of everything that can be said, for people."""
    for name, kind in KINDS.items():
        yield name, kind.says + (f"; {name}:ARGUMENT with {kind.argument}" if kind.argument else "")
    yield "http://HOST:PORT/v1#MODEL", "any OpenAI-compatible server; ?steer=0.5 before the # adds request fields"
    for name, modifier in MODIFIERS.items():
        yield f"...+{name}", modifier.says
    yield "ALIAS=...", "calls any of them ALIAS in the results"
