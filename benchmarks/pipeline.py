"""From a repository never seen to answers: seconds, memory and query times. `python -m benchmarks pipeline`.

The corpus is eight packages installed beside this project, about 5,000 chunks.
"""

from __future__ import annotations

import resource
import shutil
import sysconfig
import tempfile
import time
from pathlib import Path

import numpy as np

from codeintel_rev.app.opening import open_index
from codeintel_rev.config.settings import PathsSettings, Settings
from codeintel_rev.indexing.build import build
from codeintel_rev.types import BuildProgress, Scope

PACKAGES = ("typer", "httpx", "starlette", "fastapi", "rich", "prometheus_client", "pydantic", "structlog")
QUERIES = (
    "how are requests routed",
    "parse a date from text",
    "Console",
    "where is the connection pool closed",
    "HTTPException",
    "validate an email address",
    "retry after a timeout",
    "render_table",
)
ROUNDS = 25


def corpus(folder: Path) -> Path:
    installed = Path(sysconfig.get_paths()["purelib"])
    for package in PACKAGES:
        if (installed / package).is_dir():
            shutil.copytree(installed / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        tree = corpus(Path(directory, "tree"))
        settings = Settings(paths=PathsSettings(data_dir=Path(directory, "data")))
        published: list[float] = []
        started = time.monotonic()

        def told(progress: BuildProgress) -> None:
            if progress.stage == "publish" and progress.done:
                published.append(time.monotonic() - started)

        first = build("bench", tree, settings, on_progress=told)
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"chunks {first.counts['chunks']} of {first.counts['files']} files")
        print(f"first generation published {published[0]:.1f} s (bound for 5,000 chunks: 5 s, useful query 8 s)")
        print(f"fully encoded {first.seconds:.1f} s (bound for 5,000 chunks: 60 s)")
        print(f"build peak memory {peak_mb:.0f} MB, parse workers not counted")
        print(f"build without a change {build('bench', tree, settings, on_progress=told).seconds:.2f} s")
        opened = open_index(settings)
        milliseconds = []
        for _ in range(ROUNDS):
            for query in QUERIES:
                asked = time.perf_counter()
                result = opened.searcher.search(query, Scope(), 8, deadline_ms=10_000)
                milliseconds.append((time.perf_counter() - asked) * 1000)
                assert result.hits, query
                assert not result.limits, result.limits
        opened.searcher.close()
        p50, p95 = np.percentile(milliseconds[len(QUERIES) :], (50, 95))
        print(f"query p50 {p50:.1f} ms, p95 {p95:.1f} ms warm, in process (bound at 20k chunks: 12 / 30 ms)")


if __name__ == "__main__":
    main()
