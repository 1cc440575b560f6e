"""Parsing in processes that can be killed: a grammar may hang, crash or exhaust memory on one file (T19, T20, F09).

A worker that is late, dead or out of memory is replaced, and the file it was at is cut by lines instead. Workers are
fresh interpreters, not multiprocessing children: fork hangs once torch has run (T22), and spawn would import the
caller's main module, seconds of server, into each of them.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Self

from codeintel_rev.errors import ParseFailed
from codeintel_rev.indexing import parse_worker
from codeintel_rev.indexing.chunking import ParsedFile, chunk_by_lines
from codeintel_rev.types import SourceFile

TIMEOUT = "parse-timeout"
CRASH = "parse-crash"
MEMORY = "parse-memory"

_START_TIMEOUT_S = 60.0  # A start takes 0.3 s; on a machine under load far longer.
_BATCH_BYTES = 64 * 1024  # Small files share a message.
BATCH_FILES = 16
_BATCHES_AHEAD = 4  # Per worker, so that one slow file does not idle the others; bounds what is held in memory.


@dataclass(frozen=True, slots=True)
class _Death:
    """How a worker ended: its exit code, negative when a signal did it, and the most memory it held, in MiB."""

    exit_code: int
    resident_mb: float

    def from_memory(self, limit_mb: int) -> bool:
        """Say whether memory was the reason: Python exits with a code of its own, but tree-sitter aborts or
        dereferences null when an allocation fails, and only the memory held tells that from another such crash. Linux
        counts what the parent once held as held by the worker, so a large parent may take a crash for that."""
        died_natively = self.exit_code in (-signal.SIGABRT, -signal.SIGSEGV)
        return self.exit_code == parse_worker.OUT_OF_MEMORY or (died_natively and self.resident_mb >= limit_mb / 2)


@dataclass(slots=True)
class _Job:
    index: int
    file: SourceFile
    retried: bool = False


@dataclass(slots=True)
class _Worker:
    """A process, our end of its pipe, the jobs it has not answered yet, and when it began the first of them."""

    process: subprocess.Popen[bytes]
    pipe: Connection
    jobs: deque[_Job] = field(default_factory=deque)
    since: float = 0.0

    def kill(self) -> _Death:
        """End the process, be it hung, stopped or dead already."""
        os.kill(self.process.pid, signal.SIGKILL)  # Popen.kill would reap a dead one, and its usage with it.
        self.pipe.close()
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        unit = 1024 if sys.platform == "linux" else 1024 * 1024
        return _Death(self.process.returncode, usage.ru_maxrss / unit)


class ParsePool:
    """`workers` parse processes, open within a `with`. Each file has `timeout_s` of wall time from its start, each
    worker `memory_mb` of address space above what it starts with."""

    def __init__(self, repo: str, max_tokens: int, workers: int, timeout_s: float, memory_mb: int) -> None:
        self._repo = repo
        self._max_tokens = max_tokens
        self._count = workers
        self._timeout_s = timeout_s
        self._memory_mb = memory_mb
        self._workers: list[_Worker] = []
        self._starting: list[_Worker] = []

    def __enter__(self) -> Self:
        """Begin to start the workers, which takes a while in which the caller may do something else."""
        self._workers = [self._launch() for _ in range(self._count)]
        self._starting = list(self._workers)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.kill()
        self._workers = []

    def parse(self, files: Iterable[SourceFile]) -> Iterator[ParsedFile]:
        """Yield one ParsedFile for each file, in order, reading `files` only a bounded number ahead.

        A file whose worker timed out, crashed twice or ran out of memory twice comes back as line windows, with
        `note` one of TIMEOUT, CRASH, MEMORY. One parse at a time, to its end. Raises ParseFailed when workers cannot
        start.
        """
        while self._starting:
            self._await_ready(self._starting.pop())
        batches = _batches(files)
        ends: deque[int] = deque()  # The last index of each batch not yet yielded in full.
        done: dict[int, ParsedFile] = {}
        following = 0
        while True:
            while following in done:
                yield done.pop(following)
                following += 1
            while ends and ends[0] < following:
                ends.popleft()
            while len(ends) < _BATCHES_AHEAD * self._count and (idle := self._idle()):
                batch = next(batches, None)
                if batch is None:
                    break
                ends.append(batch[-1].index)
                self._send(idle, batch, done)
            if any(worker.jobs for worker in self._workers):
                self._collect(done)
            elif not ends:
                return

    def _idle(self) -> _Worker | None:
        return next((worker for worker in self._workers if not worker.jobs), None)

    def _send(self, worker: _Worker, batch: list[_Job], done: dict[int, ParsedFile]) -> None:
        worker.jobs.extend(batch)
        try:
            worker.pipe.send([job.file for job in batch])
        except BlockingIOError:  # It was stopped and never read.
            self._replace(worker, TIMEOUT, done)
        except OSError:
            self._replace(worker, CRASH, done)
        else:
            worker.since = time.monotonic()

    def _collect(self, done: dict[int, ParsedFile]) -> None:
        """Wait for the next result, death or deadline, and deal with every worker that has one."""
        busy = [worker for worker in self._workers if worker.jobs]
        remaining = min(worker.since for worker in busy) + self._timeout_s - time.monotonic()
        answered = wait([worker.pipe for worker in busy], max(0.0, remaining))
        now = time.monotonic()
        for worker in busy:
            if worker.pipe in answered:
                self._receive(worker, done)
            elif now - worker.since >= self._timeout_s:
                self._replace(worker, TIMEOUT, done)

    def _receive(self, worker: _Worker, done: dict[int, ParsedFile]) -> None:
        try:
            parsed = worker.pipe.recv()
        except BlockingIOError:  # Stopped half-way through its answer.
            self._replace(worker, TIMEOUT, done)
        except (EOFError, OSError):
            self._replace(worker, CRASH, done)
        else:
            done[worker.jobs.popleft().index] = parsed
            worker.since = time.monotonic()

    def _replace(self, worker: _Worker, note: str, done: dict[int, ParsedFile]) -> None:
        """Start a new worker for the jobs of a lost one; the file it was at is retried once unless it was late.

        A crash may be another's doing (the kernel's memory killer), a second one is the file's.
        """
        death = worker.kill()
        fresh = self._launch()
        self._workers[self._workers.index(worker)] = fresh
        self._await_ready(fresh)
        culprit, *rest = worker.jobs
        if note == TIMEOUT or culprit.retried:
            reason = MEMORY if note == CRASH and death.from_memory(self._memory_mb) else note
            done[culprit.index] = chunk_by_lines(self._repo, culprit.file, self._max_tokens, reason)
        else:
            culprit.retried = True
            rest.insert(0, culprit)
        if rest:
            self._send(fresh, rest, done)

    def _launch(self) -> _Worker:
        ours, theirs = Pipe()
        self._bound_waiting(ours)
        fd = theirs.fileno()
        settings = (fd, self._repo, self._max_tokens, self._timeout_s, self._memory_mb)
        # -P: the current directory may be the repository that is indexed, and must not provide modules.
        command = [sys.executable, "-P", "-m", parse_worker.__name__, *map(str, settings)]
        # Its output must not mix with a protocol on ours (MCP over stdio).
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(command, pass_fds=[fd], stdin=quiet, stdout=quiet)
        theirs.close()
        return _Worker(process, ours)

    def _bound_waiting(self, pipe: Connection) -> None:
        """Make reads and writes on a stopped worker's pipe fail after the timeout instead of blocking for ever."""
        seconds = struct.pack("ll", int(self._timeout_s), int(self._timeout_s % 1 * 1_000_000) or 1)
        with socket.socket(fileno=os.dup(pipe.fileno())) as duplicate:
            duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, seconds)
            duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, seconds)

    def _await_ready(self, worker: _Worker) -> None:
        try:
            if worker.pipe.poll(_START_TIMEOUT_S) and worker.pipe.recv() == parse_worker.READY:
                return
        except (EOFError, OSError):
            pass
        self._workers.remove(worker)
        exit_code = worker.kill().exit_code
        raise ParseFailed(
            f"a parse worker did not start: {sys.executable} ended with {exit_code}.",
            "Its standard error says why; chunking.parse_memory_mb may be too low.",
        )


def _batches(files: Iterable[SourceFile]) -> Iterator[list[_Job]]:
    batch: list[_Job] = []
    size = 0
    for index, file in enumerate(files):
        batch.append(_Job(index, file))
        size += len(file.text)
        if size >= _BATCH_BYTES or len(batch) == BATCH_FILES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
