"""The late-interaction half of a generation: what its parent's index has, then what must be encoded, part by part.

Generations that follow a complete one share all of its files and add `xtr/`. A chunk's tokens are those of the text
that is encoded, which may change under one id, so the index keeps a hash of it: what is gone is deleted, what is new
or reads otherwise is appended. Chunks are encoded in the order of their ids, which are hashes: any part is a random
sample, on the first of which the codec is trained; each published part is kept by a build that follows a killed one.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import chain, islice
from pathlib import Path
from typing import Self

import numpy as np

from codeintel_rev.config.settings import Settings
from codeintel_rev.encoders.dense import DenseEncoder, embedding_text
from codeintel_rev.encoders.token_encoder import fitted_projection, open_token_encoder
from codeintel_rev.encoders.tokens import Projection, TokenEncoder
from codeintel_rev.errors import IndexCorrupt, IndexIncompatible
from codeintel_rev.indexing.progress import Stopwatch
from codeintel_rev.io.drafts import Draft
from codeintel_rev.io.duckdb_catalog import Catalog, read_chunks
from codeintel_rev.io.generations import GenerationStore
from codeintel_rev.io.manifest import Manifest
from codeintel_rev.io.token_index import (
    PROJECTION,
    TOKENS,
    XTR,
    TokenBuild,
    among,
    read_build,
    read_projection,
    read_texts,
    token_directory,
    token_model_id,
    write_build,
    write_projection,
    write_texts,
)
from codeintel_rev.types import Chunk, Ids
from codeintel_rev.xtr import build as engine
from codeintel_rev.xtr import storage
from codeintel_rev.xtr.config import BuildConfig
from codeintel_rev.xtr.metrics import Figure

COUNTS = ("tokens", "tokens_cut")
AT_ONCE = 256
PART = 4096
SAMPLED = 128
LONGEST = 8192
"""Characters, and tokens, of one chunk: twenty times the usual. `tokens_cut` counts the chunks that are longer."""
MOST_SEGMENTS, MOST_DELETED = 8, 0.1


@dataclass(frozen=True, slots=True)
class Carried:
    """What a generation says of the token vectors it carries; nothing where it has none."""

    model: str = ""
    counts: dict[str, int] = field(default_factory=dict)

    @classmethod
    def by(cls, manifest: Manifest) -> Self:
        return cls(manifest.token_model, {name: manifest.counts[name] for name in COUNTS if name in manifest.counts})

    @property
    def files(self) -> tuple[str, ...]:
        """The names to link for a generation of the same chunks."""
        return (XTR,) if self.model else ()


@dataclass(frozen=True, slots=True)
class Held:
    """A sound index and the texts (n, 2) of its documents."""

    index: storage.Manifest
    texts: Ids
    build: TokenBuild


def held_by(generation: Path) -> Held | None:
    """Return the index of the generation at `generation`; None when there is none to go on from."""
    directory = token_directory(generation)
    if not directory.is_dir():
        return None
    try:
        held = Held(storage.read_manifest(directory / TOKENS), read_texts(directory), read_build(directory))
        documents = _document_ids(directory / TOKENS, held.index)
    except (IndexCorrupt, IndexIncompatible):
        return None  # Its chunks are encoded anew.
    return held if np.array_equal(documents, held.texts[:, 0]) else None


def linked(manifest: Manifest) -> tuple[str, ...]:
    """Return the names to link of the index of generation `manifest` for one that differs: texts and figures will."""
    projection = f"{XTR}/{PROJECTION}"
    return (f"{XTR}/{TOKENS}", *((projection,) if projection in manifest.files else ()))


def carry(draft: Draft, parent: Manifest, held: Held) -> Carried:
    """Leave in `draft`, of other chunks than `parent`, the tokens of those chunks that read as they did.

    REQUIRES: `linked(parent)` are linked, and the chunks of the draft are written.
    """
    directory = token_directory(draft.path)
    kept = among(held.texts, texts_of(read_chunks(draft.path)))
    figures = _Figures(held.build.figures)
    if not kept.all():
        engine.delete(directory / TOKENS, held.texts[~kept, 0], figures)
    build = TokenBuild(held.build.missing, figures.by_name)
    return _sealed(directory, parent.token_model, held.texts[kept], build)


def compact_tokens(draft: Draft, parent: Manifest, held: Held) -> Carried:
    """Leave in `draft`, of the same chunks as `parent`, its tokens as one segment without deleted documents.

    REQUIRES: `linked(parent)` are linked.
    """
    directory = token_directory(draft.path)
    figures = _Figures(held.build.figures)
    engine.compact(directory / TOKENS, figures)
    return _sealed(directory, parent.token_model, held.texts, TokenBuild(held.build.missing, figures.by_name))


def publish_tokens(
    store: GenerationStore, current: Manifest, settings: Settings, dense: DenseEncoder | None, watch: Stopwatch
) -> tuple[Manifest, int]:
    """Publish generations that follow `current` until one has the tokens of every chunk.

    Return the manifest that is current then, and how many chunks were encoded. `dense` is the configured encoder, whose
    session the tokens may share. Nothing is published where nothing is missing. REQUIRES: the builder's lock. Raises
    SettingsError where no model makes token vectors, EncoderFailed, DimensionMismatch, and what writing raises.
    """
    generation = store.path_of(current.generation)
    held = held_by(generation)
    encoder = _encoder_of(held, generation, settings, dense) if held else None
    if held and encoder and len(held.texts) == current.counts["chunks"] and not _crowded(held.index, MOST_SEGMENTS):
        return current, 0
    with closing(Catalog.open(generation, settings.duckdb)) as catalog:
        wanted = texts_of(catalog.chunks())
        start = (
            _Start(encoder, None, held)
            if held and encoder and not _mostly_new(wanted, held)
            else _anew(catalog, current, settings, dense)
        )
        job = _Job(store, current, settings, start=start, catalog=catalog, wanted=wanted, watch=watch)
        return job.run(), job.encoded


@dataclass(frozen=True, slots=True)
class _Start:
    """With what a build begins; where it begins anew, nothing is `held`, and `projection` is to be written."""

    encoder: TokenEncoder
    projection: Projection | None
    held: Held | None


def _anew(catalog: Catalog, current: Manifest, settings: Settings, dense: DenseEncoder | None) -> _Start:
    projection = fitted_projection(settings, dense, _sample(catalog, current)) if dense else None
    return _Start(open_token_encoder(settings, dense, _models(settings), projection), projection, None)


def _encoder_of(held: Held, generation: Path, settings: Settings, dense: DenseEncoder | None) -> TokenEncoder | None:
    """Return the configured encoder when it, with the projection stored in `generation`, made what is `held`."""
    try:
        stored = read_projection(token_directory(generation))
        projection = Projection.from_bytes(stored) if stored is not None else None
        encoder = open_token_encoder(settings, dense, _models(settings), projection)
    except (IndexCorrupt, IndexIncompatible):
        return None  # The projection is of another model, or of none: a new one is fitted.
    made = (token_model_id(encoder.fingerprint), settings.xtr.quant_bits)
    return encoder if made == (held.index.model_id, held.index.quant_bits) else None


def _models(settings: Settings) -> Path:
    return settings.paths.data_dir / "models"


def _mostly_new(wanted: Ids, held: Held) -> bool:
    """Whether more than half of the chunks are others than those the codec was, or was to be, made for."""
    kept = int(among(wanted, held.texts).sum())
    return len(wanted) - kept - held.build.missing > len(wanted) / 2


def _sample(catalog: Catalog, manifest: Manifest) -> list[str]:
    step = max(1, manifest.counts["chunks"] // SAMPLED)
    return [embedding_text(chunk) for chunk in islice(catalog.chunks(), 0, None, step)]


class _Job:
    """One index being brought up to date, from one published part to the next."""

    def __init__(
        self,
        store: GenerationStore,
        current: Manifest,
        settings: Settings,
        *,
        start: _Start,
        catalog: Catalog,
        wanted: Ids,
        watch: Stopwatch,
    ) -> None:
        self._store = store
        self._current = current
        self._settings = settings
        self._start = start
        self._catalog = catalog
        self._wanted = wanted
        self._watch = watch
        self._model = token_model_id(start.encoder.fingerprint)
        self._texts = start.held.texts if start.held else wanted[:0]
        self._exists = start.held is not None
        self._figures = _Figures(start.held.build.figures if start.held else {})
        self.encoded = 0

    def run(self) -> Manifest:
        missing = self._wanted[~among(self._wanted, self._texts)]
        parts = [missing[at : at + PART] for at in range(0, len(missing), PART)] or [missing]
        self._watch.tell("tokens", len(self._texts), len(self._wanted))
        while parts:
            with self._draft() as draft:
                directory = token_directory(draft.path)
                self._prune(directory)
                self._add_for_a_while(directory, parts)
                if not parts:
                    self._compact(directory)
                self._publish(draft)
        return self._current

    def _draft(self) -> AbstractContextManager[Draft]:
        """Return a draft that shares everything."""
        others = {path.partition("/")[0] for path in self._current.files} - {XTR}
        names = (*sorted(others), *(linked(self._current) if self._exists else ()))
        return self._store.drafting(self._current.generation, names)

    def _prune(self, directory: Path) -> None:
        """Delete what is gone or reads otherwise by now."""
        kept = among(self._texts, self._wanted)
        if not kept.all():
            engine.delete(directory / TOKENS, self._texts[~kept, 0], self._figures)
            self._texts = self._texts[kept]

    def _add_for_a_while(self, directory: Path, parts: list[Ids]) -> None:
        """Add parts, the first of `parts` first, until it is time to publish or none is left."""
        started = time.monotonic()
        while parts:
            self._add(directory, parts.pop(0))
            if time.monotonic() - started >= self._settings.index.publish_every_s:
                return

    def _add(self, directory: Path, part: Ids) -> None:
        texts = part.copy()
        documents = self._documents(texts)
        if not self._exists:
            self._build(directory, documents)
        elif len(part):
            engine.append(directory / TOKENS, documents, self._figures)
        self._texts = np.concatenate([self._texts, texts])
        self._texts = self._texts[np.argsort(self._texts[:, 0])]

    def _build(self, directory: Path, documents: Iterator[engine.Document]) -> None:
        """Make the index of a first part, with as many centroids as suit all of them."""
        first = list(islice(documents, AT_ONCE))
        mean = sum(len(vectors) for _, vectors in first) // max(1, len(first))
        nlist = centroids_for(max(1, mean), len(self._wanted)) if len(self._wanted) > PART else 0
        config = BuildConfig(
            directory / TOKENS,
            self._start.encoder.fingerprint.dim,
            self._model,
            quant_bits=2 if self._settings.xtr.quant_bits == 2 else 4,
            nlist=nlist,
            max_doclen=LONGEST,
        )
        engine.build_index(config, chain(first, documents), self._figures)
        if self._start.projection:
            write_projection(directory, self._start.projection.to_bytes())
        self._exists = True

    def _documents(self, texts: Ids) -> Iterator[engine.Document]:
        """Encode the chunks `texts` (n, 2), and mark there those that were cut."""
        for at in range(0, len(texts), AT_ONCE):
            some = texts[at : at + AT_ONCE]
            chunks, _ = self._catalog.hydrate(some[:, 0])
            read = [embedding_text(chunk) for chunk in chunks]
            encoded = self._start.encoder.encode_documents([text[:LONGEST] for text in read])
            for row, text, document in zip(some, read, encoded, strict=True):
                if max(len(text), len(document.tokens)) > LONGEST:
                    row[1] = -row[1]
                yield int(row[0]), document.tokens[:LONGEST]
            self.encoded += len(some)
            self._watch.tell("tokens", len(self._texts) + at + len(some), len(self._wanted))

    def _compact(self, directory: Path) -> None:
        """Merge segments where they are many; those of a first build, made in parts, always."""
        index = storage.read_manifest(directory / TOKENS)
        in_parts = self._start.held is None or self._start.held.build.missing
        if _crowded(index, 1 if in_parts else MOST_SEGMENTS):
            engine.compact(directory / TOKENS, self._figures)

    def _publish(self, draft: Draft) -> None:
        self._watch.tell("publish", 0, 1)
        build = TokenBuild(len(self._wanted) - len(self._texts), self._figures.by_name)
        carried = _sealed(token_directory(draft.path), self._model, self._texts, build)
        current = self._current
        described = replace(current, counts=current.counts | carried.counts, token_model=carried.model)
        self._current = self._store.publish_like(draft, described)
        self._watch.tell("publish", 1, 1)


class _Figures:
    """Listens to the engine: milliseconds add up, of all else the last value counts."""

    def __init__(self, before: Mapping[str, float]) -> None:
        self.by_name = {**before, Figure.BUILD_TRAIN_MS.value: 0.0, Figure.BUILD_WRITE_MS.value: 0.0}

    def __call__(self, figure: Figure, value: float) -> None:
        before = self.by_name.get(figure, 0.0) if figure.endswith("_ms") else 0.0
        self.by_name[figure.value] = before + value


def texts_of(chunks: Iterable[Chunk]) -> Ids:
    """Return the (n, 2) chunk_id, ascending, and hash of what is encoded, of every one of `chunks`."""
    rows = chain.from_iterable((chunk.chunk_id, _digest(embedding_text(chunk))) for chunk in chunks)
    found = np.fromiter(rows, np.int64).reshape(-1, 2)
    return found[np.argsort(found[:, 0])]


def _digest(text: str) -> int:
    """Return a 63-bit hash of `text`."""
    return int.from_bytes(blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()) >> 1


def _crowded(index: storage.Manifest, most: int) -> bool:
    """Whether `index` has more than `most` segments that are not full, or too many deleted documents."""
    deleted = sum(segment.deleted_documents for segment in index.segments)
    full = index.documents // storage.SEGMENT_DOCUMENTS
    return len(index.segments) > most + full or deleted > MOST_DELETED * (index.documents + deleted)


def _document_ids(index_dir: Path, index: storage.Manifest) -> Ids:
    """Return the ids (n,) of the documents that are not deleted, ascending."""
    segments = [storage.Segment(index_dir, entry) for entry in index.segments]
    return np.sort(np.concatenate([np.empty(0, np.int64), *(one.doc_ids[one.live] for one in segments)]))


def _sealed(directory: Path, model: str, texts: Ids, build: TokenBuild) -> Carried:
    """Write what stands beside the engine's files, and remove those of its files that it left behind."""
    storage.remove_unreferenced(directory / TOKENS, storage.read_manifest(directory / TOKENS))
    write_texts(directory, texts)
    write_build(directory, build)
    return Carried(model, {"tokens": len(texts), "tokens_cut": int((texts[:, 1] < 0).sum())})


def centroids_for(tokens: int, chunks: int) -> int:
    """Return the centroids of an index of `chunks` of about `tokens` tokens each that begins with PART of them.

    As many as suit all, but no more than the first part can train: with 16 tokens to each recall@10 fell by .03.
    """
    return min(engine.centroid_count(tokens * chunks), max(1, tokens * PART // engine.SAMPLE_PER_CENTROID))
