"""What a change costs on a shard of 100,000 chunks, encoding apart. `python -m benchmarks update`.

The tree is the corpus of `pipeline` thirteen times, each time with other words, in git, and a vector is noise that its
text seeds. Every figure is of one build in this process, as a watcher builds; CPU seconds, of parse workers too, are
what a machine that does other things as well cannot change much.
"""

from __future__ import annotations

import hashlib
import os
import re
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from benchmarks.pipeline import corpus
from codeintel_rev.cli.beside import compacting
from codeintel_rev.config.settings import Settings
from codeintel_rev.indexing.build import BuildSummary, build
from codeintel_rev.io.durable import DISK
from codeintel_rev.io.integrity import Digests
from codeintel_rev.retrieval.shards import Shards
from codeintel_rev.types import Floats, ModelFingerprint, Scope

COPIES = 13
DIM = 384
T = TypeVar("T")
_READ = Digests(DISK)
_WORD = re.compile(r"\b[a-z_]{6,}\b")


def grow(folder: Path) -> Path:
    """Make `folder` the work tree: copies of the corpus that share few lines."""
    corpus(folder / "copy00")
    files = [path for path in sorted((folder / "copy00").rglob("*")) if path.suffix in {".py", ".pyi", ".md", ".txt"}]
    for copy in range(1, COPIES):
        for file in files:
            place = folder / f"copy{copy:02}" / file.relative_to(folder / "copy00")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(_WORD.sub(lambda word, n=copy: _other(word[0], n), file.read_text(errors="replace")))
    for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=b", "-c", "user.email=b@b", "commit", "-qm", "b"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


def _other(word: str, copy: int) -> str:
    return f"{word}_{copy}" if (len(word) * 7 + ord(word[0]) + ord(word[-1])) % 9 == copy % 9 else word


class Noise:
    """A dense encoder that takes no time to speak of."""

    fingerprint = ModelFingerprint("noise", "1", DIM, "none", "float32", 128, "0" * 64)

    def encode_documents(self, texts: Sequence[str]) -> Floats:
        """Return unit vectors (n, DIM)."""
        seeds = (int.from_bytes(hashlib.sha256(text.encode()).digest()) for text in texts)
        vectors = np.array([np.random.default_rng(seed).standard_normal(DIM) for seed in seeds], np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    encode_queries = encode_documents


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        tree = grow(Path(directory, "tree"))
        settings = Settings.model_validate({"paths": {"data_dir": Path(directory, "data")}})
        first = _figure("first index", lambda: _build(tree, settings))
        print(f"{first.counts['chunks']} chunks of {first.counts['files']} files")
        print(f"build peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
        time.sleep(3)  # Files changed a moment ago are read again.
        _figure("first update without a change", lambda: _build(tree, settings))
        _figure("update without a change", lambda: _build(tree, settings))
        _figure("hashing the tree and the generation anew, for comparison", lambda: _hash_all(tree, settings))
        _one_file(tree, settings)
        _many_files(tree, settings)
        _compaction(settings)


def _build(tree: Path, settings: Settings) -> BuildSummary:
    return build("bench", tree, settings, on_progress=lambda _: None, opening=lambda *_: Noise(), digests=_READ)


def _one_file(tree: Path, settings: Settings) -> None:
    opened = Shards(settings.paths.data_dir, Noise(), settings)
    opened.refresh()
    place = tree / "copy03" / "fastapi" / "routing.py"
    for number in range(5):
        with place.open("a") as file:
            file.write(f"\n\ndef saved_just_now_{number}():\n    return {number}\n")
        saved = time.perf_counter()
        _figure("one file saved", lambda: _build(tree, settings))
        _figure("… opened by the server", opened.refresh)
        hits = opened.search(f"saved_just_now_{number}", Scope(), 3, deadline_ms=60_000).hits
        assert hits[0].path.endswith("routing.py"), hits
        print(f"… findable after {time.perf_counter() - saved:.2f} s (bound 2 s)")
    opened.close()


def _many_files(tree: Path, settings: Settings) -> None:
    before = _build(tree, settings).counts["chunks"]
    for number in range(1000):
        text = f"def added_{number}(value):\n    '''Add {number} to a value.'''\n    return value + {number}\n"
        place = tree / "added" / f"m{number:03}.py"
        place.parent.mkdir(exist_ok=True)
        place.write_text(text)
    summary = _figure("1,000 files of a chunk each added", lambda: _build(tree, settings))
    print(f"… {summary.counts['chunks'] - before} chunks (bound 10 s)")


def _compaction(settings: Settings) -> None:
    """Ask again and again, first undisturbed, then beside a compaction as a watcher runs it."""
    opened = Shards(settings.paths.data_dir, Noise(), settings)
    opened.refresh()
    for number in range(50):
        _asked_ms(opened, number)
    quiet = np.percentile([_asked_ms(opened, number) for number in range(500)], (50, 99))
    os.environ["CODEINTEL_PATHS__DATA_DIR"] = str(settings.paths.data_dir)
    started, process, spent = time.perf_counter(), compacting("bench"), []
    while process.poll() is None:
        spent.append(_asked_ms(opened, len(spent)))
    assert process.returncode == 0
    assert len(spent) > 100
    beside = np.percentile(spent, (50, 99))
    print(f"compaction: {time.perf_counter() - started:.1f} s, {len(spent)} questions beside it")
    print(
        f"question p50 {quiet[0]:.1f} ms, p99 {quiet[1]:.1f}; beside it p50 {beside[0]:.1f}, p99 {beside[1]:.1f} ms:",
        end=" ",
    )
    print(f"p99 {beside[1] / quiet[1]:.2f} times (bound 2)")
    opened.close()


def _asked_ms(opened: Shards, number: int) -> float:
    started = time.perf_counter()
    opened.search(f"add {number} to a value of the response", Scope(), 10, deadline_ms=60_000)
    return (time.perf_counter() - started) * 1000


def _figure(name: str, run: Callable[[], T]) -> T:
    wall, cpu = time.perf_counter(), _cpu_s()
    result = run()
    print(f"{name}: {time.perf_counter() - wall:.2f} s, {_cpu_s() - cpu:.2f} CPU-s")
    return result


def _cpu_s() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _hash_all(tree: Path, settings: Settings) -> None:
    for folder in (tree, settings.paths.data_dir / "repos"):
        for path in folder.rglob("*"):
            if path.is_file() and ".git" not in path.parts:
                with path.open("rb") as file:
                    hashlib.file_digest(file, "sha256")


if __name__ == "__main__":
    main()
