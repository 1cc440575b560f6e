"""What do many repositories cost? One figure a line: `python -m benchmarks many [PROVIDER [REPOSITORIES [FOLDER]]]`.

Tiny repositories are indexed one after the other in this process (in FOLDER they are kept, and found again); another
process then serves them all, so that its memory, threads and open files are those of serving alone.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

from codeintel_rev.config.settings import Settings
from codeintel_rev.encoders.dense import open_encoder
from codeintel_rev.indexing.build import build
from codeintel_rev.io.registry import repositories
from codeintel_rev.observability.logs import configure_logs
from codeintel_rev.retrieval.shards import Shards
from codeintel_rev.types import Scope

REPOSITORIES = 200
FILES = ("cart", "payment", "mail", "stock", "report")
ASKED = 20


def settings(folder: Path, provider: str) -> Settings:
    """Deadlines nothing misses: what a search takes is what is measured."""
    return Settings.model_validate(
        {
            "paths": {"data_dir": folder / "data"},
            "embedding": {"provider": provider},
            "chunking": {"workers": 1},
            "retrieval": {"channel_deadline_ms": 60_000, "request_deadline_ms": 60_000},
            "observability": {"log_level": "warning"},
        }
    )


def plant(folder: Path, number: int) -> Path:
    root = folder / "trees" / f"repo-{number:03}"
    root.mkdir(parents=True)
    for name in FILES:
        text = (
            f'"""The {name} of shop {number}."""\n\n\ndef {name}_{number}(order):\n    return order.{name} + {number}\n'
        )
        (root / f"{name}.py").write_text(text)
    return root


def make(folder: Path, provider: str, count: int) -> None:
    started = perf_counter()
    for number in range(count):
        build(f"repo-{number:03}", plant(folder, number), settings(folder, provider), on_progress=lambda _: None)
    show("index", perf_counter() - started, "s")


def show(name: str, value: float, unit: str) -> None:
    print(f"{name:44s} {value:10.2f} {unit}", flush=True)


def show_process(when: str) -> None:
    told = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    show(f"{when}: resident", int(told["VmRSS"].split()[0]) / 1024, "MiB")
    show(f"{when}: threads", int(told["Threads"]), "")
    show(f"{when}: open files", len(list(Path("/proc/self/fd").iterdir())), "")


def timed(name: str, shards: Shards, scopes: list[Scope]) -> None:
    times = []
    for number, scope in enumerate(scopes):
        started = perf_counter()
        found = shards.search(f"payment of shop {number}", scope, 8, deadline_ms=60_000)
        times.append(1000 * (perf_counter() - started))
        if not found.hits or found.limits:
            raise SystemExit(f"{len(found.hits)} hits, {found.limits[:1]}")
    show(f"{name}: first", times[0], "ms")
    show(f"{name}: p50 of {len(times)}", median(times), "ms")


def serve(folder: Path, provider: str) -> None:
    own = settings(folder, provider)
    encoder = open_encoder(own.embedding, own.paths.data_dir / "models")
    configure_logs(own.observability)
    names = repositories(own.paths.data_dir)
    show_process("before")
    shards = Shards(own.paths.data_dir, encoder, own)
    started = perf_counter()
    shards.refresh()
    show("refresh, first", perf_counter() - started, "s")
    started = perf_counter()
    shards.refresh()
    show("refresh, nothing new", 1000 * (perf_counter() - started), "ms")
    started = perf_counter()
    shards.status()
    show("status", 1000 * (perf_counter() - started), "ms")
    show_process("refreshed")
    timed("one repository after the other", shards, [Scope(repos=(name,)) for name in names])
    timed("one repository again and again", shards, [Scope(repos=names[:1])] * ASKED)
    show_process("asked")
    timed("all repositories", shards, [Scope()] * 5)
    show_process("asked all")
    shards.close()


def main() -> None:
    provider, count, folder = (*sys.argv[2:], *("none", REPOSITORIES, "")[len(sys.argv[2:]) :])
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(folder or scratch)
        if not (place / "data").exists():
            make(place, str(provider), int(count))
        subprocess.run([sys.executable, "-m", __name__, str(place), str(provider)], check=True)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.argv[2])
