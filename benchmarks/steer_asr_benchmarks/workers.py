"""Clips transcribed in several processes of this machine, each with models of its own.

    for record in in_processes(options, work):       # as they are made, in any order
        ...

A worker gets a clip when it has finished the one before, and hands over every record as soon as it is made. Whoever
iterates writes them down. Ending the iteration, by an interrupt too, ends the workers.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from tqdm import tqdm

from steer_asr.errors import SteerASRError, WorkerError
from steer_asr_benchmarks.work import ClipWork, RunOptions, Transcriber

END_S = 5.0
"""A worker that has been told to end gets so long before it is killed."""


@dataclass(frozen=True)
class Ready:
    """What a worker sends when it can take a clip: after loading its models, and after the last record of a clip."""


def in_processes(options: RunOptions, work: Sequence[ClipWork]) -> Generator[dict[str, Any]]:
    """The records of `work`, made by `options.jobs` processes, as they come.

    Raises `AudioError` and the like as the worker met them, and `WorkerError`, which names the clip, when one dies.
    """
    waiting = iter(work)
    with ExitStack() as stack:
        n = min(options.jobs or 1, len(work))
        options = replace(options, model=replace(options.model, cpu_threads=threads_each(options, n)))
        children = [stack.enter_context(child_process(transcribe_clips, options)) for _ in range(n)]
        at_work: dict[Any, tuple[Child, str]] = {child.connection: (child, "loading its models") for child in children}
        while at_work:
            for connection in wait(list(at_work)):
                child, doing = at_work[connection]
                received = child.receive(doing)
                if not isinstance(received, Ready):
                    yield received
                elif (clip := next(waiting, None)) is not None:
                    child.send(clip)
                    at_work[connection] = child, f"transcribing {clip.named.id}"
                else:
                    del at_work[connection]


def threads_each(options: RunOptions, processes: int) -> int:
    """CPU threads of each of so many models: what was asked for, else an equal part of the CPUs this process may use.

    0, which leaves it to CTranslate2, where OMP_NUM_THREADS asks for something.
    """
    if options.model.cpu_threads or os.environ.get("OMP_NUM_THREADS"):
        return options.model.cpu_threads
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, usable // processes)


def transcribe_clips(connection: Connection, options: RunOptions) -> None:
    """What a worker does until it is ended: receives clips, sends their records."""
    transcriber = Transcriber(options)
    while True:
        connection.send(Ready())
        for record in transcriber.records(connection.recv()):
            connection.send(record)


@dataclass(frozen=True)
class Child:
    """A process of ours and the connection to it."""

    process: BaseProcess
    connection: Connection

    def send(self, value: Any) -> None:
        """To a process that has died nothing is sent; `receive` tells."""
        try:
            self.connection.send(value)
        except OSError:
            return

    def receive(self, doing: str) -> Any:
        """What it sends next. Raises the `SteerASRError` that ended it, or `WorkerError` when it just ended."""
        try:
            received = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            raise WorkerError(
                f"the process {doing} {_how_it_ended(self.process.exitcode)}; "
                "what is done stays, the same command resumes"
            ) from None
        if isinstance(received, SteerASRError):
            raise received
        return received


@contextmanager
def child_process(target: Callable[..., None], *arguments: Any) -> Iterator[Child]:
    """A fresh process that runs `target(connection, *arguments)`, and does not outlive the block."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_guarded, args=(target, theirs, *arguments), daemon=True)
    with _interrupt_ignored():  # which it inherits: Ctrl-C reaches all processes, and this one ends the others
        process.start()
    theirs.close()
    try:
        yield Child(process, ours)
    finally:
        process.terminate()
        process.join(END_S)
        if process.exitcode is None:
            process.kill()
            process.join()
        process.close()
        ours.close()


def _guarded(target: Callable[..., None], connection: Connection, *arguments: Any) -> None:
    """Runs `target`; a `SteerASRError` is sent, any other shows its traceback and ends the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tqdm.set_lock(threading.RLock())  # its own, which faster-whisper has it make, is a semaphore that outlives a kill
    try:
        target(connection, *arguments)
    except SteerASRError as error:
        connection.send(error)
    except (EOFError, OSError):
        parent = parent_process()
        assert parent is not None
        parent.join(END_S)
        if parent.is_alive():
            raise  # else it is only that nobody listens any more


@contextmanager
def _interrupt_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only that one may say what signals do
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _how_it_ended(exitcode: int | None) -> str:
    if exitcode == -signal.SIGKILL:
        return "was killed, perhaps for want of memory (fewer --jobs need less)"
    if exitcode is not None and exitcode < 0:
        return f"was ended by {signal.Signals(-exitcode).name}"
    return f"ended with exit code {exitcode}; what it said stands above"
