"""What is saved is found seconds later: indexes that follow their work trees.

    events of the system → quiet for a moment → does one concern an index? → build → wait for more

One loop over all trees, one build at a time. What changes during a build is gathered by the system meanwhile and makes
one more after it. An event is only a reason to look: a build compares every file. So does a rescan every
`index.rescan_s`, for events that were lost, folders that the system cannot watch, trees that went away and came back,
and repositories that are new. What updates leave behind is compacted beside the loop (upkeep.py).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import structlog
from watchfiles._rust_notify import RustNotify, WatchfilesRustInternalError

from codeintel_rev.config.settings import Settings
from codeintel_rev.encoders.dense import open_encoder
from codeintel_rev.errors import BuildInProgress, CodeIntelError, StaleBuild
from codeintel_rev.indexing.build import build
from codeintel_rev.indexing.source import IGNORE_FILE
from codeintel_rev.indexing.upkeep import Upkeep
from codeintel_rev.io import git
from codeintel_rev.io.durable import DISK
from codeintel_rev.io.following import Following
from codeintel_rev.io.globs import IgnoreFiles
from codeintel_rev.io.integrity import Digests
from codeintel_rev.io.registry import Source, repositories, repository_directory, source_of

STEP_MS = 50
MOST_S = 2.0
"""A tree that is never quiet is built this long after its first change."""
GIT_MOST_S = 10.0
"""As MOST_S, while git holds its lock on the tree: half a checkout is not worth a build."""
BUSY_S = 1.0
"""Until the next attempt when another process builds."""

MOVED = (".git/HEAD", ".git/index", ".git/logs/HEAD")
"""What git writes when the commit or the set of tracked files is another."""
OWN = ("repos", "models", "cache")
"""What builds write below `data_dir`, which may lie in the tree."""

Update = Callable[[Source], None]

log = structlog.get_logger(__name__)


def updating(settings: Settings) -> Update:
    """Return what builds the index of a source, with one encoder for all builds, each published file verified once, and
    tells what it published."""
    opening, digests = lru_cache(maxsize=1)(open_encoder), Digests(DISK)

    def update(source: Source) -> None:
        done = build(source.name, source.root, settings, on_progress=lambda _: None, opening=opening, digests=digests)
        if done.changed:
            log.info("index updated", repo=done.repo, generation=done.generation, seconds=round(done.seconds, 2))

    return update


class Watch:
    """The loop over the trees of `repos`, or of every registered repository when none is named.

    `bring` makes one index current. A CodeIntelError of it is told, and it is called again with the next change or
    rescan; BuildInProgress and StaleBuild, a moment later. Everything else it raises ends the loop. `upkeep` gives way
    to it and is asked to look at what it left.
    """

    def __init__(self, settings: Settings, repos: Sequence[str], bring: Update, upkeep: Upkeep) -> None:
        self._data_dir = settings.paths.data_dir
        self._own = tuple(f"{self._data_dir.resolve() / folder}/" for folder in OWN)
        self._quiet_s = settings.index.watch_debounce_ms / 1000
        self._rescan_s = settings.index.rescan_s
        self._repos = repos
        self._bring = bring
        self._upkeep = upkeep
        self._sources: list[Source] = []
        self._due: dict[Source, float] = {}
        self._told: dict[str, str] = {}
        self._following: dict[str, Following] = {}

    def run(self, stop: threading.Event) -> None:
        """Build every tree once, then each one when it changes, until `stop` is set.

        Readers of an index are told that it is followed (following.py), and if this ends otherwise, that it is not.
        """
        events = Events(())
        rescan_at = time.monotonic()
        try:
            while not stop.is_set():
                if rescans := time.monotonic() >= rescan_at:
                    # Watched first, built then: what changes in between is seen.
                    events = self._rescanned(events)
                self._build()
                if rescans:
                    rescan_at = time.monotonic() + self._rescan_s
                self._upkeep.go_on()
                next_at = min([rescan_at, *self._due.values(), self._upkeep.next_at])
                changed = events.wait(next_at - time.monotonic(), self._quiet_s, stop)
                self._touch(self._touched(changed))
        finally:
            self._upkeep.close()
            events.close()
            if stop.is_set():
                for following in self._following.values():
                    following.end()

    def _rescanned(self, events: Events) -> Events:
        """Make every tree due and return the events of them all."""
        self._sources = self._known()
        self._due = dict.fromkeys(self._sources, time.monotonic())
        return events.reopened([source.root for source in self._sources])

    def _touch(self, sources: Sequence[Source]) -> None:
        """Make trees due that changed. A rescan makes no compaction give way: most find nothing."""
        for source in sources:
            self._upkeep.give_way(source.name)
            self._due[source] = time.monotonic()

    def _known(self) -> list[Source]:
        known = []
        for repo in self._repos or repositories(self._data_dir):
            try:
                directory = repository_directory(self._data_dir, repo)
                source = source_of(directory)
                known.append(source)
                self._following.setdefault(source.name, Following(directory)).begin()
            except CodeIntelError as error:
                self._tell(repo, error)
        return known

    def _build(self) -> None:
        """Build what is due."""
        for source in [source for source, at in self._due.items() if at <= time.monotonic()]:
            del self._due[source]
            try:
                self._bring(source)
            except (BuildInProgress, StaleBuild):
                self._due[source] = time.monotonic() + BUSY_S
            except CodeIntelError as error:
                self._tell(source.name, error)
                self._following[source.name].failed(error.detail, error.hint)
            else:
                self._told.pop(source.name, None)
                self._following[source.name].succeeded()
                self._upkeep.look(source.name)

    def _tell(self, repo: str, error: CodeIntelError) -> None:
        """Log a failure, once as long as it stays the same."""
        if self._told.get(repo) != str(error):
            log.warning("index not updated", repo=repo, problem=error.slug, detail=str(error))
        self._told[repo] = str(error)

    def _touched(self, changed: set[str]) -> list[Source]:
        foreign = {path for path in changed if not path.startswith(self._own)}
        return [source for source in self._sources if concerns(source.root, foreign)]


class Events:
    """Which paths below `roots` change, as the system tells; none below a root that is not there.

    Where the system cannot watch them all (on Linux, more folders than fs.inotify.max_user_watches) it is told, and
    nothing is seen.
    """

    def __init__(self, roots: Iterable[Path]) -> None:
        self._roots = _identities(roots)
        self._locks = [root / ".git/index.lock" for root in self._roots]
        self._notify: RustNotify | None = None
        if self._roots:
            try:
                self._notify = RustNotify([str(root) for root in self._roots], False, False, 0, True, True)
            except (OSError, WatchfilesRustInternalError) as error:
                self._give_up(error)

    def reopened(self, roots: Sequence[Path]) -> Events:
        """Return these, or others when `roots` are others, one was replaced, or these gave up."""
        if self._notify and _identities(roots) == self._roots:
            return self
        self.close()
        return Events(roots)

    def wait(self, seconds: float, quiet_s: float, stop: threading.Event) -> set[str]:
        """Return the paths that changed since the last call, once there was no more for `quiet_s`, but MOST_S after the
        first at the latest. Empty after `seconds` without any, and when `stop` is set."""
        changed = self._next(seconds, stop)
        began = time.monotonic()
        settled = not changed
        while not settled and not stop.is_set():
            more = self._next(quiet_s, stop)
            changed |= more
            locked = any(lock.exists() for lock in self._locks)
            late = time.monotonic() - began >= (GIT_MOST_S if locked else MOST_S)
            settled = late or not (more or locked)
        return changed

    def close(self) -> None:
        if self._notify:
            self._notify.close()
        self._notify = None

    def _next(self, seconds: float, stop: threading.Event) -> set[str]:
        milliseconds = max(1, int(seconds * 1000))
        if self._notify is None:
            stop.wait(milliseconds / 1000)
            return set()
        try:
            told = self._notify.watch(STEP_MS, STEP_MS, milliseconds, stop)
        except (OSError, WatchfilesRustInternalError) as error:
            self._give_up(error)
            return set()
        return set() if isinstance(told, str) else {path for _, path in told}

    def _give_up(self, error: Exception) -> None:
        self.close()
        log.warning("changes are not seen as they happen, only by rescans", reason=str(error))


def _identities(roots: Iterable[Path]) -> dict[Path, tuple[int, int]]:
    """Return device and inode of each root that is there: a folder made anew at its place is another one."""
    return {root: (status.st_dev, status.st_ino) for root in roots if root.is_dir() and (status := root.stat())}


def concerns(root: Path, changed: set[str]) -> bool:
    """Return whether one of the paths `changed` may change the index of the tree at `root`."""
    inside = [path.removeprefix(f"{root}/") for path in changed if path.startswith(f"{root}/")]
    if str(root) in changed or any(path in MOVED for path in inside):
        return True
    paths = [path for path in inside if ".git" not in path.split("/")]
    try:
        return bool(paths) and not _left_out(root, paths).issuperset(paths)
    except CodeIntelError:
        return True  # The build meets it again, and it is told then.


def _left_out(root: Path, paths: Sequence[str]) -> set[str]:
    """Return those of `paths` that ignore files exclude. Raises SourceFailed, InvalidArgument when they cannot tell."""
    names = (IGNORE_FILE, ".gitignore") if git.work_tree_root(root) is None else (IGNORE_FILE,)
    excluding = [IgnoreFiles(root, name) for name in names]
    entries = {path: f"{path}/" if (root / path).is_dir() else path for path in paths}
    excluded = {path for path in paths if any(files.excluded(entries[path]) for files in excluding)}
    return excluded if len(names) > 1 else excluded | git.ignored(root, paths)
