"""Sends audio files to a Wyoming speech-to-text server and prints what it answers, one line a file.

    python wyoming_client.py PORT FILE...

Runs in the environment of the server (`wyoming` and PyAV, which faster-whisper brings), without steer_asr.
"""

from __future__ import annotations

import asyncio
import sys
import time

import numpy as np
from faster_whisper.audio import decode_audio  # pyright: ignore[reportMissingImports]
from wyoming.asr import Transcribe, Transcript  # pyright: ignore[reportMissingImports]
from wyoming.audio import AudioChunk, AudioStart, AudioStop  # pyright: ignore[reportMissingImports]
from wyoming.client import AsyncTcpClient  # pyright: ignore[reportMissingImports]

RATE_HZ = 16_000
PATIENCE_S = 180.0


async def transcribe(port: int, path: str) -> str:
    samples = (np.asarray(decode_audio(path, sampling_rate=RATE_HZ)) * 32767).astype("<i2").tobytes()
    async with AsyncTcpClient("127.0.0.1", port) as client:
        await client.write_event(Transcribe(language="en").event())
        await client.write_event(AudioStart(rate=RATE_HZ, width=2, channels=1).event())
        for start in range(0, len(samples), 2 * RATE_HZ):
            piece = samples[start : start + 2 * RATE_HZ]
            await client.write_event(AudioChunk(rate=RATE_HZ, width=2, channels=1, audio=piece).event())
        await client.write_event(AudioStop().event())
        while event := await client.read_event():
            if Transcript.is_type(event.type):
                return " ".join(Transcript.from_event(event).text.split())
    raise ConnectionError(f"the server answered nothing about {path}")


async def wait_for(port: int) -> None:
    """The server listens once its model is loaded."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.5)
        else:
            writer.close()
            return


async def main() -> None:
    port = int(sys.argv[1])
    await wait_for(port)
    for path in sys.argv[2:]:
        print(await transcribe(port, path), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
