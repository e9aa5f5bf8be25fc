"""Decodes uploads outside of this process, where nothing can be lost.

    decoder = decoder_for(settings)
    wave = await decoder.decode(upload.file)    # float32 [n_samples], bit for bit that of steer_asr.audio.decode_audio
    decoder.close()

FFmpeg's parsers are large, and written in C. Each upload is therefore decoded in one of a few processes that are kept
ready (`sandbox_worker`). They see no path, no environment of ours and no network, and have limits on CPU time, memory
and time. One that crashes or reaches a limit costs its own request an error, and is replaced at once; so is one that
has decoded its share of uploads. What comes back is a length-checked array or a short message, never a pickle.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, Protocol

import numpy as np

from steer_asr import audio
from steer_asr.audio import CODEC_PADDING_S, SAMPLE_RATE_HZ, AudioLimits, decode_audio
from steer_asr_serving.errors import ApiError
from steer_asr_serving.sandbox_worker import (
    ERRORS,
    LENGTHS,
    MAX_HEADER_BYTES,
    OUT_OF_MEMORY,
    UNEXPECTED,
    Plan,
    receive_into,
    send_file,
)
from steer_asr_serving.settings import Settings

logger = logging.getLogger(__name__)

WORKER = "steer_asr_serving.sandbox_worker"
IN_PROCESS_DECODERS = 2
START_S = 120.0
"""More than any start takes: a busy machine needs seconds."""
PATIENCE = 3.0
"""Time allowed for each second of CPU time allowed: other processes want the cores, too."""
WORKING_BYTES = 256 * 2**20
"""Memory for everything but the upload and its samples."""
INHERITED = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL")
"""All that a decoder sees of our environment, which holds keys."""
SAMPLE_BYTES = np.dtype(np.float32).itemsize


class Decoder(Protocol):
    """What turns uploads into samples."""

    async def decode(self, file: BinaryIO) -> np.ndarray:
        """The file as float32 mono [n_samples] at 16 kHz. Raises `AudioError`, `AudioLimitError` or `ApiError`."""
        ...

    def warm(self) -> None:
        """Gets ready before the first upload. Blocks for a moment."""
        ...

    def close(self) -> None:
        """Ends what `decode` started."""
        ...


def decoder_for(settings: Settings) -> Decoder:
    """The decoder that the settings ask for."""
    limits = AudioLimits(max_seconds=settings.max_audio_s, max_decoded_bytes=settings.max_decoded_bytes)
    if not settings.decode_processes:
        return InProcessDecoder(limits)
    samples_bytes = settings.max_audio_s * SAMPLE_RATE_HZ * SAMPLE_BYTES
    plan = Plan(
        limits=limits,
        cpu_s=settings.decode_cpu_s,
        memory_bytes=int(min(settings.max_upload_bytes + 2 * samples_bytes + WORKING_BYTES, 2**62)),
        uploads=settings.decodes_per_process,
    )
    return DecoderPool(settings.decode_processes, plan, WORKER)


class InProcessDecoder:
    """Decodes in threads of this process: limits on seconds and bytes hold, a crash takes the server with it."""

    def __init__(self, limits: AudioLimits) -> None:
        self._limits = limits
        self._threads = ThreadPoolExecutor(IN_PROCESS_DECODERS, thread_name_prefix="decode")

    async def decode(self, file: BinaryIO) -> np.ndarray:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._decode, file)

    def _decode(self, file: BinaryIO) -> np.ndarray:
        return decode_audio(file.read(), limits=self._limits)

    def warm(self) -> None:
        pass

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class DecoderPool:
    """A few processes that decode, one upload at a time each. More uploads wait; not decoded, they cost no memory."""

    def __init__(self, processes: int, plan: Plan, worker: str) -> None:
        self._processes, self._plan, self._worker = processes, plan, worker
        self._threads = ThreadPoolExecutor(processes, thread_name_prefix="decode")
        self._idle: deque[Child] = deque()
        self._all: weakref.WeakSet[Child] = weakref.WeakSet()
        self._closed = False

    async def decode(self, file: BinaryIO) -> np.ndarray:
        """Raises `ApiError` 413 when it takes too much time or memory, and 422 when the process ends otherwise.

        When the caller goes away, decoding stops.
        """
        turn = _Turn()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._decode, file, turn)
        finally:
            turn.end()

    def warm(self) -> None:
        while len(self._idle) < self._processes:
            self._idle.append(self._started())

    def close(self) -> None:
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        for child in list(self._all):
            child.kill()

    @property
    def process_ids(self) -> list[int]:
        """Of the processes that run now."""
        return [child.process.pid for child in list(self._all) if child.process.poll() is None]

    def _decode(self, file: BinaryIO, turn: _Turn) -> np.ndarray:
        child = self._taken()
        try:
            turn.begin(child)
            return child.decode(file)
        finally:
            turn.begin(None)
            if not child.usable:
                child.kill()
                child.process.wait()
            if not self._closed:
                self._idle.append(child if child.usable else self._started())

    def _taken(self) -> Child:
        """One that waits, unless the system has ended it meanwhile; else a new one."""
        while self._idle:
            child = self._idle.pop()
            if child.process.poll() is None:
                return child
        return self._started()

    def _started(self) -> Child:
        child = Child(self._plan, self._worker)
        self._all.add(child)
        return child


class _Turn:
    """One request's use of a process. Ends it when the request ends first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._over = False

    def begin(self, child: Child | None) -> None:
        """From now on that process (or none) works for the request."""
        with self._lock:
            self._child = child
            if self._over and child is not None:
                child.kill()

    def end(self) -> None:
        with self._lock:
            self._over = True
            if self._child is not None:
                self._child.kill()


class Child:
    """One process that decodes."""

    def __init__(self, plan: Plan, worker: str) -> None:
        self._plan = plan
        self._left = plan.uploads
        self._ready = False
        self.usable = True
        """Whether it may get another upload."""
        self._channel, theirs = socket.socketpair()
        command = [sys.executable, "-P", "-s", "-m", worker, plan.as_json()]
        with theirs:
            self.process = subprocess.Popen(
                command,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env=_environment(),
                cwd="/",
                start_new_session=True,
            )
        weakref.finalize(self, _end, self.process, self._channel)

    def decode(self, file: BinaryIO) -> np.ndarray:
        """Blocks. Raises as `DecoderPool.decode`, and `RuntimeError` when the process does not start."""
        self.usable = False
        self._wait_until_ready()
        until_s = time.monotonic() + PATIENCE * self._plan.cpu_s
        try:
            self._channel.settimeout(PATIENCE * self._plan.cpu_s)
            send_file(self._channel, file)
            header, samples = self._answer(until_s)
        except TimeoutError as error:
            raise self._too_costly(f"longer than {PATIENCE * self._plan.cpu_s:g} s") from error
        except (ConnectionError, EOFError) as error:
            raise self._obituary() from error
        if header.get("error") == OUT_OF_MEMORY:
            raise self._too_costly(f"more than {self._plan.memory_bytes} bytes of memory")
        if header.get("error") == UNEXPECTED:
            raise self._failed(header["message"])
        self._left -= 1
        self.usable = self._left > 0
        if "error" in header:
            raise ERRORS[header["error"]](header["message"])
        for warning in header["warnings"]:
            audio.logger.warning("%s", warning)
        return samples

    def kill(self) -> None:
        """Ends it at once; a thread that waits for its answer sees it end."""
        self.usable = False
        self.process.kill()

    def _wait_until_ready(self) -> None:
        if self._ready:
            return
        try:
            self._answer(time.monotonic() + START_S)
        except (TimeoutError, ConnectionError, EOFError) as error:
            raise RuntimeError("a decoder process does not start; standard error says why") from error
        self._ready = True

    def _answer(self, until_s: float) -> tuple[dict[str, Any], np.ndarray]:
        """The next message, checked: its sender has read hostile files. Raises `TimeoutError`, `EOFError`."""
        header_bytes, payload_bytes = LENGTHS.unpack(self._read(bytearray(LENGTHS.size), until_s))
        longest_s = self._plan.limits.max_seconds + 2 * CODEC_PADDING_S
        if header_bytes > MAX_HEADER_BYTES or payload_bytes > longest_s * SAMPLE_RATE_HZ * SAMPLE_BYTES:
            raise EOFError("more than was asked for")
        header = _checked(self._read(bytearray(header_bytes), until_s))
        if payload_bytes % SAMPLE_BYTES:
            raise EOFError("half a sample")
        return header, np.frombuffer(self._read(bytearray(payload_bytes), until_s), np.float32)

    def _read(self, buffer: bytearray, until_s: float) -> bytearray:
        self._channel.settimeout(max(0.001, until_s - time.monotonic()))
        return receive_into(self._channel, buffer)

    def _too_costly(self, what: str) -> ApiError:
        return ApiError(413, f"audio: decoding it takes {what}, which is the limit", "file", "audio_too_costly")

    def _obituary(self) -> ApiError:
        """Why the process is gone."""
        self.kill()
        status = self.process.wait()
        if status == -signal.SIGXCPU:
            return self._too_costly(f"more than {self._plan.cpu_s:g} s of CPU time")
        return self._failed(f"it ended with status {status}")

    def _failed(self, why: str) -> ApiError:
        logger.warning("a decoder failed on an upload, and is replaced: %s", why)
        return ApiError(422, "audio: the decoder failed on it", "file", "decoder_failed")


def _checked(text: bytearray) -> dict[str, Any]:
    """A message's JSON, if it is one that `sandbox_worker` writes. Raises `EOFError`, as if nothing had come."""
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise EOFError("not JSON") from error
    match header:
        case {"ready": True}:
            return header
        case {"error": str(kind)} if kind == OUT_OF_MEMORY:
            return header
        case {"error": str(kind), "message": str()} if kind == UNEXPECTED or kind in ERRORS:
            return header
        case {"warnings": list(warnings)} if all(isinstance(warning, str) for warning in warnings):
            return header
    raise EOFError("not an answer")


def _environment() -> dict[str, str]:
    """No keys or tokens; our own import path, since a Ray worker's is made at run time."""
    path = os.pathsep.join(os.path.abspath(folder) for folder in sys.path if folder)
    kept = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return kept | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "OPENBLAS_NUM_THREADS": "1"}


def _end(process: subprocess.Popen[bytes], channel: socket.socket) -> None:
    process.kill()
    process.wait()
    channel.close()
