"""The other end of `sandbox`: a process that decodes uploads and can do little else.

Not for people: `sandbox` starts it with a plan, and talks to it over its standard input, which is a socket. A message
is a JSON object and bytes, with the lengths of both in front. Nothing is pickled: what a process that reads hostile
files sends back must not be able to make anything run.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import io
import json
import logging
import math
import os
import resource
import socket
import struct
import sys
import wave
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

from steer_asr import audio
from steer_asr.audio import AudioLimits, decode_audio
from steer_asr.errors import AudioError, AudioLimitError

LENGTHS = struct.Struct("!IQ")
"""Bytes of JSON, bytes after it."""
MAX_HEADER_BYTES = 1 << 16
BLOCK_BYTES = 1 << 20
NOBODY = 65_534
PR_SET_NO_NEW_PRIVS = 38
ERRORS = {"AudioError": AudioError, "AudioLimitError": AudioLimitError}
"""Errors that may come back, by name."""
OUT_OF_MEMORY, UNEXPECTED = "out of memory", "unexpected"


@dataclass(frozen=True)
class Plan:
    """What one process may use."""

    limits: AudioLimits
    cpu_s: float
    """CPU seconds for one upload."""
    memory_bytes: int
    """Address space on top of what it has before its first upload."""
    uploads: int
    """Uploads before it is replaced."""

    def as_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        fields = json.loads(text)
        return cls(**fields | {"limits": AudioLimits(**fields["limits"])})


def main() -> None:
    """Decodes what arrives until the other side closes."""
    plan = Plan.from_json(sys.argv[1])
    channel = socket.socket(fileno=sys.stdin.fileno())
    _load_everything()
    seal(plan)
    send(channel, {"ready": True})
    gc.freeze()
    while _answer_one(channel, plan):
        gc.collect()  # PyAV's objects refer to each other, and an hour of samples should not wait for the next time


def _answer_one(channel: socket.socket, plan: Plan) -> bool:
    """False when nothing more comes. A function, so that an upload and its samples are gone before the next."""
    message = receive(channel)
    if message is None:
        return False
    _allow_cpu(plan.cpu_s)
    header, samples = decoded(message[1], plan.limits)
    send(channel, header, samples)
    return True


def decoded(data: bytearray, limits: AudioLimits) -> tuple[dict[str, Any], memoryview]:
    """The answer to one upload: its samples (float32 at 16 kHz), or what is wrong with it."""
    nothing = memoryview(b"")
    with _heard(audio.logger) as warnings:
        try:
            samples = decode_audio(data, limits=limits)  # pyright: ignore[reportArgumentType]  (it takes them too)
        except MemoryError:
            return {"error": OUT_OF_MEMORY}, nothing
        except AudioError as error:
            if isinstance(error.__cause__, MemoryError):  # FFmpeg's
                return {"error": OUT_OF_MEMORY}, nothing
            kind = "AudioLimitError" if isinstance(error, AudioLimitError) else "AudioError"
            return {"error": kind, "message": str(error)[:1000]}, nothing
        except Exception as error:  # nobody expected it; the log of the server is where it can be read
            return {"error": UNEXPECTED, "message": f"{type(error).__name__}: {error}"[:1000]}, nothing
    return {"warnings": warnings[:5]}, samples.data.cast("B") if samples.size else nothing


def seal(plan: Plan) -> None:
    """Gives up everything that decoding does not need. What the system does not have is left out (macOS)."""
    address_space = _address_space_bytes()
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, sys.stderr.fileno())  # what FFmpeg says there is the client's text
    os.close(null)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):  # a user namespace without that user
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_NPROC, 0)  # no processes, no threads
    _limit(resource.RLIMIT_NOFILE, 0)  # no files, no connections; what is open stays open
    _limit(resource.RLIMIT_CPU, math.ceil(plan.uploads * (plan.cpu_s + 1)) + 60)
    if address_space:
        _limit(resource.RLIMIT_AS, address_space + plan.memory_bytes)


def send(channel: socket.socket, header: dict[str, Any], payload: bytes | memoryview = b"") -> None:
    """One message. Raises `OSError` when it cannot be sent."""
    text = json.dumps(header).encode()
    channel.sendall(LENGTHS.pack(len(text), len(payload)) + text)
    channel.sendall(payload)


def send_file(channel: socket.socket, file: BinaryIO) -> None:
    """The rest of a file as one message, block by block."""
    start = file.tell()
    size = file.seek(0, os.SEEK_END) - start
    file.seek(start)
    channel.sendall(LENGTHS.pack(2, size) + b"{}")
    while block := file.read(BLOCK_BYTES):
        channel.sendall(block)


def receive(channel: socket.socket) -> tuple[dict[str, Any], bytearray] | None:
    """The next message, or None when there is none because the other side has ended."""
    try:
        lengths = receive_into(channel, bytearray(LENGTHS.size))
    except EOFError:
        return None
    header_bytes, payload_bytes = LENGTHS.unpack(lengths)
    header = json.loads(receive_into(channel, bytearray(header_bytes)))
    return header, receive_into(channel, bytearray(payload_bytes))


def receive_into(channel: socket.socket, buffer: bytearray) -> bytearray:
    """Fills the buffer. Raises `EOFError` when the other side ends before."""
    view = memoryview(buffer)
    while view:
        n_bytes = channel.recv_into(view)
        if not n_bytes:
            raise EOFError
        view = view[n_bytes:]
    return buffer


def _load_everything() -> None:
    """One good and one bad recording, so that nothing has to be imported once no file can be opened."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((2, 2, 44_100, 0, "NONE", ""))
        writer.writeframes(bytes(4 * 4410))
    decoded(bytearray(file.getvalue()), AudioLimits())
    decoded(bytearray(b"no audio" * 100), AudioLimits())


def _allow_cpu(seconds: float) -> None:
    """Ends this process (SIGXCPU) once it has used that much more."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _limit(resource.RLIMIT_CPU, math.ceil(used.ru_utime + used.ru_stime + seconds), hard=resource.RLIM_INFINITY)


def _limit(what: int, soft: int, hard: int | None = None) -> None:
    """Sets a limit, within what is allowed already."""
    allowed = resource.getrlimit(what)[1]
    wanted = soft if hard is None else hard
    hard = allowed if wanted == resource.RLIM_INFINITY else wanted
    if allowed != resource.RLIM_INFINITY:
        hard = min(hard, allowed)
    soft = soft if hard == resource.RLIM_INFINITY else min(soft, hard)
    try:
        resource.setrlimit(what, (soft, hard))
    except (OSError, ValueError):
        if sys.platform == "linux":
            raise


def _address_space_bytes() -> int:
    """How much this process has now; 0 where that cannot be told, or is not what RLIMIT_AS limits."""
    if sys.platform != "linux":
        return 0
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


@contextlib.contextmanager
def _heard(logger: logging.Logger) -> Iterator[list[str]]:
    """What is logged meanwhile, for the process that has a log."""
    heard: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage()[:500])

    listener = Listener(logging.WARNING)
    logger.addHandler(listener)
    try:
        yield heard
    finally:
        logger.removeHandler(listener)


if __name__ == "__main__":
    main()
