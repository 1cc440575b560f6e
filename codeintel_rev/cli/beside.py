"""A `codeintel` process beside the server: started with it, ended with it, started once more when it dies."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from codeintel_rev.cli import render

DONE = (0, 2, 3)
"""Exit codes that another start would not better: ended by a signal, or not asked rightly, which it told itself."""
GRACE_S = 10.0


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
        # -P: the current directory may be the repository that is indexed, and must not provide modules.
        self._command = (sys.executable, "-P", "-m", "codeintel_rev.cli.main", *arguments)
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
