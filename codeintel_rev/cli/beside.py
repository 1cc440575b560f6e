"""A `codeintel` process beside another: with the server a watcher, which is started once more when it dies; with the
watcher a compaction."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from codeintel_rev.cli import render

DONE = (0, 2, 3)
"""Exit codes that another start would not better: ended by a signal, or not asked rightly, which it told itself."""
GRACE_S = 10.0
LEAST_URGENT = 19


def compacting(repo: str) -> subprocess.Popen[bytes]:
    """Start `indexctl compact REPO` where it takes no processor from a question or an update."""
    child = subprocess.Popen(_command("indexctl", "compact", repo), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    os.setpriority(os.PRIO_PROCESS, child.pid, LEAST_URGENT)
    return child


def _command(*arguments: str) -> tuple[str, ...]:
    # -P: the current directory may be the repository that is indexed, and must not provide modules.
    return sys.executable, "-P", "-m", "codeintel_rev.cli.main", *arguments


@contextmanager
def running(*arguments: str) -> Iterator[None]:
    """Run `codeintel ARGUMENTS` as long as the block lasts. Its death is told on standard error."""
    child = _Child(arguments)
    thread = threading.Thread(target=child.run, name="beside")
    thread.start()
    try:
        yield
    finally:
        child.stop()
        thread.join()


class _Child:
    def __init__(self, arguments: tuple[str, ...]) -> None:
        self._command = _command(*arguments)
        self._verb = arguments[0]
        self._lock = threading.Lock()
        self._stopped = False
        self._process: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """Start it, at most twice, and wait for its end."""
        for then in ("it is started once more", "files are no longer followed; run `codeintel watch`"):
            with self._lock:
                if self._stopped:
                    return
                self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            code = self._process.wait()
            if self._stopped or code in DONE:
                return
            render.err.print(f"codeintel {self._verb} ended with {code}; {then}.")

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
