"""How fast is the lexical channel? One figure a line: `python -m benchmarks lexical`.

The corpus is the Python code installed beside this project, in windows of 40 lines.
"""

from __future__ import annotations

import random
import sysconfig
import tempfile
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from time import perf_counter

import numpy as np

from codeintel_rev.io.lexical import LexicalIndex, LexicalWriter
from codeintel_rev.types import Chunk, Definition, Role, Selection

LINES = 40
CHUNKS = 20_000
QUERIES = 500


def corpus() -> Iterator[tuple[Chunk, list[Definition]]]:
    root = Path(sysconfig.get_paths()["purelib"])
    numbers = count(1)
    for file in sorted(root.rglob("*.py")):
        path = file.relative_to(root).as_posix()
        lines = file.read_text("utf-8", "replace").split("\n")
        for start in range(0, len(lines), LINES):
            text = "\n".join(lines[start : start + LINES])
            names = [line.split()[1].split("(")[0].strip(":") for line in text.split("\n") if line.startswith("def ")]
            chunk = Chunk(
                next(numbers), "bench", path, "python", Role.CODE, start + 1, start + LINES, "window", "", "", text
            )
            yield (
                chunk,
                [Definition(path, "python", name, name, "function", start + 1, start + 1, "", "") for name in names],
            )


def questions(chunks: list[Chunk], words: int) -> list[str]:
    """Return questions of words that stand together somewhere, so that each finds something."""
    rng = random.Random(0)
    texts = [chunk.text.split() for chunk in chunks if len(chunk.text.split()) > words]
    drawn = [(text, rng.randrange(len(text) - words)) for text in rng.choices(texts, k=QUERIES)]
    return [" ".join(text[start : start + words]) for text, start in drawn]


def show(name: str, value: float, unit: str) -> None:
    print(f"{name:44s} {value:10.2f} {unit}", flush=True)


def timed(name: str, index: LexicalIndex, asked: list[str], selection: Selection | None = None) -> None:
    times = []
    for query in asked:
        start = perf_counter()
        index.search(query, 200, selection=selection)
        times.append((perf_counter() - start) * 1000)
    show(f"{name}, p50", float(np.percentile(times, 50)), "ms")
    show(f"{name}, p95", float(np.percentile(times, 95)), "ms")


def write(directory: Path, rows: list[tuple[Chunk, list[Definition]]], deleted: list[int]) -> float:
    start = perf_counter()
    with LexicalWriter(directory) as writer:
        writer.delete(np.array(deleted, dtype=np.int64))
        for chunk, defined in rows:
            writer.add(chunk, defined)
        writer.commit()
    return perf_counter() - start


def run(directory: Path) -> None:
    rows = list(islice(corpus(), CHUNKS))
    chunks = [chunk for chunk, _ in rows]
    seconds = write(directory, rows, [])
    show(f"{len(rows)} chunks indexed", len(rows) / seconds, "chunks/s")
    show("text indexed", sum(len(chunk.text) for chunk in chunks) / seconds / 1e6, "MB/s")
    show("index on disk", sum(file.stat().st_size for file in directory.iterdir()) / 1e6, "MB")
    show(
        "replace 10 chunks and commit",
        1000 * write(directory, rows[:10], [c.chunk_id for c in chunks[:10]]),
        "ms",
    )
    start = perf_counter()
    index = LexicalIndex.open(directory)
    show("open", (perf_counter() - start) * 1000, "ms")
    timed("question of 6 words", index, questions(chunks, 6))
    timed("traceback of 300 words", index, questions(chunks, 300)[:100])
    for share in (2, 100):
        allowed = np.array(sorted(chunk.chunk_id for chunk in chunks[::share]), dtype=np.int64)
        timed(f"6 words within 1/{share} of the chunks", index, questions(chunks, 6), Selection(allowed, ()))
    names = [definition.name for _, defined in rows for definition in defined]
    start = perf_counter()
    for name in names[:QUERIES]:
        index.symbols([name], 200)
    show("symbol, mean", (perf_counter() - start) * 1000 / len(names[:QUERIES]), "ms")


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        run(Path(directory))


if __name__ == "__main__":
    main()
