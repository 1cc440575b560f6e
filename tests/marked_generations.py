"""Small generations whose every file carries the same marker: an answer that shows two markers is a mixed one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from codeintel_rev.io.generations import Draft, GenerationStore
from codeintel_rev.io.manifest import Manifest
from codeintel_rev.types import Revision

FILES = ("catalog.duckdb", "faiss/primary.faiss", "faiss/meta.json", "lexical/meta.json", "lexical/0.store")


def fill(folder: Path, marker: str, files: Iterable[str] = FILES, size: int = 600) -> None:
    """Write every one of `files`: the marker, the file's own name and padding up to `size` bytes."""
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(f"{marker}\n{name}\n".encode().ljust(size, b"."))


def publish(store: GenerationStore, draft: Draft) -> Manifest:
    return store.publish(
        draft,
        revision=Revision("c0ffee", "main", False),
        inputs="",
        stage="lexical",
        model=None,
        counts={"chunks": 20},
        components={"catalog": 1},
        libraries={"duckdb": "1"},
    )


def publish_marked(store: GenerationStore, marker: str, **filled: int) -> Manifest:
    """Build and publish, as the only builder, a generation with `marker` in every file."""
    with store.builder_lock():
        draft = store.begin(store.current_id())
        fill(draft.path, marker, **filled)
        return publish(store, draft)


def markers(folder: Path) -> set[str]:
    """Return the markers found in the files of a generation."""
    return {(folder / name).read_bytes().split(b"\n")[0].decode() for name in FILES}
