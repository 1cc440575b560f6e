"""Is the index on disk what was published? Sizes, SHA-256, counts and that every number points at something."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from codeintel_rev.errors import IndexCorrupt
from codeintel_rev.xtr.storage import REBUILD, Manifest, Segment, read_codec, read_manifest


@dataclass(frozen=True, slots=True)
class Audit:
    """`documents` are those not deleted; `problems` is empty when all is well."""

    documents: int
    deleted: int
    tokens: int
    shards: int
    bytes: int
    problems: tuple[str, ...]


def audit(index_dir: Path) -> Audit:
    """Read every byte of the index and return what is there. Raises as `storage.read_manifest`."""
    manifest = read_manifest(index_dir)
    problems = tuple(_damage(index_dir, manifest)) or tuple(_disagreements(index_dir, manifest))
    deleted = sum(segment.deleted_documents for segment in manifest.segments)
    return Audit(manifest.documents, deleted, manifest.tokens, len(manifest.segments), manifest.bytes, problems)


def verify(index_dir: Path) -> Audit:
    """Return the audit of a sound index. Raises IndexCorrupt with the first problem of any other."""
    found = audit(index_dir)
    if found.problems:
        raise IndexCorrupt(found.problems[0], REBUILD)
    return found


def _damage(index_dir: Path, manifest: Manifest) -> Iterator[str]:
    for file in manifest.files:
        try:
            with (index_dir / file.path).open("rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").hexdigest()
                size = opened.tell()
        except OSError as error:
            yield f"xtr {file.path} cannot be read: {error.strerror}."
            continue
        if size != file.size:
            yield f"xtr {file.path} has {size} bytes, {file.size} were published."
        elif digest != file.sha256:
            yield f"xtr {file.path} has SHA-256 {digest[:12]}…, {file.sha256[:12]}… was published."


def _disagreements(index_dir: Path, manifest: Manifest) -> Iterator[str]:
    codec = read_codec(index_dir, manifest)
    for entry in manifest.segments:
        yield from (f"xtr {entry.name}: {what}." for what in _segment_disagreements(Segment(index_dir, entry)))
        if codec is None and manifest.layout == "warp" and entry.tokens:
            yield f"xtr {entry.name} has tokens and the index no codec."


def _segment_disagreements(segment: Segment) -> Iterator[str]:
    entry, arrays = segment.entry, segment.arrays
    if len(segment.doc_ids) != entry.documents or len(segment.offsets) != entry.documents + 1:
        yield f"{len(segment.doc_ids)} ids and {len(segment.offsets)} offsets for {entry.documents} documents"
    if np.any(np.diff(segment.doc_ids) <= 0) or np.any(np.diff(segment.offsets) < 0):
        yield "ids or offsets do not ascend"
    if entry.documents - int(segment.live.sum()) != entry.deleted_documents:
        yield f"the bitmap deletes another number of documents than {entry.deleted_documents}"
    for stem in ("tokens", "cells", "lengths", "residuals"):
        if stem in arrays and len(arrays[stem]) != entry.tokens:
            yield f"{stem} has {len(arrays[stem])} rows for {entry.tokens} tokens"
    if "bounds" in arrays and arrays["bounds"][-1] != len(arrays["postings"]):
        yield f"bounds end at {arrays['bounds'][-1]}, there are {len(arrays['postings'])} postings"
