"""From a work tree to a published, complete generation: scan → parse → publish text → encode → publish vectors.

The text half (lexical, symbols, catalogue, and whatever vectors the cache has) publishes first, so that search answers
within seconds; vectors, and then tokens and impacts where they are on, follow in generations that share its files. A
build that stops, however it stops, leaves the last published generation serving and its vectors in the cache: the next
one goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import structlog

from codeintel_rev.config.settings import EmbeddingSettings, EndpointSettings, Settings
from codeintel_rev.encoders.dense import DenseEncoder, open_encoder
from codeintel_rev.errors import IndexCorrupt, InvalidArgument, NotFound
from codeintel_rev.indexing.kin import open_kin
from codeintel_rev.indexing.progress import Report, Stopwatch
from codeintel_rev.indexing.source import SourceTree, contents_of, scan
from codeintel_rev.indexing.splade_stage import carry_impacts, held_impacts, impact_counts, publish_impacts
from codeintel_rev.indexing.text_stage import (
    COMPONENTS,
    LEXICAL_DIRECTORY,
    inherit_text,
    inputs_of,
    same_rules,
    write_text,
)
from codeintel_rev.indexing.token_stage import COUNTS, Carried, carry, held_by, linked, publish_tokens
from codeintel_rev.indexing.vector_stage import CHECKPOINT, Vectors, vectors_of
from codeintel_rev.io.catalog_builder import fill_idmap, name_chunks
from codeintel_rev.io.disk_space import check_space
from codeintel_rev.io.drafts import Draft
from codeintel_rev.io.duckdb_catalog import Catalog
from codeintel_rev.io.durable import DISK
from codeintel_rev.io.generations import GenerationStore
from codeintel_rev.io.impacts import SPLADE
from codeintel_rev.io.integrity import Digests
from codeintel_rev.io.leases import Generation
from codeintel_rev.io.manifest import Manifest, Stage
from codeintel_rev.io.progress import clear_progress, write_progress
from codeintel_rev.io.registry import Source, register, repository_directory, source_of
from codeintel_rev.io.stat_cache import StatCache
from codeintel_rev.io.vector_cache import VectorCache
from codeintel_rev.io.vector_update import linkable
from codeintel_rev.types import BuildProgress, Limit, ModelFingerprint

CACHE = "cache/vectors.sqlite"
log = structlog.get_logger(__name__)
ENGINES = ("duckdb", "faiss-cpu", "pyarrow", "tantivy", "tree-sitter")
OpenEncoder = Callable[[EmbeddingSettings, Path, EndpointSettings], DenseEncoder | None]


@dataclass(frozen=True, slots=True)
class BuildSummary:
    """What a build did. `encoded` counts the chunks whose vector had to be made, `tokens_encoded` and `impacts_encoded`
    those whose token vectors and SPLADE impacts had to be, `reasons` the files that were left out or whose syntax could
    not be used, `repaired` what was not good on disk and had to be mended first."""

    repo: str
    generation: str
    stage: str
    changed: bool
    counts: dict[str, int]
    encoded: int
    tokens_encoded: int
    impacts_encoded: int
    reasons: dict[str, int]
    repaired: tuple[Limit, ...]
    seconds: float


def build(
    repo: str,
    root: Path,
    settings: Settings,
    *,
    on_progress: Report,
    opening: OpenEncoder = open_encoder,
    digests: Digests | None = None,
) -> BuildSummary:
    """Bring the shard of `repo` up to date with the work tree at `root` and return what was done.

    `opening` gives the encoder; who builds again and again keeps the one it has (MiniLM takes 0.4 s to open), and the
    `digests` of what it has verified, which is then read once by one process, as by a server.
    Nothing is published when nothing changed. Raises BuildInProgress, InsufficientStorage, also where little space is
    left (disk_space.py), NotFound when `root` is no folder, InvalidArgument when `repo` is the name of another one, and
    whatever a stage raises; the last published generation is served meanwhile and afterwards.
    """
    started = time.monotonic()
    directory = repository_directory(settings.paths.data_dir, repo)
    store = GenerationStore(directory, digests=digests)

    def report(progress: BuildProgress) -> None:
        # A courtesy: a full disk is told by the files that matter, and mapped there.
        with suppress(OSError):
            write_progress(directory, progress)
        on_progress(progress)

    with store.builder_lock() as repaired:
        check_space(settings.paths.data_dir, settings.index)
        _hide(settings.paths.data_dir)
        tree = scan(root.resolve(), settings.source)
        _check_same_tree(directory, Source(repo, tree.root))
        register(settings.paths.data_dir, Source(repo, tree.root))
        before = store.current_id()
        with ExitStack() as held:
            kin = None if before else open_kin(settings.paths.data_dir, Source(repo, tree.root))
            if kin:
                held.enter_context(kin)
                log.info("going on from kin", repo=repo, kin=kin.manifest.repo, generation=kin.manifest.generation)
            job = _Job(store, tree, settings, Stopwatch(report), opening, kin=kin)
            held.callback(clear_progress, directory)
            held.callback(job.abandon)
            manifest = job.run()
        store.gc(settings.index.keep_generations)
        with closing(Catalog.open(store.path_of(manifest.generation), settings.duckdb)) as catalog:
            left_out = catalog.reasons()
    return BuildSummary(
        repo=repo,
        generation=manifest.generation,
        stage=manifest.stage,
        changed=manifest.generation != before,
        counts=manifest.counts,
        encoded=job.encoded,
        tokens_encoded=job.tokens_encoded,
        impacts_encoded=job.impacts_encoded,
        reasons=left_out,
        repaired=repaired,
        seconds=time.monotonic() - started,
    )


def _check_same_tree(directory: Path, source: Source) -> None:
    """Raise InvalidArgument when the name stands for another folder that is still there; a moved one may come back."""
    try:
        known = source_of(directory)
    except (NotFound, IndexCorrupt):
        return
    if known.root != source.root and known.root.is_dir():
        raise InvalidArgument(
            f"{source.name} is the name of another folder's index.", "Choose another with --name, or index that folder."
        )


class _Job:
    """One build of one shard, under its lock."""

    def __init__(
        self,
        store: GenerationStore,
        tree: SourceTree,
        settings: Settings,
        watch: Stopwatch,
        opening: OpenEncoder,
        *,
        kin: Generation | None,
    ) -> None:
        self._store = store
        self._tree = tree
        self._settings = settings
        self._watch = watch
        self._opening = opening
        self._kin = kin
        self._draft: Draft | None = None
        self._text_counts: dict[str, int] = {}
        self._changed: frozenset[str] = frozenset()
        self._tokens = Carried()
        self._impacts: dict[str, int] = {}
        self.encoded = 0
        self.tokens_encoded = 0
        self.impacts_encoded = 0

    def run(self) -> Manifest:
        """Publish what is missing and return the manifest that is current then."""
        encoder = self._opening(
            self._settings.embedding, self._settings.paths.data_dir / "models", self._settings.vllm.embed
        )
        manifest = self._without_tokens(encoder)
        if self._settings.xtr.on:
            manifest, self.tokens_encoded = publish_tokens(self._store, manifest, self._settings, encoder, self._watch)
        if self._settings.splade.on:
            manifest, self.impacts_encoded = publish_impacts(self._store, manifest, self._settings, self._watch)
        return manifest

    def _without_tokens(self, encoder: DenseEncoder | None) -> Manifest:
        """Publish text and vectors; of tokens and impacts only those that are there already."""
        contents = self._contents()
        inputs = self._inputs(contents)
        current = self._current()
        if current and (current.inputs, current.stage, current.model) == (inputs, "complete", _model(encoder)):
            return self._at_revision(current)
        origin = current or (self._kin.manifest if self._kin else None)
        draft, inputs = self._text(origin, contents, inputs)
        if encoder is None:
            return self._publish(draft, inputs, None, None)
        with closing(VectorCache.open(self._settings.paths.data_dir / CACHE, encoder.fingerprint)) as cache:
            return self._with_vectors(draft, inputs, encoder, cache)

    def abandon(self) -> None:
        """Remove what was begun and not published: a full disk is not left full."""
        if self._draft:
            self._store.abandon(self._draft)

    def _begin(self, link: tuple[str, ...] = ()) -> Draft:
        """Return a draft that goes on from the current generation, the kin where there is none, or nothing."""
        current = self._store.current_id()
        self._draft = self._store.begin(current, link, kin=None if current else self._kin)
        return self._draft

    def _current(self) -> Manifest | None:
        identity = self._store.current_id()
        return None if identity is None else self._store.manifest(identity)

    def _at_revision(self, current: Manifest) -> Manifest:
        """Return `current`, or all of its files published again when nothing but the commit they belong to changed."""
        if current.revision == self._tree.revision:
            return current
        draft = self._begin(tuple(current.files))
        manifest = self._store.publish_like(draft, replace(current, revision=self._tree.revision))
        self._draft = None
        return manifest

    def _contents(self) -> dict[str, str]:
        cache = StatCache(self._store.directory)
        contents = contents_of(self._tree, cache)
        cache.save()
        return contents

    def _inputs(self, contents: Mapping[str, str]) -> str:
        return inputs_of(self._tree, self._settings.chunking, contents)

    def _text(self, origin: Manifest | None, contents: dict[str, str], inputs: str) -> tuple[Draft, str]:
        """Return a draft with the text half, that of `origin` as far as it is the same, and its inputs.

        `origin` is the manifest of what the draft goes on from.
        """
        if origin and origin.inputs == inputs:
            others = ("vectors", *COUNTS, SPLADE)
            self._text_counts = {name: count for name, count in origin.counts.items() if name not in others}
            self._tokens = Carried.by(origin) if self._settings.xtr.on else Carried()
            self._impacts = impact_counts(origin) if self._settings.splade.on else {}
            return self._follow(self._shared), inputs
        held = held_by(self._path_of(origin)) if origin and self._settings.xtr.on else None
        impacts = held_impacts(self._path_of(origin)) if origin and self._settings.splade.on else None
        shared = (*(linked(origin) if origin and held else ()), *(impacts.links if impacts else ()))
        draft = self._follow(shared) if origin and same_rules(origin.inputs, inputs) else self._begin(shared)
        self._text_counts, self._changed = write_text(
            draft.path,
            origin.kindred if origin else self._store.repo,
            self._tree,
            contents,
            self._settings.chunking,
            tell=partial(self._watch.tell, "parse"),
        )
        if origin and origin.kindred != self._store.repo:
            name_chunks(draft.path, self._store.repo)
        if origin and held:
            self._tokens = carry(draft, origin, held)
        if impacts:
            self._impacts = carry_impacts(draft, impacts)
        return draft, self._inputs(contents)

    def _path_of(self, origin: Manifest) -> Path:
        kin = self._kin
        return kin.path if kin and kin.manifest is origin else self._store.path_of(origin.generation)

    @property
    def _shared(self) -> tuple[str, ...]:
        """The names to link, beside text and vectors, for a generation of the same chunks."""
        return (*self._tokens.files, *self._impacts)

    def _follow(self, shared: tuple[str, ...]) -> Draft:
        """Return a draft with the text half of what it goes on from, and `shared`, names of its files, linked."""
        draft = self._begin((LEXICAL_DIRECTORY, *shared))
        inherit_text(draft.path, draft.origin)
        if draft.kin:
            name_chunks(draft.path, self._store.repo)
        return draft

    def _with_vectors(self, draft: Draft, inputs: str, encoder: DenseEncoder, cache: VectorCache) -> Manifest:
        """Publish the draft with the vectors at hand, then the rest as they are encoded."""
        kept = self._kept_vectors(draft, inputs, encoder)
        vectors = vectors_of(draft.path, encoder.fingerprint.dim, kept, self._changed)
        vectors.recall(cache)
        # A few changed files are encoded in the time it takes to publish twice; a first index is not kept waiting.
        waits = draft.has_origin and vectors.missing <= CHECKPOINT
        manifest = None if waits else self._publish(draft, inputs, vectors, encoder.fingerprint)
        published = time.monotonic()
        for made in vectors.encode(encoder, cache, partial(self._watch.tell, "encode")):
            self.encoded += made
            if vectors.missing and time.monotonic() - published < self._settings.index.publish_every_s:
                continue
            follower = draft if manifest is None else self._follow(self._shared)
            manifest = self._publish(follower, inputs, vectors, encoder.fingerprint)
            published = time.monotonic()
        return manifest or self._publish(draft, inputs, vectors, encoder.fingerprint)

    def _kept_vectors(self, draft: Draft, inputs: str, encoder: DenseEncoder) -> Path | None:
        """Return what the draft goes on from when its vectors are what this build would make of the same files."""
        origin = self._store.origin_of(draft)
        if origin is None or not same_rules(origin.inputs, inputs):
            return None
        return draft.origin if origin.model == encoder.fingerprint and origin.counts["vectors"] else None

    def _publish(self, draft: Draft, inputs: str, vectors: Vectors | None, model: ModelFingerprint | None) -> Manifest:
        count = vectors.count if vectors else 0
        self._watch.tell("publish", 0, 1)
        if vectors and count:
            self._store.link(draft, linkable(draft.origin) if draft.has_origin else ())
            update = vectors.write(draft.path, self._settings.index)
            log.info("vectors written", repo=self._store.repo, generation=draft.generation, **asdict(update))
        origin = self._store.origin_of(draft)
        if count or (origin and origin.counts["vectors"]):
            fill_idmap(draft.path)
        manifest = self._store.publish(
            draft,
            revision=self._tree.revision,
            stage=_stage(vectors),
            inputs=inputs,
            model=model,
            counts=self._text_counts | {"vectors": count} | self._tokens.counts | self._impacts,
            components=COMPONENTS,
            libraries={name: version(name) for name in ENGINES},
            token_model=self._tokens.model,
        )
        self._draft = None
        self._watch.tell("publish", 1, 1)
        return manifest


def _hide(data_dir: Path) -> None:
    """Keep what is made here out of git and out of the index, should `data_dir` lie in the work tree.

    Not by one file in `data_dir` itself: it may be a folder of that name which the repository has anyway.
    """
    for folder in ("repos", "models", "cache", "clones"):
        ignore = data_dir / folder / ".gitignore"
        if not ignore.exists():
            DISK.make_directory(ignore.parent)
            DISK.write(ignore, b"*\n")


def _model(encoder: DenseEncoder | None) -> ModelFingerprint | None:
    return encoder.fingerprint if encoder else None


def _stage(vectors: Vectors | None) -> Stage:
    if vectors is None or not vectors.missing:
        return "complete"
    return "partial" if vectors.count else "lexical"
