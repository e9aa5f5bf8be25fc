"""The audio a steer pack is learned from: which windows there are, and how each one sounds.

    plan = plan_windows(clips, DataConfig(), seed=0)       # deterministic list of WindowSpec
    wave = render(plan[0], clips)                          # float32, 16 kHz, at most 30 s

Recorded clips come as they are, and again cut short, repeated, made quiet, sent through a telephone, laid over each
other; speech comes again over noise and music; both come again disguised (`alter.py`); synthetic sounds fill the gaps.
Short words are kept short: they are what a careless edit silences first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np

from steer_asr.audio import SAMPLE_RATE_HZ, decode_audio
from steer_asr.errors import SteerOptionError
from steer_asr.manifest import Clip
from steer_asr_training.alter import apart, disguise, telephone
from steer_asr_training.synth import GENERATORS, synthesize

WINDOW_S = 30.0
Treatment = Literal["plain", "varied", "noisy", "placed", "disguised", "synthetic"]


@dataclass(frozen=True)
class DataConfig:
    """How many windows of each sort. Recorded clips are used once as they are, then again with changes."""

    plain_speech: int = 0
    """At most so many speech clips as they are, short ones first; 0 is all."""
    varied_nonspeech: int = 350
    """Recorded non-speech again: cut, repeated, overlaid, quieter, through a telephone."""
    synthetic_nonspeech: int = 300
    """Windows from `synth.py`, spread evenly over its generators."""
    noisy_speech: int = 350
    """Speech over recorded or synthetic non-speech."""
    placed_speech: int = 100
    """One or two short utterances with silence before, between and after."""
    disguised_speech: int = 400
    """Speech in another voice, room or line, backwards, or in single words with pauses: languages and speakers that
    the collection lacks."""
    disguised_nonspeech: int = 250
    """Non-speech through the same changes."""
    snr_db: tuple[float, float] = (0.0, 20.0)
    """Range of signal-to-noise ratios of `noisy_speech`, uniform."""
    max_music_share: float = 0.4
    """Largest share of music and game effects among recorded non-speech clips."""
    only_shippable: bool = True
    """Use only clips whose licence allows a pack trained on them to be shipped."""
    max_windows: int = 0
    """Take only so many windows of the shuffled plan; 0 is all."""


@dataclass(frozen=True)
class WindowSpec:
    """One window: the clips it is made of (indices), what is done to them, and the seed of the rest."""

    kind: Literal["speech", "nonspeech"]
    treatment: Treatment
    clips: tuple[int, ...]
    seed: int
    source: str
    group: str
    lang: str = ""
    generator: str = ""
    snr_db: float = 99.0
    """Signal-to-noise ratio of a "noisy" window; 99 for the others."""

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def plan_windows(clips: Sequence[Clip], config: DataConfig, seed: int) -> list[WindowSpec]:
    """The windows for `config`, in a shuffled order that depends on `seed` alone.

    Raises `SteerOptionError` when there is no speech or no non-speech to learn from.
    """
    rng = np.random.default_rng(seed)
    usable = [i for i, clip in enumerate(clips) if clip.shippable or not config.only_shippable]
    speech = [i for i in usable if clips[i].kind == "speech"]
    nonspeech = _limit_music([i for i in usable if clips[i].kind == "nonspeech"], clips, config.max_music_share, rng)
    if not speech or not nonspeech:
        raise SteerOptionError(
            f"learning needs both sorts of audio: found {len(speech)} speech and {len(nonspeech)} non-speech clips"
            + (" with a shippable licence" if config.only_shippable else "")
        )

    def spec(kind: Literal["speech", "nonspeech"], treatment: Treatment, picked: Sequence[int]) -> WindowSpec:
        first = clips[picked[0]]
        return WindowSpec(kind, treatment, tuple(picked), _seed(rng), first.source, first.group, first.lang)

    plain = _short_first(speech, clips, rng)[: config.plain_speech] if config.plain_speech else speech
    plan = [spec("nonspeech", "plain", [i]) for i in nonspeech] + [spec("speech", "plain", [i]) for i in plain]
    for _ in range(config.varied_nonspeech):
        plan.append(spec("nonspeech", "varied", rng.choice(nonspeech, size=rng.integers(1, 4)).tolist()))
    for _ in range(config.noisy_speech):
        pair = spec("speech", "noisy", [int(rng.choice(speech)), int(rng.choice(nonspeech))])
        plan.append(replace(pair, snr_db=float(rng.uniform(*config.snr_db))))
    brief = [i for i in speech if clips[i].duration_s < 6.0] or speech
    for _ in range(config.placed_speech):
        plan.append(spec("speech", "placed", rng.choice(brief, size=rng.integers(1, 3)).tolist()))
    for _ in range(config.disguised_speech):
        plan.append(spec("speech", "disguised", rng.choice(speech, size=rng.integers(1, 3)).tolist()))
    for _ in range(config.disguised_nonspeech):
        plan.append(spec("nonspeech", "disguised", rng.choice(nonspeech, size=rng.integers(1, 3)).tolist()))
    for n in range(config.synthetic_nonspeech):
        generator = list(GENERATORS)[n % len(GENERATORS)]
        plan.append(
            WindowSpec("nonspeech", "synthetic", (), _seed(rng), "synthetic", f"synthetic/{n}", generator=generator)
        )
    return [plan[i] for i in rng.permutation(len(plan))[: config.max_windows or None]]


def _limit_music(nonspeech: list[int], clips: Sequence[Clip], share: float, rng: np.random.Generator) -> list[int]:
    music = [i for i in nonspeech if clips[i].category in ("music", "sfx", "synth")]
    other = [i for i in nonspeech if i not in set(music)]
    allowed = len(music) if not other else int(share / (1 - share) * len(other))
    return sorted(other + rng.permutation(music)[:allowed].tolist())


def _short_first(speech: list[int], clips: Sequence[Clip], rng: np.random.Generator) -> list[int]:
    """Short words are the danger, so where clips are left out, long ones go first; half the order is left to chance."""
    key = {i: clips[i].duration_s * rng.uniform(0, 2) for i in speech}
    return sorted(speech, key=lambda i: key[i])


def render(spec: WindowSpec, clips: Sequence[Clip]) -> np.ndarray:
    """The waveform of a window: float32 [n_samples], at least 0.1 s and at most 30 s. Reads the audio files."""
    rng = np.random.default_rng(spec.seed)
    limit = int(WINDOW_S * SAMPLE_RATE_HZ)
    if spec.treatment == "synthetic":
        return synthesize(spec.generator, rng, _duration_s(rng))[:limit]
    waves = [decode_audio(clips[i].audio_path) for i in spec.clips]
    if spec.treatment == "varied":
        wave = _vary(waves, rng)
    elif spec.treatment == "noisy":
        wave = _over_noise(waves[0], waves[1], spec.snr_db, rng)
    elif spec.treatment == "placed":
        wave = _place(waves, rng)
    elif spec.treatment == "disguised":
        wave = disguise(apart(waves, rng) if rng.random() < 0.5 else waves[0][: 8 * SAMPLE_RATE_HZ], rng)
    else:
        wave = waves[0]
    return wave[:limit].astype(np.float32)


def _vary(waves: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    wave = _fit(waves[0], int(_duration_s(rng) * SAMPLE_RATE_HZ), rng)
    for other in waves[1:]:
        wave = wave + 10 ** (rng.uniform(-15, 5) / 20) * _fit(other, len(wave), rng)
    if rng.random() < 0.25:
        wave = telephone(wave, rng)
    return np.clip(wave * 10 ** (rng.uniform(-40, 3) / 20), -1, 1)


def _over_noise(speech: np.ndarray, noise: np.ndarray, snr_db: float, rng: np.random.Generator) -> np.ndarray:
    if rng.random() < 0.3:
        noise = synthesize(str(rng.choice(["coloured_noise", "band_noise", "hum", "music"])), rng, 10.0)
    noise = _fit(noise, len(speech), rng)
    gain = np.sqrt(_power(speech) / max(1e-12, _power(noise))) * 10 ** (-snr_db / 20)
    mixed = speech + gain * noise
    return (mixed / max(1.0, float(np.abs(mixed).max()))).astype(np.float32)


def _place(waves: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    floor_db = rng.uniform(-90, -50)
    parts: list[np.ndarray] = []
    for wave in waves:
        parts += [np.zeros(int(rng.uniform(0.2, 6.0) * SAMPLE_RATE_HZ), np.float32), wave]
    parts.append(np.zeros(int(rng.uniform(0.2, 8.0) * SAMPLE_RATE_HZ), np.float32))
    joined = np.concatenate(parts)[: int(WINDOW_S * SAMPLE_RATE_HZ)]
    return joined + (rng.standard_normal(len(joined)) * 10 ** (floor_db / 20)).astype(np.float32)


def _duration_s(rng: np.random.Generator) -> float:
    """Window lengths: a quarter are full windows, the rest spread evenly on a log scale from 0.3 to 30 s."""
    return WINDOW_S if rng.random() < 0.25 else float(np.exp(rng.uniform(np.log(0.3), np.log(WINDOW_S))))


def _fit(wave: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """`n` samples of `wave` from a random place, repeated when it is shorter."""
    if len(wave) < n:
        wave = np.tile(wave, -(-n // max(1, len(wave))))
    start = int(rng.integers(0, len(wave) - n + 1))
    return wave[start : start + n]


def _power(wave: np.ndarray) -> float:
    return float(np.mean(np.square(wave, dtype=np.float64)))


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(0, 2**31))
