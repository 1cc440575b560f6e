"""Who is using what: file locks that the OS frees at death, and an open generation that garbage collection spares."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from codeintel_rev.errors import GenerationGone
from codeintel_rev.io.durable import storage_error
from codeintel_rev.io.manifest import Manifest
from codeintel_rev.types import Limit

_descriptors: set[int] = set()


def _close_in_child() -> None:
    """A forked worker that outlives its killed parent must not keep the parent's locks."""
    for descriptor in _descriptors:
        os.close(descriptor)
    _descriptors.clear()


os.register_at_fork(after_in_child=_close_in_child)


class FileLock:
    """A flock on one file, from `take` until `release` or the death of the process. Forked children do not have it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        _descriptors.add(descriptor)

    @classmethod
    def take(cls, path: Path, *, exclusive: bool) -> FileLock | None:
        """Return the lock, or None when the file is missing or another holder excludes it. Writes nothing, so that a
        read-only volume can be leased too."""
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error("lock", path, error) from error
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if isinstance(error, BlockingIOError):
                return None
            raise storage_error("lock", path, error) from error
        return cls(descriptor)

    @property
    def file_is_gone(self) -> bool:
        """Whether the file was removed between opening and locking it."""
        return os.fstat(self._descriptor).st_nlink == 0

    def release(self) -> None:
        """Free the lock; further calls do nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor in _descriptors:
            _descriptors.discard(descriptor)
            os.close(descriptor)


class Generation:
    """A verified generation that stays on disk until `close` was called and the last lease has ended.

    `limits` tells when it is not the one CURRENT names. Safe to use from many threads.
    """

    def __init__(self, path: Path, manifest: Manifest, limits: tuple[Limit, ...], lock: FileLock) -> None:
        self.path = path
        self.manifest = manifest
        self.limits = limits
        self._mutex = threading.Lock()
        self._users = 1
        self._closed = False
        self._cleanup = ExitStack()
        self._cleanup.callback(lock.release)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def on_close(self, action: Callable[[], object]) -> None:
        """Run `action` once, after the last lease and before the files may go; the latest registered runs first."""
        self._cleanup.callback(action)

    @property
    def is_leased(self) -> bool:
        """Whether anybody but the opener holds it."""
        with self._mutex:
            return self._users > (0 if self._closed else 1)

    @contextmanager
    def lease(self) -> Iterator[Self]:
        """Keep the files and whatever was opened on them for the block. Raises GenerationGone once closed."""
        with self._mutex:
            if self._closed:
                raise GenerationGone(f"generation {self.manifest.generation} was closed.", "Ask again.")
            self._users += 1
        try:
            yield self
        finally:
            self._drop_user()

    def close(self) -> None:
        """End the opener's own lease; further calls do nothing."""
        with self._mutex:
            if self._closed:
                return
            self._closed = True
        self._drop_user()

    def _drop_user(self) -> None:
        with self._mutex:
            self._users -= 1
            last = self._users == 0
        if last:
            self._cleanup.close()
