"""The process in which files are parsed: `python -m codeintel_rev.indexing.parse_worker <fd> <repo> …`, see parse_pool.

Reads lists of SourceFile from the pipe it inherits and writes one ParsedFile for each, as it goes.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

from codeintel_rev.indexing.chunking import chunk_file

OUT_OF_MEMORY = 77
"""Exit code of a worker that ran into its memory limit in Python; in native code it aborts."""

READY = "ready"


def main(fd: int, repo: str, max_tokens: int, timeout_s: float, memory_mb: int) -> None:
    """Serve until the pool closes its end of the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the pool decides.
    _limit(resource.RLIMIT_AS, _address_space() + memory_mb * 1024 * 1024)
    with Connection(fd) as pipe:
        pipe.send(READY)
        try:
            _serve(pipe, repo, max_tokens, timeout_s)
        except MemoryError:
            os._exit(OUT_OF_MEMORY)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return


def _serve(pipe: Connection, repo: str, max_tokens: int, timeout_s: float) -> None:
    while True:
        for file in pipe.recv():
            # The pool's own timeout comes first; this one ends a hung worker whose pool is gone.
            _limit(resource.RLIMIT_CPU, int(time.process_time() + timeout_s) + 2)
            pipe.send(chunk_file(repo, file, max_tokens))


def _limit(which: int, soft: int) -> None:
    hard = resource.getrlimit(which)[1]
    resource.setrlimit(which, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _address_space() -> int:
    """Return the bytes mapped by the interpreter itself: numpy alone can reserve gigabytes on many cores."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[0]) * resource.getpagesize() if statm.exists() else 0


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]))
