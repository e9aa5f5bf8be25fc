"""A decoder process that does what an upload says, as one that an exploit has taken over would.

Everything but the decoding itself is the real `sandbox_worker`. An upload that is no order is decoded.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import socket
import sys
import time
from typing import Any

import numpy as np

from steer_asr.audio import AudioLimits
from steer_asr.errors import AudioError
from steer_asr_serving import sandbox_worker

decode_audio = sandbox_worker.decode_audio
REPLIES: dict[str, bytes] = {
    "a lot": sandbox_worker.LENGTHS.pack(2, 1 << 40) + b"{}",
    "a long header": sandbox_worker.LENGTHS.pack(1 << 30, 0),
    "half a sample": sandbox_worker.LENGTHS.pack(15, 3) + b'{"warnings":[]}' + bytes(3),
    "no json": sandbox_worker.LENGTHS.pack(4, 0) + b"{]}{",
    "a pickle": sandbox_worker.LENGTHS.pack(len(pickle.dumps(print)), 0) + pickle.dumps(print),
    "another error": sandbox_worker.LENGTHS.pack(41, 0) + b'{"error": "SystemExit", "message": "leave"}  ',
}
"""What it may write instead of an answer."""


def obeying(data: Any, *, limits: AudioLimits) -> np.ndarray:
    """Stands for `decode_audio`."""
    if not data.startswith(b"order:"):
        return decode_audio(data, limits=limits)
    order = data.decode().removeprefix("order:")
    match order:
        case "crash":
            ctypes.string_at(0)
        case "stumble":
            raise ZeroDivisionError("in the parser")
        case "exit":
            os._exit(0)
        case "spin":
            while True:
                pass
        case "sleep":
            time.sleep(600)
        case "eat":
            bytearray(1 << 40)
        case "open":
            _reported(lambda: os.open("/dev/zero", os.O_RDONLY))
        case "connect":
            _reported(socket.socket)
        case "fork":
            _reported(os.fork)
        case "raise limits":
            _reported(lambda: sandbox_worker.resource.setrlimit(sandbox_worker.resource.RLIMIT_NOFILE, (64, 64)))
        case "who":
            raise AudioError(f"{os.geteuid()} {sorted(os.environ)}")
        case _:
            os.write(sys.stdin.fileno(), REPLIES[order])
            time.sleep(600)
    raise AssertionError(order)


def _reported(attempt: Any) -> None:
    try:
        attempt()
    except (OSError, ValueError) as error:
        raise AudioError(f"refused: {error}") from None
    raise AudioError("it worked")


if __name__ == "__main__":
    sandbox_worker.decode_audio = obeying
    sandbox_worker.main()
