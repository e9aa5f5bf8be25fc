"""Which clips, from where, at what SNR: everything that is left to chance, decided before a sample is computed.

    plan = make_plan(load_clips([Path("test_speech.jsonl"), Path("test_nonspeech.jsonl")]), Snr(), seed=0)

The same clips, recipe, limit and seed give the same plan.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from steer_asr.audio import SAMPLE_RATE_HZ, decode_audio
from steer_asr.errors import SteerOptionError
from steer_asr_benchmarks.clips import BenchClip
from steer_asr_benchmarks.mix.levels import FRAME, dbfs, frame_powers
from steer_asr_benchmarks.mix.recipes import (
    MUSIC,
    Codec,
    CodecCopies,
    Lengths,
    Long,
    OverMusic,
    Recipe,
    Snr,
    Telephone,
)

SILENT_DBFS = -70.0
"""Noise quieter than this cannot be set at an SNR."""
QUIET_DB = 10.0
"""How much quieter than its recording a stretch of noise may be, if there is another."""
TRIES = 32
CROSSFADE_S = 0.1
"""Between the recordings behind long ones."""
GAP_S = 1.0
"""Least non-speech before, between and after utterances."""
SOUNDS = ("digital_silence", "dither", "white_noise", "pink_noise")

T = TypeVar("T")
Decode = Callable[[Path], np.ndarray]
Rng = np.random.Generator


@dataclass(frozen=True)
class Excerpt:
    """Part of a clip, from `offset_s` on."""

    named: BenchClip
    offset_s: float


@dataclass(frozen=True)
class Overlay:
    """Speech over noise, as long as the speech."""

    name: str
    speech: BenchClip
    noise: Excerpt
    snr_db: float


@dataclass(frozen=True)
class Utterance:
    """A speech clip that starts at `start_s` of a recording."""

    named: BenchClip
    start_s: float


@dataclass(frozen=True)
class Recording:
    """Utterances over noises that follow each other."""

    name: str
    duration_s: float
    utterances: tuple[Utterance, ...]
    noises: tuple[BenchClip, ...]
    snr_db: float


@dataclass(frozen=True)
class Stretch:
    """A sound of a certain length: one of `SOUNDS`, computed from `seed`, or part of a recording."""

    name: str
    sound: str
    duration_s: float
    seed: int
    recorded: Excerpt | None = None


@dataclass(frozen=True)
class Copy:
    """A clip through a codec, or the telephone when `codec` is None."""

    name: str
    named: BenchClip
    codec: Codec | None = None


Item = Overlay | Recording | Stretch | Copy


def make_plan(
    clips: Sequence[BenchClip],
    recipe: Recipe,
    *,
    seed: int = 0,
    limit: int | None = None,
    decode: Decode = decode_audio,
) -> list[Item]:
    """The items of a test set. Reads the noise that it chooses, to leave out what is silent.

    `limit` is the number of speech clips (`Snr`, `OverMusic`), of clips of each kind (`Telephone`, `CodecCopies`), of
    recordings (`Long`) or of lengths (`Lengths`), spread evenly over all there are. Raises `SteerOptionError` for a
    limit or seed out of range and when the clips lack what the recipe needs, `AudioError` for noise that is broken.
    """
    if seed < 0 or (limit is not None and limit < 1):
        raise SteerOptionError(f"seed {seed} must be at least 0, limit {limit} at least 1")
    split_of(clips)
    rng = np.random.default_rng(seed)
    speech = [named for named in clips if named.clip.kind == "speech"]
    noise = [named for named in clips if named.clip.kind == "nonspeech"]
    other = [named for named in noise if named.clip.category not in MUSIC]
    match recipe:
        case Snr():
            return _overlays(recipe, _needed(speech, "speech", limit), _Noises(other, "noise", decode, rng))
        case OverMusic():
            music = [named for named in noise if named.clip.category in MUSIC]
            return _overlays(recipe, _needed(speech, "speech", limit), _Noises(music, "music", decode, rng))
        case Long():
            return _recordings(recipe, speech, limit, _Noises(noise, "noise", decode, rng))
        case Lengths():
            return _stretches(recipe, limit, _Noises(noise, "noise", decode, rng) if noise else None, rng)
        case Telephone() | CodecCopies():
            return _copies(recipe, clips, limit)


def split_of(clips: Sequence[BenchClip]) -> str:
    """The split that all clips are of, "" if none says. Raises `SteerOptionError` when there are several: a test set
    that holds noise of the training set measures nothing."""
    splits = sorted({named.clip.split for named in clips} - {""})
    if len(splits) > 1:
        raise SteerOptionError(f"the clips are of several splits ({', '.join(splits)}); give manifests of one")
    return splits[0] if splits else ""


class _Noises:
    """Recordings drawn in random order, each once before any comes again; silent ones are passed over."""

    def __init__(self, clips: Sequence[BenchClip], what: str, decode: Decode, rng: Rng) -> None:
        if not clips:
            raise SteerOptionError(f"there is no {what} among the clips; give a manifest that has some")
        self._clips, self._what, self._decode, self._rng = clips, what, decode, rng
        self._deck: list[int] = []
        self._powers: dict[str, np.ndarray] = {}

    @property
    def rng(self) -> Rng:
        return self._rng

    def draw(self) -> BenchClip:
        """The next one that is not silent."""
        for _ in range(2 * len(self._clips)):
            self._deck = self._deck or self._rng.permutation(len(self._clips)).tolist()
            named = self._clips[self._deck.pop()]
            if dbfs(float(self.powers(named).mean())) >= SILENT_DBFS:
                return named
        raise SteerOptionError(f"all {len(self._clips)} clips of {self._what} are silent (below {SILENT_DBFS:g} dBFS)")

    def powers(self, named: BenchClip) -> np.ndarray:
        """Power of each 20-ms frame."""
        if named.id not in self._powers:
            self._powers[named.id] = frame_powers(self._decode(named.clip.audio_path))
        return self._powers[named.id]

    def excerpt(self, needed_s: float) -> Excerpt:
        """A random place in the next one, where it is not much quieter than elsewhere (barking has long pauses)."""
        named = self.draw()
        powers = self.powers(named)
        needed = round(needed_s * SAMPLE_RATE_HZ / FRAME) + 1
        room = len(powers) - needed if len(powers) > needed else len(powers)
        starts = self._rng.integers(0, max(1, room), size=TRIES)
        stretch = np.arange(min(needed, len(powers)))
        found = [float(powers[(start + stretch) % len(powers)].mean()) for start in starts]
        loud_enough = [i for i, value in enumerate(found) if value >= powers.mean() * 10 ** (-QUIET_DB / 10)]
        best = loud_enough[0] if loud_enough else int(np.argmax(found))
        return Excerpt(named, round(int(starts[best]) * FRAME / SAMPLE_RATE_HZ, 2))


def _overlays(recipe: Snr | OverMusic, speech: Sequence[BenchClip], noises: _Noises) -> list[Item]:
    pairs = [(named, noises.excerpt(named.clip.duration_s)) for named in speech]
    mixes = [(named, noise, snr_db) for named, noise in pairs for snr_db in recipe.snr_db]
    return [Overlay(f"{recipe.name}-{i:05d}", *mix) for i, mix in enumerate(mixes)]


def _recordings(recipe: Long, speech: Sequence[BenchClip], limit: int | None, noises: _Noises) -> list[Item]:
    brief = [named for named in speech if named.clip.duration_s <= recipe.min_s / 8]
    if not brief:
        raise SteerOptionError(
            f"recordings of {recipe.min_s:g} s need speech clips of at most {recipe.min_s / 8:g} s; there are none"
        )
    count = limit or min(recipe.DEFAULT_COUNT, len(brief))
    return [_recording(recipe, i, brief[i * len(brief) // count % len(brief)], brief, noises) for i in range(count)]


def _recording(recipe: Long, i: int, first: BenchClip, speech: Sequence[BenchClip], noises: _Noises) -> Recording:
    """Utterances are of one group and language: statistics draw by group, and a recording cannot be in two."""
    rng = noises.rng
    duration_s = round(rng.uniform(recipe.min_s, recipe.max_s), 2)
    same = [
        named
        for named in speech
        if (named.clip.group, named.clip.lang) == (first.clip.group, first.clip.lang) and named is not first
    ]
    more = rng.permutation(len(same))[: rng.integers(0, recipe.utterances)]
    picked = [first, *(same[j] for j in more)]
    while len(picked) > 1 and sum(_room_s(named) for named in picked) > duration_s - GAP_S:
        picked.pop()
    picked = [picked[j] for j in rng.permutation(len(picked))]
    beds, bed_powers = [], np.zeros(0)
    while len(bed_powers) * FRAME < duration_s * SAMPLE_RATE_HZ:
        beds.append(noises.draw())
        powers = noises.powers(beds[-1])
        kept = max(1, len(powers) - round(CROSSFADE_S * SAMPLE_RATE_HZ / FRAME))
        bed_powers = np.concatenate([bed_powers, powers[:kept] / powers.mean()])
    starts = _layout([named.clip.duration_s for named in picked], duration_s, bed_powers, rng)
    utterances = tuple(Utterance(named, start) for named, start in zip(picked, starts, strict=True))
    snr_db = recipe.snr_db[i % len(recipe.snr_db)]
    return Recording(f"{recipe.name}-{i:05d}", duration_s, utterances, tuple(beds), snr_db)


def _layout(durations_s: Sequence[float], total_s: float, bed_powers: np.ndarray, rng: Rng) -> list[float]:
    """When each utterance starts, in seconds: of some random ways the one whose noise is most like the noise elsewhere.

    One gain sets the noise of the whole recording, so speech that fell into a pause of it would make the rest roar.
    """
    gaps_n = len(durations_s) + 1
    before = np.cumsum([0.0, *durations_s[:-1]])
    free_s = total_s - sum(durations_s) - GAP_S * gaps_n

    def unevenness(starts: np.ndarray) -> float:
        spans = [
            bed_powers[int(start * 50) : int((start + length) * 50) + 1].mean()
            for start, length in zip(starts, durations_s, strict=True)
        ]
        return max(abs(dbfs(float(span) / float(bed_powers.mean()) + 1e-9)) for span in spans)

    layouts = [before + np.cumsum(GAP_S + free_s * rng.dirichlet(np.ones(gaps_n)))[:-1] for _ in range(TRIES)]
    return [round(float(start), 3) for start in min(layouts, key=unevenness)]


def _room_s(named: BenchClip) -> float:
    return named.clip.duration_s + GAP_S


def _stretches(recipe: Lengths, limit: int | None, noises: _Noises | None, rng: Rng) -> list[Item]:
    lengths_s = np.geomspace(recipe.min_s, recipe.max_s, recipe.steps).round(3).tolist()
    items: list[Item] = []
    for length_s in _spread(lengths_s, limit):
        for sound in SOUNDS:
            items.append(Stretch(f"{recipe.name}-{len(items):05d}", sound, length_s, _seed(rng)))
        if noises is not None:
            recorded = noises.excerpt(length_s)
            items.append(Stretch(f"{recipe.name}-{len(items):05d}", "recorded", length_s, _seed(rng), recorded))
    return items


def _copies(recipe: Telephone | CodecCopies, clips: Sequence[BenchClip], limit: int | None) -> list[Item]:
    by_kind = [[named for named in clips if named.clip.kind == kind] for kind in ("speech", "nonspeech", "mixed")]
    kept = [named for of_kind in by_kind for named in _spread(of_kind, limit)]
    if not kept:
        raise SteerOptionError(f"recipe {recipe.name} copies clips, and there are none; give a manifest")
    codecs = recipe.codecs if isinstance(recipe, CodecCopies) else (None,)
    made = [(named, codec) for named in kept for codec in codecs]
    return [Copy(f"{recipe.name}-{i:05d}", named, codec) for i, (named, codec) in enumerate(made)]


def _needed(clips: Sequence[BenchClip], what: str, limit: int | None) -> list[BenchClip]:
    if not clips:
        raise SteerOptionError(f"there is no {what} among the clips; give a manifest that has some")
    return _spread(clips, limit)


def _spread(values: Sequence[T], limit: int | None) -> list[T]:
    """At most `limit`, from all over: neighbours in a manifest are alike."""
    n = len(values) if limit is None else min(limit, len(values))
    return [values[i * len(values) // n] for i in range(n)]


def _seed(rng: Rng) -> int:
    return int(rng.integers(0, 2**31))
