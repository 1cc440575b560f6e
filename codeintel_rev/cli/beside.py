"""A `codeintel` process beside another: with the server a watcher, which is started once more when it dies; with the
watcher a compaction."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

from codeintel_rev.cli import render

DONE = (0, 2, 3)
"""Exit codes that another start would not better: ended by a signal, or not asked rightly, which it told itself."""
GRACE_S = 10.0
LEAST_URGENT = 19


def compacting(repo: str) -> subprocess.Popen[bytes]:
    """Start `indexctl compact REPO` where it takes no processor from a question or an update."""
    child = _start("indexctl", "compact", repo)
    os.setpriority(os.PRIO_PROCESS, child.pid, LEAST_URGENT)
    return child


def _start(*arguments: str) -> subprocess.Popen[bytes]:
    # -P: the current directory may be the repository that is indexed, and must not provide modules.
    command = (sys.executable, "-P", "-m", "codeintel_rev.cli.bound", *arguments)
    return subprocess.Popen(command, stdin=_life(), stdout=subprocess.DEVNULL)


@cache
def _life() -> int:
    """Return the end to read of a pipe whose other end closes with this process, however it ends."""
    return os.pipe()[0]


@contextmanager
def running(*arguments: str, lost: Callable[[], None]) -> Iterator[None]:
    """Run `codeintel ARGUMENTS` as long as the block lasts, and no longer than this process.

    Its death is told on standard error, and `lost` called when it is not started again.
    """
    child = _Child(arguments, lost)
    thread = threading.Thread(target=child.run, name="beside")
    thread.start()
    try:
        yield
    finally:
        child.stop()
        thread.join()


class _Child:
    def __init__(self, arguments: tuple[str, ...], lost: Callable[[], None]) -> None:
        self._arguments = arguments
        self._lost = lost
        self._lock = threading.Lock()
        self._stopped = False
        self._process: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """Start it, at most twice, and wait for its end."""
        for then in ("it is started once more", "files are no longer followed; run `codeintel watch`"):
            with self._lock:
                if self._stopped:
                    return
                self._process = _start(*self._arguments)
            code = self._process.wait()
            if self._stopped or code == 0:
                return
            if code in DONE:
                break
            render.err.print(f"codeintel {self._arguments[0]} ended with {code}; {then}.")
        self._lost()

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
