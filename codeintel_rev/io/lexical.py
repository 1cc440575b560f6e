"""Which chunks hold these words, and which define this name? BM25 and symbol lookup over one tantivy index.

The directory `lexical/` of a generation holds a tantivy index of one document a chunk (format 1):

    chunk_id    i64, indexed and fast: the one id (law 1)
    body, path, defines    tokens of `code_tokens`, with frequencies: path, symbol, header and text; the path; the names
                           of the definitions that start in the chunk
    qualified, name, suffix    their qualified names, names and the dotted ends of both, folded and exact

Segment files are created under a new name and never written again, and `meta.json` and `.managed.json` are replaced by
renaming a temporary file over them (read in tantivy's `mmap_directory`, shown by the tests). So a child generation may
start from hard links to its parent's files, and a kill at any moment leaves the last commit. Lock files are no part of
the index: the writer removes its own, and the reader, which would create one even on a read-only volume, opens links
in a temporary directory instead. No check of the content is made here: tantivy lets most flipped bits pass, so the
manifest's SHA-256 must be verified before `LexicalIndex.open`.

tantivy's BM25 has k1 = 1.2 and b = 0.75. Counts behind idf and the average length include deleted chunks until their
segment is merged away, so scores may differ a little from those of an index made at once.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from tempfile import mkdtemp
from types import TracebackType

import numpy as np
import tantivy
from numpy.typing import NDArray
from tantivy import Occur, Query

from codeintel_rev.errors import (
    ChannelFailed,
    CodeIntelError,
    IndexCorrupt,
    IndexIncompatible,
    InsufficientStorage,
    StorageFailed,
)
from codeintel_rev.io.code_tokens import query_weights, tokenize
from codeintel_rev.types import Chunk, Definition, Floats, Ids, Ranking, Selection

FORMAT = 1
# Chosen on the sets of `code_tokens`: path .5 costs .01 on questions about repositories, defines .5 costs .018 on
# docstring → function and gains .013 on web queries; defines 1 the reverse. The text alone: .620 .462 .405.
BOOSTS = {"body": 1.0, "path": 0.75, "defines": 0.75}
MAX_QUERY_TERMS = 256
MAX_NAMES = 32
MAX_PREFIX_TERMS = 64
# Beyond this many ids a pushed-down set (1 µs an id and query) costs more than ranking deeper and skipping.
MAX_PUSHED_IDS = 5_000

# One thread: the same chunks in the same order give the same segments, and indexing is bound by Python's tokenizer.
_WRITER_THREADS = 1
_WRITER_HEAP_BYTES = 128 * 1024 * 1024
_NEARLY_FULL_BYTES = 1024 * 1024
_TOKENS = "tokens"
_RAW = "raw"
# All that tantivy tells of a failure's kind are the words of its message.
_KINDS: dict[str, tuple[type[CodeIntelError], str, str]] = {
    "No space left on device": (InsufficientStorage, "the disk is full.", "Free space."),
    "IncompatibleIndex": (IndexIncompatible, "it was written by another tantivy.", "Rebuild the index."),
}
_SEPARATOR = re.compile(r"::|->|[#/\\]")

_QUALIFIED, _NAME, _SUFFIX, _PREFIX, _OWNER = 5.0, 4.0, 3.0, 2.0, 1.0


def _schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    builder.add_integer_field("chunk_id", indexed=True, fast=True)
    for field in BOOSTS:
        builder.add_text_field(field, tokenizer_name=_TOKENS, index_option="freq")
    for field in ("qualified", "name", "suffix"):
        builder.add_text_field(field, tokenizer_name=_RAW, index_option="basic")
    return builder.build()


SCHEMA = _schema()


class LexicalWriter:
    """Adds and deletes chunks of the index in `directory`, which is created when missing.

    A context manager; one writer a directory. What was not committed when it closes is dropped.
    """

    def __init__(self, directory: Path) -> None:
        """Raises IndexIncompatible for an index of another format, IndexCorrupt, InsufficientStorage, StorageFailed."""
        self._directory = directory
        with _mapped(StorageFailed, "cannot create the lexical index"):
            directory.mkdir(parents=True, exist_ok=True)
        with self._writing("open"):
            index = _open(directory) if tantivy.Index.exists(str(directory)) else _create(directory)
            self._writer = index.writer(_WRITER_HEAP_BYTES, _WRITER_THREADS)

    def __enter__(self) -> LexicalWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for merges and leave nothing but the index in the directory; after an error, only let go of it."""
        if error is not None:
            del self._writer
            return
        with self._writing("close"):
            self._writer.wait_merging_threads()
            for lock in self._directory.glob(".tantivy-*.lock"):
                lock.unlink()

    def add(self, chunk: Chunk, defined: Sequence[Definition]) -> None:
        """Add a chunk and the definitions that start in it. REQUIRES: no chunk of that id is in the index."""
        with self._writing("add to"):
            self._writer.add_document(_document(chunk, defined))

    def delete(self, chunk_ids: Ids) -> None:
        """Delete chunks; an id that is not in the index is no error."""
        with self._writing("delete from"):
            for chunk_id in chunk_ids.tolist():
                self._writer.delete_documents_by_term("chunk_id", chunk_id)

    def commit(self) -> None:
        """Make everything added and deleted so far durable and visible to the next reader, or nothing of it."""
        with self._writing("commit"):
            self._writer.commit()

    @contextmanager
    def _writing(self, action: str) -> Iterator[None]:
        """Raise InsufficientStorage or StorageFailed. Of a worker thread's error tantivy keeps not even the words."""
        try:
            with _mapped(StorageFailed, f"cannot {action} the lexical index"):
                yield
        except StorageFailed as failure:
            if shutil.disk_usage(self._directory).free < _NEARLY_FULL_BYTES:
                raise InsufficientStorage(
                    f"cannot {action} the lexical index: the disk is full.", "Free space."
                ) from failure
            raise


def dead_share(directory: Path) -> float:
    """Return the share of deleted chunks among all that the index in `directory` still holds. Raises IndexCorrupt."""
    try:
        segments = json.loads((directory / "meta.json").read_bytes())["segments"]
        held = sum(segment["max_doc"] for segment in segments)
        dead = sum(segment["deletes"]["num_deleted_docs"] for segment in segments if segment["deletes"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IndexCorrupt("lexical index cannot be opened: meta.json is not readable.", "Build again.") from error
    return float(dead / max(held, 1))


class LexicalIndex:
    """The chunks of one commit, for reading; safe to use from many threads. Its memory maps live as long as it does."""

    def __init__(self, searcher: tantivy.Searcher) -> None:
        self._searcher = searcher

    @classmethod
    def open(cls, directory: Path) -> LexicalIndex:
        """Open what was last committed. Raises IndexIncompatible, IndexCorrupt."""
        with _mapped(IndexCorrupt, "lexical index cannot be opened"), _links_to(directory) as links:
            return cls(_open(links).searcher())

    def chunk_ids(self) -> Ids:
        """Return every chunk_id in the index, ascending."""
        with _mapped(IndexCorrupt, "lexical index cannot be read"):
            return np.sort(self._hits(Query.all_query(), self._searcher.num_docs)[0])

    def search(self, query: str, k: int, *, title: str = "", selection: Selection | None = None) -> Ranking:
        """Return the at most `k` chunks of the selection that share words with `query`, by BM25.

        Words of `title`, a part of `query`, count twice. Of a long query (a traceback, an issue) the `MAX_QUERY_TERMS`
        rarest words count. Empty when no word is known. Raises ChannelFailed.
        """
        with _mapped(ChannelFailed, "lexical channel failed"):
            return self._top("lexical", self._text_query(query, title), k, selection)

    def symbols(self, names: Sequence[str], k: int, *, selection: Selection | None = None) -> Ranking:
        """Return the at most `k` chunks that define one of `names`, whatever the case; more names found count more.

        A name counts by its best match: qualified name, name, dotted end of a qualified name, beginning (nearer to the
        whole is better), and last the dotted end of `names` itself, for who asks with a module the index leaves out.
        Raises ChannelFailed.
        """
        with _mapped(ChannelFailed, "symbol channel failed"):
            folded = dict.fromkeys(filter(None, map(_folded, names)))
            asked = [(Occur.Should, self._name_query(name)) for name in islice(folded, MAX_NAMES)]
            return self._top("symbols", Query.boolean_query(asked), k, selection)

    def _text_query(self, query: str, title: str) -> Query:
        stressed = frozenset(tokenize(title))
        weights = query_weights(query)
        terms = self._known({term: weight * (1 + (term in stressed)) for term, weight in weights.items()})
        return Query.boolean_query(
            [
                (Occur.Should, Query.boost_query(_term(field, term), boost * weight))
                for term, weight in terms.items()
                for field, boost in BOOSTS.items()
            ]
        )

    def _known(self, weights: Mapping[str, float]) -> dict[str, float]:
        """Leave the terms that occur at all, the rarest `MAX_QUERY_TERMS` of them, in the order asked."""
        frequency = {term: sum(self._searcher.doc_freq(field, term) for field in BOOSTS) for term in weights}
        known = [term for term in weights if frequency[term]]
        rarest = set(sorted(known, key=frequency.__getitem__)[:MAX_QUERY_TERMS])
        return {term: weights[term] for term in known if term in rarest}

    def _name_query(self, name: str) -> Query:
        exact = [("qualified", name, _QUALIFIED), ("name", name, _NAME), ("suffix", name, _SUFFIX)]
        owned = [("qualified", end, _OWNER + len(end) / (len(name) + 1)) for end in _dotted_ends(name)]
        field = "qualified" if "." in name else "name"
        begun = [
            (field, term, _PREFIX + len(name) / (len(term) + 1))
            for term, _ in self._searcher.terms_with_prefix(field, name, limit=MAX_PREFIX_TERMS)
        ]
        return Query.disjunction_max_query(
            [Query.const_score_query(_term(field, term), score) for field, term, score in exact + begun + owned]
        )

    def _top(self, channel: str, query: Query, k: int, selection: Selection | None) -> Ranking:
        """Rank deeper until `k` allowed chunks, and all that tie with the last of them, have been seen."""
        k = min(k, self._searcher.num_docs)
        allowed = None if selection is None else selection.chunk_ids
        if allowed is not None and len(allowed) <= MAX_PUSHED_IDS:
            query, allowed = _within(query, allowed), None
        limit = k + 16
        while True:
            found, scores = self._hits(query, limit)
            kept = np.ones(len(found), dtype=np.bool_) if allowed is None else _among(found, allowed)
            chosen = scores[kept]
            if len(found) < limit or (len(chosen) >= k and chosen[k - 1] > scores[-1]):
                return _ranking(channel, found[kept], chosen, k)
            limit *= 4

    def _hits(self, query: Query, limit: int) -> tuple[Ids, Floats]:
        """Return ids and scores of the best `limit` matches, best first; ties in no order that means anything."""
        if not limit:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        hits = self._searcher.search(query, min(limit, self._searcher.num_docs or 1), count=False).hits
        ids = self._searcher.fast_field_values("chunk_id", [address for _, address in hits])
        if None in ids:
            raise IndexCorrupt("lexical index holds a chunk without its id.")
        return np.array(ids, dtype=np.int64), np.array([score for score, _ in hits], dtype=np.float32)


@contextmanager
def _mapped(error: type[CodeIntelError], what: str) -> Iterator[None]:
    """Raise tantivy's failures as `error`: ValueErrors, and Rust panics, a BaseException whose type has no import."""
    try:
        yield
    except (ValueError, OSError) as cause:
        for words, (kind, reason, hint) in _KINDS.items():
            if words in str(cause):
                raise kind(f"{what}: {reason}", hint) from cause
        raise error(f"{what}: {type(cause).__name__}.") from cause
    except BaseException as cause:
        if type(cause).__module__ != "pyo3_runtime":
            raise
        raise error(f"{what}: the engine panicked.") from cause


@contextmanager
def _links_to(directory: Path) -> Iterator[Path]:
    """Yield a temporary directory of links to the index's files. Once opened they are mapped and need no name."""
    links = Path(mkdtemp(prefix="codeintel-lexical-"))
    try:
        for file in directory.iterdir():
            if file.suffix != ".lock":
                (links / file.name).symlink_to(file.resolve())
        yield links
    finally:
        # Twice: tantivy's first look at meta.json runs in a thread of its own and may put one lock file back meanwhile.
        shutil.rmtree(links, ignore_errors=True)
        shutil.rmtree(links, ignore_errors=True)


def _create(directory: Path) -> tantivy.Index:
    return _prepared(tantivy.Index(SCHEMA, str(directory)))


def _open(directory: Path) -> tantivy.Index:
    with _mapped(IndexCorrupt, "lexical index cannot be opened"):
        index = tantivy.Index.open(str(directory))
        if index.schema != SCHEMA:
            raise IndexIncompatible(f"lexical index does not have the fields of format {FORMAT}.", "Rebuild the index.")
        return _prepared(index)


def _prepared(index: tantivy.Index) -> tantivy.Index:
    """Register the tokenizer, which belongs to the object and not to the files, and stop the polling of `meta.json`."""
    index.register_tokenizer(_TOKENS, tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.whitespace()).build())
    index.config_reader("manual")
    return index


def _document(chunk: Chunk, defined: Sequence[Definition]) -> tantivy.Document:
    qualified = [_folded(definition.qualified_name) for definition in defined]
    return tantivy.Document(
        chunk_id=chunk.chunk_id,
        body=_tokens(chunk.path, chunk.symbol, chunk.header, chunk.text),
        path=_tokens(chunk.path),
        defines=_tokens(*(definition.name for definition in defined)),
        qualified=qualified,
        name=[_folded(definition.name) for definition in defined],
        suffix=[end for name in qualified for end in _dotted_ends(name)],
    )


def _tokens(*texts: str) -> str:
    return " ".join(chain.from_iterable(map(tokenize, texts)))


def _folded(name: str) -> str:
    """Return a name as it is compared: `Foo::bar()` → `foo.bar`. A lone surrogate, which Rust refuses, is escaped."""
    plain = _SEPARATOR.sub(".", name.strip().removesuffix("()")).strip(".")
    return plain.casefold().encode("utf-8", "backslashreplace").decode()


def _dotted_ends(name: str) -> list[str]:
    """Return the proper dotted suffixes, longest first; none for a plain name."""
    parts = name.split(".")
    return [".".join(parts[start:]) for start in range(1, len(parts))]


def _term(field: str, term: str) -> Query:
    return Query.term_query(SCHEMA, field, term, index_option="freq" if field in BOOSTS else "basic")


def _within(query: Query, chunk_ids: Ids) -> Query:
    """Return `query` with its scores, matching only the given chunks."""
    allowed = Query.const_score_query(Query.term_set_query(SCHEMA, "chunk_id", chunk_ids.tolist()), 0.0)
    return Query.boolean_query([(Occur.Must, query), (Occur.Must, allowed)])


def _among(ids: Ids, ascending: Ids) -> NDArray[np.bool_]:
    places = np.searchsorted(ascending, ids).clip(max=len(ascending) - 1)
    present: NDArray[np.bool_] = ascending[places] == ids
    return present


def _ranking(channel: str, ids: Ids, scores: Floats, k: int) -> Ranking:
    order = np.lexsort((ids, -scores))[:k]
    return Ranking(channel, ids[order], scores[order])
