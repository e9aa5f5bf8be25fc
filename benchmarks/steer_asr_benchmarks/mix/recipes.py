"""What `mix` can make, one dataclass a recipe; their fields are the options.

make_recipe("snr", snr_db=(10, 0))           # Snr(snr_db=(10, 0))
make_recipe("codec", codecs=(Codec.parse("opus:12"),))
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from steer_asr.errors import SteerOptionError, unknown_name

SNR_RANGE_DB = (-60.0, 100.0)
MUSIC = frozenset({"music"})
"""Categories of non-speech that are music."""


@dataclass(frozen=True)
class CodecFormat:
    """How one codec's files are made, and the bit rates it can keep to."""

    encoders: tuple[str, ...]
    """FFmpeg's names, or `libsndfile:SUBTYPE` for what PyAV's FFmpeg lacks; the first that is there is used."""
    container: str
    rate_hz: int
    kbit_s: tuple[float, ...]
    """The bit rates there are."""
    default_kbit_s: float
    delay_samples: int = 0
    """What the codec puts in front, at 16 kHz, where the container does not say so."""


CODECS = {
    "opus": CodecFormat(("libopus",), "ogg", 48_000, tuple(range(6, 129)), 12),
    "mp3": CodecFormat(("libmp3lame",), "mp3", 16_000, (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160), 32),
    "gsm": CodecFormat(("libsndfile:GSM610",), "wav", 8_000, (13,), 13),
    "amr": CodecFormat(
        ("libopencore_amrnb",), "amr", 8_000, (4.75, 5.15, 5.9, 6.7, 7.4, 7.95, 10.2, 12.2), 12.2, delay_samples=80
    ),
}


@dataclass(frozen=True)
class Codec:
    """A codec at a bit rate: `Codec("opus", 12)` is Opus at 12 kbit/s."""

    name: str
    kbit_s: float

    def __post_init__(self) -> None:
        if self.name not in CODECS:
            raise SteerOptionError(unknown_name("codec", self.name, CODECS))
        known = CODECS[self.name].kbit_s
        if self.kbit_s not in known:
            raise SteerOptionError(f"{self.name} has no {self.kbit_s:g} kbit/s; it has {', '.join(map(str, known))}")

    @classmethod
    def parse(cls, text: str) -> Codec:
        """`"opus:12"`, or `"opus"` at its usual rate. Raises `SteerOptionError` for anything else."""
        name, colon, rate = text.partition(":")
        if name not in CODECS:
            raise SteerOptionError(unknown_name("codec", name, CODECS))
        return cls(name, number(rate, "bit rate") if colon else CODECS[name].default_kbit_s)

    def __str__(self) -> str:
        return f"{self.name}:{self.kbit_s:g}"


@dataclass(frozen=True)
class Snr:
    """Every speech clip over a recorded noise, not music, at every SNR. All SNRs of a clip have the same noise, so that
    they compare."""

    name: ClassVar[str] = "snr"
    snr_db: tuple[float, ...] = (20.0, 10.0, 5.0, 0.0, -5.0)

    def __post_init__(self) -> None:
        _check_snr(self.snr_db)


@dataclass(frozen=True)
class OverMusic:
    """As `Snr`, over clips of the category music."""

    name: ClassVar[str] = "over_music"
    snr_db: tuple[float, ...] = (10.0, 5.0, 0.0)

    def __post_init__(self) -> None:
        _check_snr(self.snr_db)


@dataclass(frozen=True)
class Long:
    """A few utterances of one speaker somewhere in minutes of non-speech, with the times at which they are said."""

    name: ClassVar[str] = "long"
    snr_db: tuple[float, ...] = (10.0,)
    """One recording each, in turn."""
    min_s: float = 120.0
    max_s: float = 600.0
    utterances: int = 4
    """At most so many in a recording."""

    DEFAULT_COUNT: ClassVar[int] = 20
    """Recordings made when no limit is given."""

    def __post_init__(self) -> None:
        _check_snr(self.snr_db)
        _check_range(self.min_s, self.max_s, least=10.0, most=4 * 3600.0)
        _check_count("utterances", self.utterances)


@dataclass(frozen=True)
class Lengths:
    """Digital silence, dither, white, pink and, if there are clips, recorded noise, in lengths evenly spaced on a log
    scale. Not above ten minutes: silence packs so well that a longer file looks like a bomb to the decoder."""

    name: ClassVar[str] = "lengths"
    min_s: float = 0.3
    max_s: float = 30.0
    steps: int = 13

    def __post_init__(self) -> None:
        _check_range(self.min_s, self.max_s, least=0.01, most=600.0)
        _check_count("steps", self.steps)


@dataclass(frozen=True)
class Telephone:
    """A copy of every clip through a telephone: 300 to 3400 Hz, 8 kHz, mu-law."""

    name: ClassVar[str] = "telephone"


@dataclass(frozen=True)
class CodecCopies:
    """A copy of every clip through every codec."""

    name: ClassVar[str] = "codec"
    codecs: tuple[Codec, ...] = (Codec("opus", 12), Codec("mp3", 32))

    def __post_init__(self) -> None:
        if not self.codecs or len(set(self.codecs)) < len(self.codecs):
            raise SteerOptionError(f"codecs {', '.join(map(str, self.codecs)) or 'none'}: give at least one, each once")


Recipe = Snr | OverMusic | Long | Lengths | Telephone | CodecCopies
RECIPES: dict[str, type[Recipe]] = {kind.name: kind for kind in (Snr, Long, OverMusic, Lengths, Telephone, CodecCopies)}


def make_recipe(name: str, **options: Any) -> Recipe:
    """The recipe `name` with those `options` that are not None, the others as they are by default.

    Raises `SteerOptionError` for an unknown recipe, an option that it does not have, and a value out of range.
    """
    kind = RECIPES.get(name.replace("-", "_"))
    if kind is None:
        raise SteerOptionError(unknown_name("recipe", name, RECIPES))
    given = {key: value for key, value in options.items() if value is not None}
    known = [field.name for field in fields(kind)]
    for key in given.keys() - set(known):
        raise SteerOptionError(f"recipe {kind.name} has no {key}; it has {', '.join(known) or 'no options'}")
    return kind(**given)


def numbers(text: str, what: str) -> tuple[float, ...]:
    """`"20,10,-5"` as numbers; raises `SteerOptionError` naming `what`."""
    return tuple(number(part, what) for part in text.split(","))


def number(text: str, what: str) -> float:
    """One number; raises `SteerOptionError` naming `what`."""
    try:
        value = float(text)
    except ValueError:
        raise SteerOptionError(f"{what} {text!r} is not a number") from None
    return int(value) if value.is_integer() else value


def _check_snr(snr_db: Sequence[float]) -> None:
    low, high = SNR_RANGE_DB
    if not snr_db or len(set(snr_db)) < len(snr_db) or not all(low <= value <= high for value in snr_db):
        raise SteerOptionError(
            f"SNRs {', '.join(map(str, snr_db)) or 'none'}: give at least one, each once, from {low:g} to {high:g} dB"
        )


def _check_range(low_s: float, high_s: float, *, least: float, most: float) -> None:
    if not (math.isfinite(low_s) and math.isfinite(high_s) and least <= low_s <= high_s <= most):
        raise SteerOptionError(
            f"lengths from {low_s} to {high_s} s: the first must be at least {least:g}, the last at most {most:g}"
        )


def _check_count(what: str, value: int) -> None:
    if value < 1:
        raise SteerOptionError(f"{what} {value} is not at least 1")
