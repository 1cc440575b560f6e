"""MANIFEST.json reads as it was written or is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from codeintel_rev.errors import IndexCorrupt, IndexIncompatible
from codeintel_rev.io.manifest import Manifest, dump_manifest, load_manifest
from codeintel_rev.types import ModelFingerprint, Revision

MANIFEST = Manifest(
    schema=1,
    generation="01ARZ3NDEKTSV4RRFFQ69G5FAV",
    repo="owner/name",
    parent=None,
    created_at="2026-01-01T00:00:00.000+00:00",
    revision=Revision("c0ffee", "main", True),
    inputs="0" * 64,
    stage="complete",
    model=ModelFingerprint("all-MiniLM-L6-v2", "1", 384, "mean", "float32", 128, "ab" * 32),
    counts={"files": 3, "chunks": 20, "vectors": 20},
    components={"catalog": 1, "faiss": 1},
    libraries={"faiss-cpu": "1.15.0"},
    files={"catalog.duckdb": (600, "cd" * 32), "lexical/häßlich.store": (0, "ef" * 32)},
)


def edited(change: Callable[[dict[str, Any]], object]) -> bytes:
    """Return the manifest after `change`, with a right checksum: what a careful editor would write."""
    fields = json.loads(dump_manifest(MANIFEST))
    del fields["checksum"]
    change(fields)
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
    return json.dumps(fields | {"checksum": hashlib.sha256(canonical).hexdigest()}).encode()


def test_a_manifest_reads_as_it_was_written() -> None:
    assert load_manifest(dump_manifest(MANIFEST)) == MANIFEST
    lexical = dataclasses.replace(MANIFEST, model=None, stage="lexical", parent="01ARZ3NDEKTSV4RRFFQ69G5FAA", files={})
    assert load_manifest(dump_manifest(lexical)) == lexical


def test_tokens_are_told_where_there_are_some() -> None:
    """The bytes of generations without them are those of versions that knew none, and read as such."""
    told = dataclasses.replace(MANIFEST, token_model="all-MiniLM-L6-v2 abcd")
    assert load_manifest(dump_manifest(told)) == told
    assert b"token_model" not in dump_manifest(MANIFEST)


@pytest.mark.parametrize("schema", [0, 2, "1", None, 1.5])
def test_another_schema_is_incompatible_and_says_rebuild(schema: object) -> None:
    """F16."""
    with pytest.raises(IndexIncompatible, match=r"this version reads 1\. Rebuild"):
        load_manifest(edited(lambda fields: fields.update(schema=schema)))


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields.update(schema=True),
        lambda fields: fields.pop("model"),
        lambda fields: fields.pop("files"),
        lambda fields: fields.update(extra=1),
        lambda fields: fields.update(stage="almost"),
        lambda fields: fields.update(parent=7),
        lambda fields: fields["model"].update(dim="384"),
        lambda fields: fields["model"].pop("sha256"),
        lambda fields: fields["counts"].update(chunks=1.5),
        lambda fields: fields["counts"].update(chunks=None),
        lambda fields: fields["files"].update({"catalog.duckdb": [600]}),
        lambda fields: fields["files"].update({"catalog.duckdb": ["600", "cd"]}),
        lambda fields: fields["files"].update({"../../etc/passwd": [1, "cd"]}),
        lambda fields: fields["files"].update({"/etc/passwd": [1, "cd"]}),
        lambda fields: fields.update(files=[]),
        lambda fields: fields.update(revision="main"),
    ],
)
def test_a_field_that_is_not_as_declared_is_corrupt(change: Callable[[dict[str, Any]], object]) -> None:
    """F16: edits with a right checksum."""
    with pytest.raises(IndexCorrupt, match=r"MANIFEST\.json"):
        load_manifest(edited(change))


def test_what_could_not_be_read_back_is_not_written() -> None:
    for bad in ({"files": {"\udc80": (1, "ab")}}, {"counts": {"chunks": "20"}}, {"stage": "almost"}):
        with pytest.raises(IndexCorrupt):
            dump_manifest(dataclasses.replace(MANIFEST, **bad))


def test_an_edited_value_fails_the_checksum() -> None:
    """F16: another model revision, by hand."""
    data = dump_manifest(MANIFEST).replace(b'"dim": 384', b'"dim": 768')
    with pytest.raises(IndexCorrupt, match="checksum"):
        load_manifest(data)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"\x00" * 512, b"[" * 100_000, b'{"schema": 1}'], ids=repr
)
def test_garbage_is_corrupt(data: bytes) -> None:
    """F12, F13."""
    with pytest.raises((IndexCorrupt, IndexIncompatible)):
        load_manifest(data)
