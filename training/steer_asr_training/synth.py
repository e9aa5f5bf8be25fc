"""Synthetic non-speech: the sounds that make Whisper talk and that need no licence.

    wave = synthesize("hum", np.random.default_rng(0), duration_s=5.0)      # float32, 16 kHz, mono

Used beside recorded sounds when a steer pack is learned, and by the demo. Every generator is a pure function of its
random generator, so a seed gives the same sound anywhere.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

SAMPLE_RATE_HZ = 16_000
Rng = np.random.Generator
Wave = np.ndarray  # float32 [n_samples]


def coloured_noise(rng: Rng, n: int) -> Wave:
    """Noise with a spectrum of f^-a, a in [-1, 2] (blue to brown), its level drifting slowly."""
    spectrum = np.fft.rfft(rng.standard_normal(n))
    frequency = np.maximum(np.fft.rfftfreq(n, 1 / SAMPLE_RATE_HZ), 20.0)
    noise = np.fft.irfft(spectrum * frequency ** (-rng.uniform(-1.0, 2.0) / 2), n)
    return noise * _drift(rng, n)


def band_noise(rng: Rng, n: int) -> Wave:
    """Wind, rain, a fan: noise in one band, gusting."""
    low = 10 ** rng.uniform(1.5, 3.5)
    high = low * rng.uniform(1.5, 8.0)
    spectrum = np.fft.rfft(rng.standard_normal(n))
    frequency = np.fft.rfftfreq(n, 1 / SAMPLE_RATE_HZ)
    spectrum *= 1 / (1 + (low / np.maximum(frequency, 1)) ** 4) / (1 + (frequency / high) ** 4)
    return np.fft.irfft(spectrum, n) * _drift(rng, n, rate_hz=rng.uniform(0.2, 6.0), depth=rng.uniform(0, 0.9))


def hum(rng: Rng, n: int) -> Wave:
    """Mains hum: 50 or 60 Hz, its harmonics, and a noise floor."""
    t, base = _time(n), rng.choice([50.0, 60.0]) * rng.uniform(0.995, 1.005)
    partials = range(1, int(rng.integers(2, 12)))
    wave = sum(rng.exponential(1 / k) * np.sin(2 * np.pi * k * base * t + rng.uniform(0, 6.28)) for k in partials)
    return wave + rng.standard_normal(n) * 10 ** rng.uniform(-4, -1.5)


def clicks(rng: Rng, n: int) -> Wave:
    """Clicks, ticks, typing, crackle: short decaying bursts, regular or random, over a faint floor."""
    wave = rng.standard_normal(n) * 10 ** rng.uniform(-5, -3)
    rate = 10 ** rng.uniform(-0.3, 1.5)
    count = max(1, int(rate * n / SAMPLE_RATE_HZ))
    starts = np.linspace(0, n - 1, count) if rng.random() < 0.5 else rng.uniform(0, n - 1, count)
    ring_hz, decay_s = 10 ** rng.uniform(2.5, 3.8), 10 ** rng.uniform(-3.3, -1.6)
    tail = _time(int(6 * decay_s * SAMPLE_RATE_HZ) + 1)
    for start in starts.astype(int):
        burst = np.exp(-tail / decay_s) * (np.sin(2 * np.pi * ring_hz * tail) + 0.5 * rng.standard_normal(len(tail)))
        end = min(n, start + len(burst))
        wave[start:end] += rng.uniform(0.3, 1.0) * burst[: end - start]
    return wave


def tones(rng: Rng, n: int) -> Wave:
    """Telephone and alarm tones: one or two sines (dial, busy, ringing, DTMF, beeps), switched on and off."""
    t = _time(n)
    wave = np.zeros(n)
    for _ in range(rng.integers(1, 3)):
        wave += np.sin(2 * np.pi * 10 ** rng.uniform(2.3, 3.4) * t + rng.uniform(0, 6.28))
    if rng.random() < 0.75:
        period, duty = rng.uniform(0.1, 4.0), rng.uniform(0.2, 0.8)
        wave = wave * ((t % period) < duty * period)
    return wave + rng.standard_normal(n) * 10 ** rng.uniform(-6, -2)


def chirps(rng: Rng, n: int) -> Wave:
    """Birds, sirens, cries: harmonic glides with random contours and gaps. Voiced, pitched, and not speech."""
    wave = np.zeros(n)
    position = int(rng.uniform(0, 0.3) * SAMPLE_RATE_HZ)
    base = 10 ** rng.uniform(2.2, 3.5)
    while position < n:
        length = min(n - position, int(rng.uniform(0.05, 1.2) * SAMPLE_RATE_HZ))
        t = _time(length)
        contour = base * np.exp(np.cumsum(rng.standard_normal(length)) * 2e-3 + rng.uniform(-0.8, 0.8) * t)
        phase = 2 * np.pi * np.cumsum(contour) / SAMPLE_RATE_HZ
        partials = range(1, int(rng.integers(2, 7)))
        wave[position : position + length] += np.hanning(length) * sum(np.sin(k * phase) / k for k in partials)
        position += length + int(rng.exponential(0.4) * SAMPLE_RATE_HZ)
    return wave + rng.standard_normal(n) * 10 ** rng.uniform(-5, -2)


def engine(rng: Rng, n: int) -> Wave:
    """Motors, saws, purring: a pulse train whose rate wanders, through a resonance, with broadband wear."""
    rate = 10 ** rng.uniform(0.8, 2.2) * _drift(rng, n, rate_hz=0.3, depth=0.4)
    phase = np.cumsum(rate) / SAMPLE_RATE_HZ
    pulse = np.exp(-((phase % 1.0) ** 2) / 10 ** rng.uniform(-3, -1))
    return pulse - pulse.mean() + 0.3 * band_noise(rng, n) * rng.uniform(0, 1)


def music(rng: Rng, n: int) -> Wave:
    """Instrumental music: chords, a bass line, a melody and drums, in a random key, tempo and timbre."""
    wave = np.zeros(n)
    beat_s = 60 / rng.uniform(60, 170)
    scale = np.array([0, 2, 4, 5, 7, 9, 11] if rng.random() < 0.5 else [0, 2, 3, 5, 7, 8, 10])
    root_hz = 55 * 2 ** (rng.integers(0, 12) / 12)
    timbres = [_timbre(rng) for _ in range(3)]
    with_drums, with_melody, with_chords = rng.random(3) < (0.6, 0.8, 0.7)
    degree = 0
    for beat in range(int(n / SAMPLE_RATE_HZ / beat_s) + 1):
        at = int(beat * beat_s * SAMPLE_RATE_HZ)
        if beat % 4 == 0:
            degree = int(rng.choice([0, 3, 4, 5]))
            for step in (0, 2, 4) if with_chords else (0,):
                _add(wave, at, _note(timbres[0], _pitch(root_hz * 2, scale, degree + step), 4 * beat_s), 0.3)
        _add(wave, at, _note(timbres[1], _pitch(root_hz, scale, degree), beat_s), 0.4)
        if with_melody and rng.random() < 0.8:
            pitch = _pitch(root_hz * 4, scale, degree + int(rng.integers(-3, 8)))
            _add(wave, at, _note(timbres[2], pitch, beat_s * rng.choice([0.5, 1.0, 2.0])), 0.5)
        if with_drums:
            _add(wave, at, _drum(rng, kick=beat % 2 == 0), 0.7)
    return wave


def breaths(rng: Rng, n: int) -> Wave:
    """Breathing, coughs, clothes: bursts of noise shaped by two broad resonances, with long gaps."""
    wave = rng.standard_normal(n) * 10 ** rng.uniform(-5, -3)
    position = int(rng.uniform(0, 0.5) * SAMPLE_RATE_HZ)
    while position < n:
        length = int(rng.uniform(0.08, 1.5) * SAMPLE_RATE_HZ)
        burst = band_noise(rng, length) * np.hanning(length) ** rng.uniform(0.3, 2)
        _add(wave, position, burst / max(1e-9, float(np.abs(burst).max())), rng.uniform(0.3, 1.0))
        position += length + int(rng.uniform(0.1, 2.5) * SAMPLE_RATE_HZ)
    return wave


def silence(rng: Rng, n: int) -> Wave:
    """Digital silence, a constant offset, or one step of 16-bit dither."""
    kind = rng.integers(0, 3)
    if kind == 0:
        return np.zeros(n)
    return np.full(n, rng.uniform(-0.01, 0.01)) if kind == 1 else rng.integers(-1, 2, n) / 32768


GENERATORS: dict[str, Callable[[Rng, int], Wave]] = {
    f.__name__: f for f in (coloured_noise, band_noise, hum, clicks, tones, chirps, engine, music, breaths, silence)
}


def synthesize(kind: str, rng: Rng, duration_s: float) -> Wave:
    """One sound of a kind in `GENERATORS`: float32 [n_samples], peak between -50 and 0 dBFS (silence stays silent)."""
    wave = GENERATORS[kind](rng, max(1, round(duration_s * SAMPLE_RATE_HZ)))
    if kind != "silence":
        wave = wave / max(1e-9, float(np.abs(wave).max())) * 10 ** (rng.uniform(-50, 0) / 20)
    return wave.astype(np.float32)


def _time(n: int) -> Wave:
    return np.arange(n) / SAMPLE_RATE_HZ


def _drift(rng: Rng, n: int, rate_hz: float = 0.5, depth: float = 0.5) -> Wave:
    """A random envelope around 1 that changes about `rate_hz` times a second."""
    knots = max(2, int(n / SAMPLE_RATE_HZ * rate_hz) + 2)
    return 1 + depth * np.interp(np.linspace(0, knots - 1, n), np.arange(knots), rng.uniform(-1, 1, knots))


def _timbre(rng: Rng) -> tuple[np.ndarray, float]:
    """Amplitudes of the partials and the decay time in seconds."""
    return rng.exponential(1.0, 8) / np.arange(1, 9) ** rng.uniform(0.5, 2), 10 ** rng.uniform(-0.8, 0.5)


def _pitch(root_hz: float, scale: np.ndarray, degree: int) -> float:
    return root_hz * 2 ** ((12 * (degree // 7) + scale[degree % 7]) / 12)


def _note(timbre: tuple[np.ndarray, float], hz: float, duration_s: float) -> Wave:
    amplitudes, decay_s = timbre
    t = _time(int(duration_s * SAMPLE_RATE_HZ))
    audible = [(k, a) for k, a in enumerate(amplitudes, 1) if k * hz < SAMPLE_RATE_HZ / 2]
    wave = sum((a * np.sin(2 * np.pi * k * hz * t) for k, a in audible), np.zeros(len(t)))
    return wave * np.exp(-t / decay_s) * np.minimum(1, t / 0.01)


def _drum(rng: Rng, *, kick: bool) -> Wave:
    t = _time(int(0.2 * SAMPLE_RATE_HZ))
    if kick:
        return np.sin(2 * np.pi * (50 * t + 8 * (1 - np.exp(-t * 40)))) * np.exp(-t * 20)
    return rng.standard_normal(len(t)) * np.exp(-t * 40)


def _add(wave: Wave, at: int, sound: Wave, gain: float) -> None:
    end = min(len(wave), at + len(sound))
    if at < end:
        wave[at:end] += gain * sound[: end - at]
