"""Who builds this shard? A flock that names its holder and that the OS frees when the holder dies."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from codeintel_rev.errors import BuildInProgress, InsufficientStorage
from codeintel_rev.io.durable import os_errors_mapped
from codeintel_rev.io.leases import FileLock


class BuilderLock:
    """The lock of the shard at `directory`, which must exist when it is taken."""

    def __init__(self, directory: Path, repo: str) -> None:
        self._path = directory / "lock"
        self._repo = repo
        self._thread: int | None = None

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Hold the lock for the block; yield whether this thread held it before. Raises BuildInProgress, which names
        the holder, also when that is another thread of this process."""
        if self._thread == threading.get_ident():
            yield True
            return
        lock = self._take()
        self._thread = threading.get_ident()
        try:
            yield False
        finally:
            self._thread = None
            lock.release()

    def in_progress(self) -> BuildInProgress:
        with os_errors_mapped("read", self._path):
            holder = self._path.read_text(encoding="ascii", errors="replace") or "holder unknown"
        return BuildInProgress(f"another build of {self._repo} is running: {holder}.", "Wait for it, or stop it.")

    def _take(self) -> FileLock:
        with os_errors_mapped("create", self._path):
            self._path.touch()
        lock = self._take_in_time()
        if lock is None:
            raise self.in_progress()
        # On a full disk the holder stays unnamed: gc, which frees it, needs the lock.
        with suppress(InsufficientStorage), os_errors_mapped("write", self._path):
            self._path.write_text(f"process {os.getpid()}, since {datetime.now(UTC).isoformat(timespec='seconds')}")
        return lock

    def _take_in_time(self) -> FileLock | None:
        """Whoever asks whether a build is running (progress.py) holds the lock for microseconds: that is no builder."""
        for pause_s in (0.0, 0.01, 0.05):
            time.sleep(pause_s)
            lock = FileLock.take(self._path, exclusive=True)
            if lock is not None:
                return lock
        return None
