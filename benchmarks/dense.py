"""How fast are exact vectors and the catalogue? One figure a line: `python -m benchmarks dense`.

Corpora are synthetic: clustered unit vectors of 384 d in float16, chunks of 15 lines of invented words. One query at a
time on one FAISS thread and the default DuckDB threads; the median of 60.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from codeintel_rev.config.settings import DuckDBSettings, IndexSettings
from codeintel_rev.io.catalog_builder import CatalogWriter, inherit_catalog
from codeintel_rev.io.catalog_rows import FileRow
from codeintel_rev.io.dual_index import DualIndex
from codeintel_rev.io.duckdb_catalog import Catalog
from codeintel_rev.io.stored_vectors import StoredVectors
from codeintel_rev.io.vector_update import compact_vectors, linkable, update_vectors
from codeintel_rev.io.vectors import Subset
from codeintel_rev.types import Chunk, Floats, Ids, Role, Scope

DIM, DEPTH, QUERIES, HITS = 384, 200, 60, 20
LIMITS = IndexSettings()
FILES_OF = 25  # Chunks of one file.


def main() -> None:
    random = np.random.default_rng(0)
    for count in (5_000, 100_000):
        ids = np.sort(random.choice(2**62, count, replace=False)).astype(np.int64)
        with tempfile.TemporaryDirectory() as folder:
            vectors = _clustered(random, count)
            _vectors(Path(folder), random, ids, vectors)
            _updates(Path(folder), random, ids, vectors)
            _catalogue(Path(folder), random, ids)


def _clustered(random: np.random.Generator, count: int) -> Floats:
    centres = random.standard_normal((count // 50, DIM), np.float32)
    vectors = centres[random.integers(0, len(centres), count)] + 0.7 * random.standard_normal((count, DIM), np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _vectors(folder: Path, random: np.random.Generator, ids: Ids, vectors: Floats) -> None:
    size = f"{len(ids) // 1000}k vectors"
    print(f"{size}: written and indexed in {_seconds(lambda: update_vectors(folder, ids, vectors, LIMITS)):.2f} s")
    print(f"{size}: opened in {_seconds(lambda: DualIndex.open(folder, DIM)) * 1e3:.1f} ms")
    index, stored = DualIndex.open(folder, DIM), StoredVectors.open(folder, DIM)
    few = ids[::20]
    print(f"{size}: nearest {DEPTH} in {_median_ms(lambda i: index.search(vectors[i], DEPTH)):.2f} ms")
    print(f"{size}: of 5 % allowed in {_median_ms(lambda i: index.search(vectors[i], DEPTH, allowed=few)):.2f} ms")
    asked = [random.choice(ids, DEPTH) for _ in range(QUERIES)]
    print(f"{size}: {DEPTH} scored exactly in {_median_ms(lambda i: stored.scores(vectors[i], asked[i])):.2f} ms")


def _updates(folder: Path, random: np.random.Generator, ids: Ids, vectors: Floats) -> None:
    """One vector in a hundred new, one in two hundred deleted: first beside the primary, then as one."""
    size = f"{len(ids) // 1000}k vectors"
    new, gone = len(ids) // 100, len(ids) // 200
    more = np.concatenate([ids, random.choice(2**62, new, replace=False)])
    left = np.sort(random.permutation(len(more))[gone:])
    wanted = more[left], Subset(np.concatenate([vectors, _clustered(random, new)]), left)
    for name in ("updated", "compact"):
        for file in linkable(folder):
            (folder / name / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / name / file).hardlink_to(folder / file)
    updated = _seconds(lambda: update_vectors(folder / "updated", *wanted, LIMITS))
    print(f"{size}: {new} added and {gone} deleted in {updated:.2f} s")
    compacted = _seconds(lambda: compact_vectors(folder / "compact", folder / "updated", DIM))
    print(f"{size}: compacted in {compacted:.2f} s")
    indexes = [DualIndex.open(place, DIM) for place in (folder, folder / "updated", folder / "compact")]
    rounds = [
        [_wall_and_cpu(lambda i=i, at=at: i.search(vectors[at], DEPTH)) for i in indexes] for at in range(QUERIES)
    ]
    for clock, (before, after, compact) in zip(
        ("wall", "cpu"), np.median(np.array(rounds), axis=0).T * 1e3, strict=True
    ):
        print(
            f"{size}: nearest {DEPTH} before {before:.2f}, after {after:.2f}, compacted {compact:.2f} ms of {clock}; "
            f"after ÷ before {after / before:.2f}, compacted ÷ before {compact / before:.2f}"
        )


def _catalogue(folder: Path, random: np.random.Generator, ids: Ids) -> None:
    size = f"{len(ids) // 1000}k chunks"
    print(f"{size}: catalogued in {_seconds(lambda: _write_tables(folder, random, ids)):.2f} s")
    child = folder / "child"
    child.mkdir()
    print(f"{size}: catalogue inherited in {_seconds(lambda: inherit_catalog(child, folder)):.2f} s")
    catalog = Catalog.open(folder, DuckDBSettings())
    asked = [random.choice(ids, HITS) for _ in range(QUERIES)]
    scope = Scope(paths=("src/1*/",), languages=("python",))
    print(f"{size}: {HITS} hydrated in {_median_ms(lambda i: catalog.hydrate(asked[i])):.2f} ms")
    print(f"{size}: glob selected in {_median_ms(lambda _: catalog.select(scope)):.2f} ms")
    rare = "never such words"
    print(f"{size}: rare text in {_median_ms(lambda _: catalog.chunk_text_rows(rare, limit=100)):.2f} ms")
    regex = r"(?m)^n\w+ such"
    print(f"{size}: rare regex in {_median_ms(lambda _: catalog.chunk_text_rows(regex, regex=True, limit=100)):.2f} ms")
    catalog.close()


def _write_tables(folder: Path, random: np.random.Generator, ids: Ids) -> None:
    vocabulary = [np.base_repr(word * 7919, 36).lower() for word in range(5000)]
    held: list[Chunk] = []
    with CatalogWriter(folder) as catalog:
        for position, chunk_id in enumerate(ids.tolist()):
            path = f"src/{position // FILES_OF % 100}/{position // FILES_OF}.py"
            start = position % FILES_OF * 15 + 1
            words = random.integers(0, 5000, (15, 8)).tolist()
            text = "\n".join(" ".join(vocabulary[word] for word in line) for line in words)
            held.append(Chunk(chunk_id, "repo", path, "python", Role.CODE, start, start + 14, "function", "", "", text))
            if len(held) == FILES_OF or position == len(ids) - 1:
                catalog.add(FileRow(path, "python", "code", 1, "0", "utf-8", 375, FILES_OF, "indexed", ""), held)
                held = []
        catalog.finish()


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _wall_and_cpu(run: Callable[[], object]) -> tuple[float, float]:
    start = time.process_time()
    wall = _seconds(run)
    return wall, time.process_time() - start


def _median_ms(run: Callable[[int], object]) -> float:
    return statistics.median(_seconds(lambda at=at: run(at)) for at in range(QUERIES)) * 1e3
