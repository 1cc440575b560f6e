"""The write side of one shard: build a generation, publish it in one step, go back, drop the old.

Publishing, in this order: files and directories synced, MANIFEST.json written and synced, CURRENT replaced, its
directory synced. A crash between any two leaves CURRENT wholly old or wholly new. What is on disk and what the order of
ids means is told in generation_reader.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from ulid import ULID

from codeintel_rev.errors import (
    CodeIntelError,
    IndexUnavailable,
    StaleBuild,
)
from codeintel_rev.io.builder_lock import BuilderLock
from codeintel_rev.io.drafts import Draft, link_files, seal
from codeintel_rev.io.durable import DISK, Digest, Storage
from codeintel_rev.io.failpoints import reach
from codeintel_rev.io.generation_reader import GenerationReader, not_served
from codeintel_rev.io.integrity import Digests
from codeintel_rev.io.leases import FileLock, Generation
from codeintel_rev.io.manifest import MANIFEST, SCHEMA, Manifest, Stage, dump_manifest
from codeintel_rev.types import Limit, ModelFingerprint, Revision


class GenerationStore(GenerationReader):
    """A shard that can be written: by one builder at a time, in one thread; reading stays free meanwhile."""

    def __init__(self, directory: Path, storage: Storage = DISK, digests: Digests | None = None) -> None:
        super().__init__(directory, storage, digests)
        self._lock = BuilderLock(directory, self.repo)

    @contextmanager
    def builder_lock(self) -> Iterator[tuple[Limit, ...]]:
        """Be the shard's only builder, in this thread, for the block; yield what was not good and is now repaired.

        On entry CURRENT names a good generation, or does not exist; what failed lies in quarantine; orphans are gone.
        The OS frees the lock when the process dies. Raises BuildInProgress, which names the holder.
        """
        with self._exclusive() as nested:
            if nested:
                raise self._lock.in_progress()
            yield self._repair()

    def begin(self, parent: str | None, link: Iterable[str] = (), *, kin: Generation | None = None) -> Draft:
        """Return a new draft that follows `parent`, which must be CURRENT, or, where nothing is published, `kin`: a
        generation of another shard, held until the draft is published.

        `link` names files and folders of either that the draft shares unchanged. Raises StaleBuild,
        InvalidArgument for a name it does not have, IndexCorrupt, InsufficientStorage, StorageFailed.
        """
        identity = self._next_identity()
        draft = Draft(identity, parent, self.path_of(identity), kin)
        with self._abandoned_on_failure(draft):
            self._require_parent(draft)
            self._storage.make_directory(draft.path)
            self.link(draft, link)
        return draft

    def link(self, draft: Draft, names: Iterable[str]) -> None:
        """Share with `draft` files and folders of its origin, unchanged; raises as `begin` for them."""
        link_files(draft, self._published(draft), names, self._storage)

    def origin_of(self, draft: Draft) -> Manifest | None:
        """Return the manifest of what `draft` goes on from, None when from nothing. Raises as `manifest`."""
        if draft.kin:
            return draft.kin.manifest
        return self.manifest(draft.parent) if draft.parent else None

    def publish(
        self,
        draft: Draft,
        *,
        revision: Revision,
        inputs: str,
        stage: Stage,
        model: ModelFingerprint | None,
        counts: Mapping[str, int],
        components: Mapping[str, int],
        libraries: Mapping[str, str],
        token_model: str = "",
    ) -> Manifest:
        """Make `draft` the current generation, wholly or not at all, and return its manifest; durable on return.

        A draft that fails is abandoned and nothing is retried. When only the last sync fails, the generation is whole
        and served, but may not outlive a power loss. Raises StaleBuild when CURRENT is not the draft's parent,
        BuildInProgress, InvalidArgument for a draft that holds other than regular files, IndexCorrupt when a linked
        file is not what the parent published, InsufficientStorage, StorageFailed.
        """
        with self._exclusive():
            if self._is_whole(draft.generation):
                raise StaleBuild(f"generation {draft.generation} is published already.")
            with self._abandoned_on_failure(draft):
                self._require_parent(draft)
                manifest = Manifest(
                    schema=SCHEMA,
                    generation=draft.generation,
                    repo=self.repo,
                    parent=draft.parent,
                    created_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
                    revision=revision,
                    inputs=inputs,
                    stage=stage,
                    model=model,
                    counts=dict(counts),
                    components=dict(components),
                    libraries=dict(libraries),
                    files=self._seal(draft),
                    token_model=token_model,
                    family=self._family(draft),
                )
                self._write_manifest(draft, manifest)
                self._require_parent(draft)
                self._replace_current(draft.generation)
            self._storage.sync_directory(self.directory)
        return manifest

    def publish_like(self, draft: Draft, described: Manifest) -> Manifest:
        """Publish `draft` as `described`, but with an id, a date and files of its own. Raises as `publish`."""
        return self.publish(
            draft,
            revision=described.revision,
            stage=described.stage,
            inputs=described.inputs,
            model=described.model,
            counts=described.counts,
            components=described.components,
            libraries=described.libraries,
            token_model=described.token_model,
        )

    @contextmanager
    def drafting(self, parent: str, link: Iterable[str]) -> Iterator[Draft]:
        """Yield what `begin` returns. However the block ends, Ctrl-C too, what it did not publish is gone after it."""
        draft = self.begin(parent, link)
        try:
            yield draft
        finally:
            self.abandon(draft)

    def abandon(self, draft: Draft) -> None:
        """Make `draft` and its files gone; a published generation is left alone."""
        if not self._is_whole(draft.generation):
            self._storage.remove_tree(draft.path)

    def rollback(self, to: str | None = None) -> Manifest:
        """Make generation `to`, or the nearest good one before CURRENT, current again, and return its manifest.

        Newer generations stay, to roll forward to, until the next build begins. Raises BuildInProgress, the problem
        of `to` when it is not good, IndexUnavailable when there is nothing to go back to.
        """
        with self._exclusive():
            target = to or self._before_current()
            for problem in self.verify(target):
                raise problem
            self._replace_current(target)
            self._storage.sync_directory(self.directory)
            return self.manifest(target)

    def gc(self, keep: int) -> list[str]:
        """Remove all but the newest `keep` generations and return the ids removed.

        CURRENT, its parent and what is leased, by any process, stay. Raises BuildInProgress.
        """
        with self._exclusive():
            current = self.current_id()
            if current is None:
                return []
            spared = {current, self._parent(current)}
            others = [other for other in self._kept() if other not in spared]
            return [other for other in others[max(0, keep - len(spared)) :] if self._collect(other)]

    @contextmanager
    def _exclusive(self) -> Iterator[bool]:
        self._storage.make_directory(self.directory)
        with self._lock.held() as nested:
            yield nested

    @contextmanager
    def _abandoned_on_failure(self, draft: Draft) -> Iterator[None]:
        try:
            yield
        except CodeIntelError:
            self._storage.remove_tree(draft.path)
            raise

    def _next_identity(self) -> str:
        """Return an id that sorts after all others here, even when the clock went back."""
        newest = max(self._identities(), default="")
        fresh = ULID()
        if str(fresh) > newest:
            return str(fresh)
        return str(ULID.from_timestamp(ULID.from_str(newest).milliseconds + 1))

    def _require_parent(self, draft: Draft) -> None:
        """Compare and swap, the comparison: whoever moved CURRENT since the draft began wins."""
        current = self.current_id()
        if current != draft.parent:
            raise StaleBuild(
                f"{self.repo} is at generation {current}, the build began at {draft.parent}.", "Build again."
            )

    def _seal(self, draft: Draft) -> dict[str, Digest]:
        if not draft.path.is_dir():
            raise StaleBuild(f"another build removed the draft {draft.generation}.", "Build again.")
        files = seal(draft, self._published(draft), self._storage, self._digests)
        reach("publish.after_fsync")
        return files

    def _published(self, draft: Draft) -> Mapping[str, Digest]:
        origin = self.origin_of(draft)
        return origin.files if origin else {}

    def _family(self, draft: Draft) -> str:
        origin = self.origin_of(draft)
        return origin.kindred if origin and origin.kindred != self.repo else ""

    def _write_manifest(self, draft: Draft, manifest: Manifest) -> None:
        self._storage.write(draft.path / MANIFEST, dump_manifest(manifest))
        self._storage.protect(draft.path / MANIFEST)
        self._storage.sync_directory(draft.path)
        reach("publish.after_manifest")

    def _replace_current(self, identity: str) -> None:
        draft = self.directory / "CURRENT.tmp"
        self._storage.write(draft, f"{identity}\n".encode())
        reach("publish.before_replace")
        self._storage.replace(draft, self.directory / "CURRENT")
        reach("publish.after_replace")

    def _repair(self) -> tuple[Limit, ...]:
        """Point CURRENT at the nearest good generation, quarantine what stood before it, remove what is unpublished."""
        start, limits = self._start()
        good = None
        for identity in self._line(start):
            problems = self._problems(identity, self._digests)
            if not problems:
                good = identity
                break
            limits.append(not_served(identity, problems[0]))
            self._quarantine(identity)
        self._correct_current(start, good)
        for identity in self._identities():
            if good is None or identity > good or not self._is_whole(identity):
                self._collect(identity)
        return tuple(limits)

    def _correct_current(self, found: str | None, good: str | None) -> None:
        if good is None:
            self._storage.unlink(self.directory / "CURRENT")
        elif good != found:
            self._replace_current(good)
        else:
            return
        self._storage.sync_directory(self.directory)

    def _quarantine(self, identity: str) -> None:
        source = self.path_of(identity)
        if source.is_dir():
            self._storage.make_directory(self.directory / "quarantine")
            self._storage.replace(source, self.directory / "quarantine" / f"{identity}.{ULID()}")
            self._storage.sync_directory(self.directory / "quarantine")
            self._storage.sync_directory(source.parent)
            reach("repair.after_quarantine")

    def _before_current(self) -> str:
        start, _ = self._start()
        for identity in self._line(start):
            if identity != start and not self.verify(identity):
                return identity
        raise IndexUnavailable(f"{self.repo} has no good generation to go back to.", "Rebuild the index.")

    def _collect(self, identity: str) -> bool:
        """Remove generation `identity` unless it is leased; return whether it went. Its manifest goes first, so that a
        crash leaves an orphan and not a damaged generation."""
        path = self.path_of(identity)
        lock = FileLock.take(path / MANIFEST, exclusive=True)
        if lock is None and self._is_whole(identity):
            return False
        with ExitStack() as held:
            if lock:
                held.callback(lock.release)
            self._storage.unlink(path / MANIFEST)
            self._storage.sync_directory(path)
            reach("gc.after_unlink")
            self._storage.remove_tree(path)
        return True
