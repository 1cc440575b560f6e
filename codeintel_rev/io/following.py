"""Does somebody follow the files of this repository, and does it succeed?

`<shard>/watch.json` says that a watcher follows it and how many of its last builds failed; the watcher holds a lock on
`watch.lock`, which the OS frees at death, and takes the file away when it stops in order. So a file without a lock is a
watcher that died, and no file is nobody's promise.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from codeintel_rev.io.durable import os_errors_mapped
from codeintel_rev.io.leases import FileLock
from codeintel_rev.io.registry import repository_name
from codeintel_rev.types import Limit

FILE, LOCK = "watch.json", "watch.lock"
STAGE = "watch"
FAILED_BUILDS = 3
"""One after the other, from which on freshness is not kept: one or two may be a half-done edit or checkout."""


class Following:
    """The promise of one watcher to keep the shard at `directory` current."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock: FileLock | None = None
        self._failures = 0

    def begin(self) -> None:
        """Promise it, unless another watcher does; what is promised already stays. Raises StorageFailed."""
        if self._lock:
            return
        path = self._directory / LOCK
        with os_errors_mapped("create", path):
            path.touch()
        self._lock = FileLock.take(path, exclusive=True)
        self._tell("", "")

    def succeeded(self) -> None:
        """Tell that the last build went well."""
        if self._failures:
            self._failures = 0
            self._tell("", "")

    def failed(self, detail: str, action: str) -> None:
        """Tell that the last build did not, and why."""
        self._failures += 1
        self._tell(detail, action)

    def end(self) -> None:
        """Take the promise back."""
        if self._lock:
            with suppress(OSError):
                (self._directory / FILE).unlink(missing_ok=True)
            self._lock.release()
            self._lock = None

    def _tell(self, detail: str, action: str) -> None:
        if self._lock:
            _write(self._directory, {"failures": self._failures, "detail": detail, "action": action})


def give_up(directory: Path) -> None:
    """Tell that the shard at `directory` was to be followed and is not."""
    _write(directory, {"failures": 0, "detail": "", "action": ""})


def unfollowed(directory: Path) -> Limit | None:
    """Return why what is saved is found no more though that was promised, None where it is or nobody promised."""
    try:
        told = json.loads((directory / FILE).read_bytes())
        failures, detail, action = int(told["failures"]), str(told["detail"]), str(told["action"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
    repo = repository_name(directory)
    if not _is_held(directory):
        died = f"the watcher of {repo} died: what was saved since is not indexed."
        return Limit("watch-died", STAGE, died, "Run `codeintel watch`; stopped in order, it takes this back.")
    if failures >= FAILED_BUILDS:
        return Limit("watch-failing", STAGE, f"the last {failures} updates of {repo} failed: {detail}", action)
    return None


def _is_held(directory: Path) -> bool:
    lock = FileLock.take(directory / LOCK, exclusive=False)
    if lock is None:
        return (directory / LOCK).exists()
    lock.release()
    return False


def _write(directory: Path, told: dict[str, object]) -> None:
    """Replace the file. A courtesy, as progress.json is: a full disk is told by the builds that meet it."""
    draft = directory / f"{FILE}.tmp"
    with suppress(OSError):
        draft.write_text(json.dumps(told), encoding="utf-8")
        draft.replace(directory / FILE)
