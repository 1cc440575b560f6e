"""How fast, small and good is late interaction? One figure a line with its bound: `python -m benchmarks xtr`.

`python -m benchmarks.xtr 100000` takes another number of documents. Corpora are synthetic: documents of 60 to 180 unit
vectors of 128 d around 20,000 Zipf-distributed centres with a falling spectrum, a topic and a document part, and noise;
queries of 32 vectors, most of them noisy tokens of one document. `--real TREE QUERIES.jsonl 1000` takes the first so
many chunks of a source tree, encoded by the embedded model, and lines
`{"query": …}` instead. Times are CPU time of one thread, medians of 40 queries, what is compared interleaved. Compiling
is not counted.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from codeintel_rev.config.settings import EmbeddingSettings, SourceSettings
from codeintel_rev.encoders import minilm
from codeintel_rev.encoders.dense import embedding_text
from codeintel_rev.encoders.minilm_tokens import SAMPLED_TEXTS, MiniLMTokens, fitted_projection
from codeintel_rev.indexing.chunking import chunk_file
from codeintel_rev.indexing.source import read_file, scan
from codeintel_rev.types import Floats, Ids, SourceFile
from codeintel_rev.xtr import rescore, search
from codeintel_rev.xtr.build import Document, append, build_index, delete
from codeintel_rev.xtr.centroids import _lloyd, nearest, train
from codeintel_rev.xtr.codec import to_bytes
from codeintel_rev.xtr.config import BuildConfig, SearchConfig
from codeintel_rev.xtr.dots import int8_dots
from codeintel_rev.xtr.search import Scores, XTRSearch

DIM, QUERIES, QUERY_TOKENS, CANDIDATES = 128, 40, 32, 200
CENTRES, TOPICS, BLOCK = 20_000, 400, 2_000
FIRST_SEARCH = """
import sys, time
start = time.process_time()
from pathlib import Path
import numpy as np
from codeintel_rev.xtr.config import SearchConfig
from codeintel_rev.xtr.dots import int8_dots
from codeintel_rev.xtr.search import XTRSearch
imported = time.process_time()
index = XTRSearch.open(SearchConfig(Path(sys.argv[1])))
index.warm()
warm = time.process_time()
index.search(np.eye(32, int(sys.argv[2]), dtype=np.float32))
found = time.process_time()
print(f"{imported - start:.2f} {warm - imported:.2f} {(found - warm) * 1e3:.1f}")
"""


class Corpus:
    """Documents by number, made a block at a time, always the same."""

    def __init__(self, count: int) -> None:
        random = np.random.default_rng(0)
        self.count = count
        self._rotation = np.linalg.qr(random.standard_normal((DIM, DIM)))[0].astype(np.float32)
        self._centres = _unit(self._shaped(random.standard_normal((CENTRES, DIM), np.float32)))
        self._topics = _unit(self._shaped(random.standard_normal((TOPICS, DIM), np.float32)))
        share = 1 / np.arange(1, CENTRES + 1) ** 0.9
        self._share = share / share.sum()
        self._words = np.stack([random.choice(CENTRES, 600, replace=False, p=self._share) for _ in range(TOPICS)])

    def documents(self, start: int = 0, stop: int | None = None) -> Iterator[Document]:
        for first in range(start, self.count if stop is None else stop, BLOCK):
            yield from self._block(first)

    def queries(self) -> list[Floats]:
        random = np.random.default_rng(1)
        known = list(self._block(0))[: min(self.count, BLOCK)]
        return [self._query(random, known[random.integers(len(known))][1]) for _ in range(QUERIES)]

    def _query(self, random: np.random.Generator, tokens: Floats) -> Floats:
        rows = tokens[random.choice(len(tokens), QUERY_TOKENS)]
        other = random.random(QUERY_TOKENS) < 0.3
        rows[other] = self._centres[random.choice(CENTRES, int(other.sum()), p=self._share)]
        return _unit(rows + 0.55 * _noise(random, QUERY_TOKENS))

    def _block(self, first: int) -> list[Document]:
        random = np.random.default_rng([2, first])
        counts = random.integers(60, 181, min(BLOCK, max(self.count - first, 0)) if first < self.count else BLOCK)
        topic = np.repeat(random.integers(0, TOPICS, len(counts)), counts)
        word = random.choice(CENTRES, len(topic), p=self._share)
        topical = random.random(len(topic)) < 0.5
        word[topical] = self._words[topic[topical], random.integers(0, 600, int(topical.sum()))]
        own = np.repeat(_noise(random, len(counts)), counts, axis=0)
        noise = 0.45 * _noise(random, len(topic))
        tokens = _unit(self._centres[word] + 0.35 * self._topics[topic] + 0.35 * own + noise)
        return list(zip(range(first, first + len(counts)), np.split(tokens, np.cumsum(counts)[:-1]), strict=True))

    def _shaped(self, rows: Floats) -> Floats:
        return (rows / np.arange(1, DIM + 1, dtype=np.float32) ** 0.35) @ self._rotation


class RealCorpus:
    """Chunks of a source tree and questions, as token vectors."""

    def __init__(self, tree: Path, questions: Path, count: int) -> None:
        source = SourceSettings()
        read = (read_file(tree, entry, source) for entry in scan(tree, source).files)
        files = (file for file in read if isinstance(file, SourceFile))
        chunks = (chunk for file in files for chunk in chunk_file(tree.name, file, 400).chunks)
        texts = [embedding_text(chunk) for chunk in islice(chunks, count)]
        asked = [json.loads(line) for line in questions.read_text().splitlines()]
        about = [line["query"] for line in asked if line.get("repo", tree.name) == tree.name] or [
            line["query"] for line in asked
        ]
        with tempfile.TemporaryDirectory() as models:
            dense = minilm.open_encoder(EmbeddingSettings(), Path(models))
            sample = texts[:: max(1, len(texts) // SAMPLED_TEXTS)]
            encoder = MiniLMTokens(dense, fitted_projection(dense, sample))
            self._tokens = [document.tokens.astype(np.float16) for document in encoder.encode_documents(texts)]
            self._queries = [encoder.encode_query(text).tokens for text in about[:QUERIES]]
        self.count = len(self._tokens)

    def documents(self, start: int = 0, stop: int | None = None) -> Iterator[Document]:
        for number in range(start, self.count if stop is None else stop):
            yield number, _unit(self._tokens[number % self.count].astype(np.float32))

    def queries(self) -> list[Floats]:
        return self._queries


def _unit(rows: Floats) -> Floats:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _noise(random: np.random.Generator, count: int) -> Floats:
    return random.standard_normal((count, DIM), np.float32) / np.float32(np.sqrt(DIM))


def main() -> None:
    torch.set_num_threads(1)
    with threadpool_limits(1):
        if "--real" in sys.argv:
            tree, questions, count = sys.argv[sys.argv.index("--real") + 1 :][:3]
            _in_folder(RealCorpus(Path(tree), Path(questions), int(count)))
            return
        _assignment(Corpus(4_000))
        for count in [int(argument) for argument in sys.argv[1:] if argument.isdigit()] or (1_000, 20_000):
            _in_folder(Corpus(count))


def _in_folder(corpus: Corpus | RealCorpus) -> None:
    print(f"{corpus.count} documents, {len(corpus.queries())} queries")
    with tempfile.TemporaryDirectory() as folder:
        _measure(corpus, Path(folder))


def _measure(corpus: Corpus | RealCorpus, folder: Path) -> None:
    _compile(folder / "small")
    warp = _build(corpus, BuildConfig(folder / "warp", DIM))
    flat = XTRSearch.open(_flat(corpus, folder / "flat"))
    _open(warp)
    _first(warp)
    _rescore(corpus, warp, flat)
    _wide(corpus, warp, flat)
    _probed(corpus, warp)
    _memory(corpus, warp)
    _increments(corpus, warp)


def _line(what: str, bound: str, measured: str) -> None:
    print(f"{what:58} bound {bound:16} measured {measured}", flush=True)


def _compile(folder: Path) -> None:
    random = np.random.default_rng(0)
    docs = [(i, _unit(_noise(random, 20))) for i in range(300)]
    build_index(BuildConfig(folder, DIM), docs)
    XTRSearch.open(SearchConfig(folder)).warm()


def _build(corpus: Corpus | RealCorpus, config: BuildConfig) -> SearchConfig:
    making = [0.0]
    start = time.process_time()
    manifest = build_index(config, _timed(corpus.documents(), making))
    spent = time.process_time() - start - making[0]
    _line("build, documents/s/core, encoding not counted", ">= 700", f"{corpus.count / spent:.0f}")
    _line("bytes per token, everything on disk", "<= 70", f"{manifest.bytes / manifest.tokens:.1f}")
    return SearchConfig(config.index_dir)


def _timed(documents: Iterator[Document], making: list[float]) -> Iterator[Document]:
    """Yield `documents`; `making` gets the time they took."""
    while True:
        start = time.process_time()
        document = next(documents, None)
        making[0] += time.process_time() - start
        if document is None:
            return
        yield document


def _flat(corpus: Corpus | RealCorpus, folder: Path) -> SearchConfig:
    build_index(BuildConfig(folder, DIM, layout="flat"), corpus.documents())
    return SearchConfig(folder)


def _open(config: SearchConfig) -> None:
    before = _rss()
    held = []
    spent = [_cpu(lambda: held.append(XTRSearch.open(config))) for _ in range(20)]
    _line("open, ms CPU", "<= 5", f"{statistics.median(spent) * 1e3:.2f}")
    _line("open, MB RSS of one", "<= 5", f"{(_rss() - before) / 20:.2f}")


def _first(config: SearchConfig) -> None:
    command = [sys.executable, "-c", FIRST_SEARCH, str(config.index_dir), str(DIM)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    _line("a new process, compiled before: s to import / to warm", "none", f"{told[0]} / {told[1]}")
    _line("a warm process: ms to the first answer", "none", told[2])


def _rescore(corpus: Corpus | RealCorpus, config: SearchConfig, flat: XTRSearch) -> None:
    random = np.random.default_rng(3)
    index = XTRSearch.open(config)
    tokens = torch.from_numpy(flat.segments[0].arrays["tokens"])  # Read-only, of which torch warns.
    offsets = flat.segments[0].offsets
    here = min(corpus.count, len(offsets) - 1)
    asked = [(q, np.sort(random.choice(here, CANDIDATES, replace=False))) for q in corpus.queries()]
    ways: dict[str, Callable[[Floats, Ids], object]] = {
        "ours": index.rescore,
        "torch float32": lambda q, ids: _torch(tokens, offsets, q, ids, torch.float32),
        "torch bfloat16": lambda q, ids: _torch(tokens, offsets, q, ids, torch.bfloat16),
    }
    spent = _interleaved(ways, asked)
    best = min(spent["torch float32"], spent["torch bfloat16"])
    _line(
        f"rescore {CANDIDATES} / best plain torch ({best:.2f} ms)",
        "<= 0.15",
        f"{spent['ours'] / best:.3f} ({spent['ours']:.2f} ms)",
    )
    _without_vnni(index, flat, asked)


def _without_vnni(index: XTRSearch, flat: XTRSearch, asked: list[tuple[Floats, Ids]]) -> None:
    tokens, offsets = flat.segments[0].arrays["tokens"], flat.segments[0].offsets
    fast, rescore.has_int8 = rescore.has_int8, lambda: False
    try:
        spent = _interleaved({"ours": index.rescore, "numpy": lambda q, ids: _numpy(tokens, offsets, q, ids)}, asked)
    finally:
        rescore.has_int8 = fast
    ratio = spent["ours"] / spent["numpy"]
    _line(
        f"the same without VNNI / numpy ({spent['numpy']:.2f} ms)", "<= 0.65", f"{ratio:.3f} ({spent['ours']:.2f} ms)"
    )


def _torch(tokens: torch.Tensor, offsets: Ids, query: Floats, ids: Ids, dtype: torch.dtype) -> torch.Tensor:
    gathered = torch.cat([tokens[offsets[i] : offsets[i + 1]] for i in ids]).to(dtype)
    scores = (gathered @ torch.from_numpy(query).to(dtype).T).float()
    lengths = torch.from_numpy(offsets[ids + 1] - offsets[ids])
    return torch.segment_reduce(scores, "max", lengths=lengths, axis=0).sum(1)


def _numpy(tokens: Floats, offsets: Ids, query: Floats, ids: Ids) -> Floats:
    gathered = np.concatenate([tokens[offsets[i] : offsets[i + 1]] for i in ids]).astype(np.float32)
    starts = np.cumsum(offsets[ids + 1] - offsets[ids]) - (offsets[ids + 1] - offsets[ids])
    return np.maximum.reduceat(gathered @ query.T, starts, axis=0).sum(1)


def _wide(corpus: Corpus | RealCorpus, config: SearchConfig, flat: XTRSearch) -> None:
    exact = [flat.search(query, 10) for query in corpus.queries()]
    brute = XTRSearch.open(replace(config, brute_force=corpus.count + 1))
    ceiling = [brute.search(query, 10) for query in corpus.queries()]
    top = _recall(ceiling, exact)
    _line("recall@10 of all codes against exact (the codec's ceiling)", "none", f"{top:.3f}")
    for rescored in (256, 512, 1024, 2048):
        index = XTRSearch.open(replace(config, rescored=rescored, brute_force=min(config.brute_force, rescored)))
        spent = []
        found = []
        for query in corpus.queries():
            start = time.process_time()
            found.append(index.search(query, 10))
            spent.append((time.process_time() - start) * 1e3)
        _line(f"search, {rescored} rescored: ms CPU", "<= 25 at 100k", f"{statistics.median(spent):.2f}")
        _line(
            f"search, {rescored} rescored: recall@10 against exact", ">= 0.80 at 100k", f"{_recall(found, exact):.3f}"
        )
        _line(f"search, {rescored} rescored: share of the ceiling", ">= 0.95", f"{_recall(found, exact) / top:.3f}")


def _probed(corpus: Corpus | RealCorpus, config: SearchConfig) -> None:
    index = XTRSearch.open(config)
    masks = [segment.searchable for segment in index.segments]
    spent = []
    for query in corpus.queries():
        ready = index.ready(query)
        products = int8_dots(index.codec.centroids.fine, ready.rows)
        # The stage alone has no public name: nobody but this figure asks for it.
        cells = search._nearest_cells(products, ready.weights, config.nprobe)  # noqa: SLF001
        bounds = [segment.arrays["bounds"].astype(np.int64) for segment in index.segments]
        postings = sum(int((of[cells.numbers + 1] - of[cells.numbers]).sum()) for of in bounds)
        spent.append(_cpu(lambda cells=cells: index._probed(cells, masks)) * 1e9 / postings)  # noqa: SLF001
    _line("probe and merge, ns a posting", "<= 25", f"{statistics.median(spent):.1f}")


def _memory(corpus: Corpus | RealCorpus, config: SearchConfig) -> None:
    index = XTRSearch.open(config)
    queries = corpus.queries()
    own, mapped = _resident("RssAnon"), _resident("RssFile")
    for query in queries:
        index.search(query, 10)
    own, mapped = _resident("RssAnon") - own, _resident("RssFile") - mapped
    _line(
        f"memory after {QUERIES} searches / index bytes touched", "<= 1.3", f"{1 + own / mapped:.3f} ({mapped:.0f} MB)"
    )


def _resident(kind: str) -> float:
    """Return MB of this process that are its own (RssAnon) or of mapped files (RssFile)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(kind)) / 1e3


def _recall(found: list[Scores], true: list[Scores]) -> float:
    return statistics.mean(
        len(set(a.doc_ids.tolist()) & set(b.doc_ids.tolist())) / len(b.doc_ids)
        for a, b in zip(found, true, strict=True)
    )


def _assignment(corpus: Corpus) -> None:
    tokens = np.concatenate([tokens for _, tokens in corpus.documents()])
    rows = to_bytes(tokens, float(np.abs(tokens).max()) / 127, DIM)
    count = 1 << int(np.log2(16 * np.sqrt(len(rows))))
    sample, probe = rows[: 32 * count], rows[-20_000:]
    centroids = train(sample, count, 0)
    ways = (
        lambda: centroids.assign(probe),
        lambda: nearest(probe, centroids.fine),
        lambda: _nearest_by_product(probe, centroids.fine),
    )
    two_level, fused, product = np.array([[_cpu(way) for way in ways] for _ in range(7)]).T
    _line(f"two-level assignment to {count}, times as fast as flat", ">= 8", f"{np.median(product / two_level):.1f}")
    _line("… as the flat search of this package, which is fused", "none", f"{np.median(fused / two_level):.1f}")
    wide = rows.astype(np.float32)
    of_two = _energy(wide, centroids.fine[centroids.assign(rows)])
    flat_centroids = _lloyd(sample, count, 6, np.random.default_rng(0))
    of_flat = _energy(wide, flat_centroids[nearest(rows, flat_centroids)])
    _line("residual energy / that of flat k-means of 6 rounds", "<= 1.05", f"{of_two / of_flat:.3f}")


def _nearest_by_product(rows: NDArray[np.int8], centres: NDArray[np.int8]) -> NDArray[np.int64]:
    """The flat search that the bound means: a matrix product of floats, block by block, and the largest of each row."""
    wide = centres.astype(np.float32)
    half_squares = (wide**2).sum(1) / 2
    blocks = [
        (rows[at : at + BLOCK].astype(np.float32) @ wide.T - half_squares).argmax(1)
        for at in range(0, len(rows), BLOCK)
    ]
    return np.concatenate(blocks)


def _energy(rows: Floats, centres: NDArray[np.int8]) -> float:
    return float(((rows - centres) ** 2).sum())


def _increments(corpus: Corpus | RealCorpus, config: SearchConfig) -> None:
    first = (corpus.count // BLOCK + 1) * BLOCK
    new = list(corpus.documents(first, first + 1))[:100]
    spent = _cpu(lambda: append(config.index_dir, new))
    _line(f"add 100 documents to {corpus.count}, s CPU", "<= 0.3", f"{spent:.3f}")
    spent = [_cpu(lambda at=at: delete(config.index_dir, np.arange(at, at + 50))) * 1e3 for at in range(0, 750, 50)]
    _line("delete 50 documents, ms CPU", "<= 1", f"{statistics.median(spent):.2f}")


def _interleaved(ways: dict[str, Callable[[Floats, Ids], object]], asked: list[tuple[Floats, Ids]]) -> dict[str, float]:
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for query, ids in [*asked, *asked]:
        for name, way in ways.items():
            spent[name].append(_cpu(lambda way=way, query=query, ids=ids: way(query, ids)) * 1e3)
    return {name: statistics.median(times[len(asked) :]) for name, times in spent.items()}


def _cpu(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def _rss() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


if __name__ == "__main__":
    main()
