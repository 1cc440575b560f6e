"""What updates leave behind is compacted in the background: by a process of its own, in its window, one at a time.

    update → does it leave too much beside the index? → window open → process → its generation is published

A compaction gives way: when its repository changes it is ended, nothing of it is published, and it is taken up again
after the update, so that what is saved never waits for it. If that went on for ever, updates would do it themselves
(`vector_update.HARD`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from subprocess import TimeoutExpired
from typing import Protocol

import structlog

from codeintel_rev.config.settings import Settings
from codeintel_rev.errors import CodeIntelError
from codeintel_rev.io.generation_reader import GenerationReader
from codeintel_rev.io.registry import repository_directory
from codeintel_rev.io.vector_update import compaction_due

LOOK_S = 1.0
"""Between two looks at a compaction that runs."""
AGAIN_S = 600.0
"""Until one that failed is tried again."""
GRACE_S = 5.0
BUSY, BUSY_S = 4, 10.0
"""The exit code when another process builds, and until the next attempt."""

log = structlog.get_logger(__name__)


class Process(Protocol):
    """What is needed of `subprocess.Popen`."""

    def poll(self) -> int | None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...
    def wait(self, timeout: float | None = None) -> int: ...


class Upkeep:
    """The compactions of the repositories that one watcher follows. `start` begins that of one."""

    def __init__(self, settings: Settings, start: Callable[[str], Process]) -> None:
        self._settings = settings
        self._start = start
        self._wanted: dict[str, float] = {}
        self._running: tuple[str, Process] | None = None

    @property
    def next_at(self) -> float:
        """When `go_on` has something to do (monotonic seconds); infinity when nothing is wanted."""
        if self._running:
            return time.monotonic() + LOOK_S
        if not self._wanted:
            return math.inf
        return max(min(self._wanted.values()), time.monotonic() + self._window_opens_in())

    def look(self, repo: str) -> None:
        """Note whether what is published of `repo` is to be compacted, unless that failed a moment ago."""
        store = GenerationReader(repository_directory(self._settings.paths.data_dir, repo))
        try:
            current = store.current_id()
            due = compaction_due(store.path_of(current), self._settings.index) if current else ""
        except CodeIntelError:
            due = ""  # The next build meets it, mends it, and tells.
        if due:
            self._wanted.setdefault(repo, time.monotonic())
        else:
            self._wanted.pop(repo, None)

    def go_on(self) -> None:
        """See what came of the compaction that runs, and start the next one where it may run now."""
        if self._running:
            repo, process = self._running
            if (code := process.poll()) is None:
                return
            self._running = None
            self._ended(repo, code)
        for repo, at in self._wanted.items():
            if at <= time.monotonic() and not self._window_opens_in():
                log.info("compaction started", repo=repo)
                self._running = repo, self._start(repo)
                return

    def give_way(self, repo: str) -> None:
        """End the compaction of `repo`, should it run: its lock is free afterwards."""
        if self._running and self._running[0] == repo:
            self.close()

    def close(self) -> None:
        """End the compaction that runs."""
        if self._running is None:
            return
        (_, process), self._running = self._running, None
        process.terminate()
        try:
            process.wait(GRACE_S)
        except TimeoutExpired:
            process.kill()
            process.wait()

    def _ended(self, repo: str, code: int) -> None:
        if code == 0:
            log.info("compacted", repo=repo)
            self._wanted.pop(repo, None)
        elif code == BUSY:
            self._wanted[repo] = time.monotonic() + BUSY_S
        else:
            log.warning("compaction failed, the generation before it serves on", repo=repo, code=code)
            self._wanted[repo] = time.monotonic() + AGAIN_S

    def _window_opens_in(self) -> float:
        return opens_in(self._settings.index.compact_window, datetime.now().astimezone())


def opens_in(window: str, now: datetime) -> float:
    """Return in how many seconds the daily `window`, HH:MM-HH:MM of the clock `now` is of, opens; 0 while it is open.

    One that ends before it begins is open over midnight; an empty one always. Its last minute is not in it.
    """
    if not window:
        return 0.0
    begin, end = (datetime.strptime(text, "%H:%M").time() for text in window.split("-"))
    clock = now.time()
    if begin <= clock < end or (end <= begin and (clock >= begin or clock < end)):
        return 0.0
    opening = now.replace(hour=begin.hour, minute=begin.minute, second=0, microsecond=0)
    return ((opening if opening > now else opening + timedelta(days=1)) - now).total_seconds()
