"""The read side of one shard: which generation is current, is it good, and which good one is nearest when it is not?

    <shard>/CURRENT                  id of the published generation, replaced atomically
    <shard>/lock                     flock of the one builder; its text names the holder
    <shard>/generations/<ulid>/      MANIFEST.json and the artefacts; without a manifest it is a draft or an orphan
    <shard>/quarantine/<ulid>/       what failed verification: evidence, never deleted

Ids sort in the order of creation, whatever the clock does. Whatever is older than CURRENT was published; whatever is
newer was rolled back or never published, and goes when the next build begins. Readers only read: they step down to an
older generation in memory and say so in `Generation.limits`; who holds the builder lock repairs the disk. Without
CURRENT readers serve nothing, and the next builder takes up the newest good generation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from codeintel_rev.errors import (
    CodeIntelError,
    GenerationGone,
    GenerationMismatch,
    IndexCorrupt,
    IndexIncompatible,
    IndexUnavailable,
)
from codeintel_rev.io.durable import DISK, Storage, os_errors_mapped
from codeintel_rev.io.integrity import Difference, Digests, differences
from codeintel_rev.io.leases import FileLock, Generation
from codeintel_rev.io.manifest import MANIFEST, Manifest, load_manifest
from codeintel_rev.io.registry import repository_name
from codeintel_rev.types import Limit

T = TypeVar("T")

_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
OPTIONAL = ("xtr", "splade")
"""The folders of token vectors and of impacts: without them everything else answers. Generations share their files, and
so their damage."""
_REPAIR = "Rebuild the index, or go back with `indexctl rollback`."


class GenerationReader:
    """The generations of the shard at `directory`, which need not exist. Safe to use from many threads."""

    def __init__(self, directory: Path, storage: Storage = DISK, digests: Digests | None = None) -> None:
        """`digests` are those that this process has read already."""
        self.directory = directory
        self.repo = repository_name(directory)
        self._storage = storage
        self._digests = digests or Digests(storage)

    def published_id(self) -> str:
        """Return the published generation's id. Raises IndexUnavailable before the first, IndexCorrupt."""
        current = self.current_id()
        if current is None:
            raise IndexUnavailable(f"nothing of {self.repo} is published.", "Build it: `codeintel index PATH`.")
        return current

    def current_id(self) -> str | None:
        """Return the published generation's id, None before the first. Raises IndexCorrupt when CURRENT is garbage."""
        path = self.directory / "CURRENT"
        with os_errors_mapped("read", path):
            text = path.read_bytes().decode("ascii", "replace") if path.exists() else None
        if text is None:
            return None
        if not _ULID.fullmatch(text.removesuffix("\n")):
            raise IndexCorrupt(f"CURRENT of {self.repo} does not hold a generation id.", _REPAIR)
        return text.removesuffix("\n")

    def ls(self) -> list[Manifest]:
        """Return the manifests that can be read, newest first; generations newer than CURRENT are among them."""
        found = []
        for identity in self._identities():
            try:
                found.append(self.manifest(identity))
            except (GenerationGone, IndexCorrupt, IndexIncompatible):
                continue
        return found

    def manifest(self, identity: str) -> Manifest:
        """Return the manifest of generation `identity`.

        Raises GenerationGone, IndexCorrupt, IndexIncompatible, or GenerationMismatch when it is another's.
        """
        path = self.path_of(identity) / MANIFEST
        with os_errors_mapped("read", path):
            data = path.read_bytes() if path.is_file() else None
        if data is None:
            raise GenerationGone(f"generation {identity} of {self.repo} is not kept.", "Use the current one.")
        found = load_manifest(data)
        if (found.repo, found.generation) != (self.repo, identity):
            raise GenerationMismatch(
                f"generation {identity} of {self.repo} holds the manifest of {found.generation} of {found.repo}.",
                _REPAIR,
            )
        return found

    def verify(self, identity: str) -> list[CodeIntelError]:
        """Return what is wrong with generation `identity`, every file read anew; empty when it is good."""
        return self._problems(identity, Digests(self._storage))

    def open_current(self) -> Generation:
        """Return the current generation, verified, or the nearest good older one with Limits that say so.

        Reads every file this process has not yet read, so never call it on the request path. Raises IndexUnavailable
        when nothing is published or nothing published is good.
        """
        return self.open_best(lambda generation: generation)

    def open_best(self, opener: Callable[[Generation], T]) -> T:
        """Return `opener`'s answer for the first of CURRENT, its ancestors and any older generation that verifies and
        that `opener` does not refuse by IndexCorrupt or IndexIncompatible. Raises IndexUnavailable."""
        if not (self.directory / "CURRENT").exists():
            raise IndexUnavailable(f"no generation of {self.repo} is published.", "Index the repository first.")
        start, limits = self._start()
        first: CodeIntelError | None = None
        for identity in self._line(start):
            try:
                return self.open(identity, opener, tuple(limits))
            except (GenerationGone, IndexCorrupt, IndexIncompatible) as error:
                if isinstance(error, GenerationGone) and self._start()[0] != start:
                    return self.open_best(opener)
                first = first or error
                limits.append(not_served(identity, error))
        reason = first.detail if first else "none is left."
        raise IndexUnavailable(f"no generation of {self.repo} can be served: {reason}", _REPAIR) from first

    def open(self, identity: str, opener: Callable[[Generation], T], limits: tuple[Limit, ...] = ()) -> T:
        """Return `opener`'s answer for generation `identity`, leased, then verified; released when `opener` fails.

        Damage to what is OPTIONAL is one Limit of that stage, all other raises GenerationGone, IndexCorrupt,
        IndexIncompatible; so does what `opener` raises.
        """
        with ExitStack() as undo:
            lock = self._lease(identity)
            undo.callback(lock.release)
            lacking = self._lacking(identity)
            generation = Generation(self.path_of(identity), self.manifest(identity), (*limits, *lacking), lock)
            undo.callback(generation.close)
            opened = opener(generation)
            undo.pop_all()
            return opened

    def path_of(self, identity: str) -> Path:
        """Return where generation `identity` lies or would lie. Raises GenerationGone for what is no generation id."""
        if not _ULID.fullmatch(identity):
            raise GenerationGone(f"{identity!r} is not a generation id.", "List them with `indexctl ls`.")
        return self.directory / "generations" / identity

    def _identities(self) -> list[str]:
        """Return every id that has a directory, published or not, newest first."""
        root = self.directory / "generations"
        with os_errors_mapped("list", root):
            names = [path.name for path in root.iterdir()] if root.is_dir() else []
        return sorted(filter(_ULID.fullmatch, names), reverse=True)

    def _parent(self, identity: str) -> str | None:
        try:
            return self.manifest(identity).parent
        except (GenerationGone, IndexCorrupt, IndexIncompatible):
            return None

    def _start(self) -> tuple[str | None, list[Limit]]:
        """Return CURRENT, or None and, unless nothing was ever published, why it names no generation on disk."""
        try:
            current = self.current_id()
        except IndexCorrupt as error:
            return None, [Limit(error.slug, "generation", error.detail, error.hint)]
        if current is not None and self.path_of(current).is_dir():
            return current, []
        if current != self.current_id():
            return self._start()
        lost = f"CURRENT of {self.repo} names {current or 'nothing'}, which is not kept."
        return None, [Limit(IndexCorrupt.slug, "generation", lost, _REPAIR)] if current or self._kept() else []

    def _kept(self) -> list[str]:
        """Return the ids of the generations that have a manifest, newest first."""
        return [identity for identity in self._identities() if self._is_whole(identity)]

    def _is_whole(self, identity: str) -> bool:
        return (self.path_of(identity) / MANIFEST).exists()

    def _line(self, start: str | None) -> Iterator[str]:
        """Yield `start`, its ancestors that are kept, nearest first, then all else that is older, newest first.

        Without a start everything is older. Parents go first: what lies between may have been rolled back.
        """
        kept = self._kept()
        ancestors = [] if start is None else [start]
        while ancestors:
            parent = self._parent(ancestors[-1])
            if parent not in kept or parent in ancestors:
                break
            ancestors.append(parent)
        yield from ancestors
        yield from (other for other in kept if other not in ancestors and (start is None or other < start))

    def _lease(self, identity: str) -> FileLock:
        """Return a shared lock on the manifest: garbage collection, in any process, takes it exclusively."""
        lock = FileLock.take(self.path_of(identity) / MANIFEST, exclusive=False)
        if lock is not None and lock.file_is_gone:
            lock.release()
            lock = None
        if lock is None:
            raise GenerationGone(f"generation {identity} of {self.repo} is not kept.", "Use the current one.")
        return lock

    def _lacking(self, identity: str) -> tuple[Limit, ...]:
        """Return what generation `identity` is served without. Raises its first problem that forbids to serve it."""
        limits: dict[str, Limit] = {}
        for path, problem in self._damage(identity, self._digests):
            stage = path.partition("/")[0]
            if stage not in OPTIONAL:
                raise problem
            limits.setdefault(stage, Limit(problem.slug, stage, problem.detail, problem.hint))
        return tuple(limits.values())

    def _problems(self, identity: str, digests: Digests) -> list[CodeIntelError]:
        return [problem for _, problem in self._damage(identity, digests)]

    def _damage(self, identity: str, digests: Digests) -> Iterator[tuple[str, CodeIntelError]]:
        """Yield each problem with the path of its file, "" for the generation's own."""
        try:
            manifest = self.manifest(identity)
        except (GenerationGone, IndexCorrupt, IndexIncompatible) as error:
            yield "", error
            return
        for found in differences(self.path_of(identity), manifest, digests):
            yield found.path, self._problem(manifest, found)

    def _problem(self, manifest: Manifest, difference: Difference) -> IndexCorrupt:
        what = f"{difference.path} of generation {manifest.generation}"
        for other in self.ls():
            if difference.found and difference.found[0] and other.files.get(difference.path) == difference.found:
                return GenerationMismatch(f"{what} is the file of generation {other.generation}.", _REPAIR)
        return IndexCorrupt(f"{what} {difference.detail}.", _REPAIR)


def not_served(identity: str, error: CodeIntelError) -> Limit:
    return Limit(
        error.slug, "generation", f"generation {identity} is not served: {error.detail}", error.hint or _REPAIR
    )
