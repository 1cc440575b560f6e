"""The format: one manifest, one codec, immutable segments, a bitmap of deleted documents beside each.

    manifest.json              what follows, with length and SHA-256 of every file and a checksum of itself
    codec/                     fine.i8, halves.f32, coarse.i8, groups.i64, scales.f32            (layout warp only)
    segment-000001/            doc_ids.i64 ascending, offsets.i64: document i owns tokens offsets[i]:offsets[i + 1]
        tokens.f16             layout flat: (tokens, dim)
        cells.u16, lengths.u8, residuals.u64, bounds.u32, postings.u16
                               layout warp: see `codec`; cell c is in documents postings[bounds[c]:bounds[c + 1]]
    segment-000001-deleted-000002.u8       bit i set: document i of the segment is deleted

Files are raw little-endian arrays; shape and type stand in the manifest. No file is rewritten under its name: a change
writes new files, syncs them, then replaces the manifest, so that a reader sees the old index or the new one, and an
open index stays what it was. Documents within a segment number at most 2**16, which makes a posting two bytes.
"""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from codeintel_rev.errors import IndexCorrupt, IndexIncompatible, InsufficientStorage, StorageFailed
from codeintel_rev.types import Ids
from codeintel_rev.xtr.centroids import Centroids
from codeintel_rev.xtr.codec import Codec
from codeintel_rev.xtr.config import Layout

MANIFEST, FORMAT, VERSION = "manifest.json", "codeintel-xtr", 1
CODEC = "codec"
SEGMENT_DOCUMENTS = 1 << 16
DTYPES: dict[str, type[np.generic]] = {
    "i8": np.int8,
    "u8": np.uint8,
    "u16": np.uint16,
    "u32": np.uint32,
    "u64": np.uint64,
    "i64": np.int64,
}
DTYPES |= {"f16": np.float16, "f32": np.float32}
REBUILD = "Build the index again."

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class File:
    """One file: `path` is relative to the index; the type of its elements is the suffix."""

    path: str
    shape: tuple[int, ...]
    size: int
    sha256: str

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(DTYPES[self.path.rpartition(".")[2]]).newbyteorder("<")


@dataclass(frozen=True, slots=True)
class SegmentEntry:
    name: str
    documents: int
    tokens: int
    files: tuple[File, ...]
    deleted: File | None
    deleted_documents: int


@dataclass(frozen=True, slots=True)
class CodecEntry:
    unit: float
    step: int
    files: tuple[File, ...]

    @property
    def cells(self) -> int:
        """How many centroids there are."""
        return self.files[0].shape[0]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the index was built with and holds. `change` counts manifests: new files carry it in their names."""

    layout: Layout
    model_id: str
    dim: int
    quant_bits: Literal[2, 4]
    nlist: int
    max_doclen: int
    seed: int
    change: int
    codec: CodecEntry | None
    segments: tuple[SegmentEntry, ...]

    @property
    def files(self) -> tuple[File, ...]:
        codec = self.codec.files if self.codec else ()
        deleted = tuple(segment.deleted for segment in self.segments if segment.deleted)
        return codec + tuple(file for segment in self.segments for file in segment.files) + deleted

    @property
    def documents(self) -> int:
        """How many documents are not deleted."""
        return sum(segment.documents - segment.deleted_documents for segment in self.segments)

    @property
    def tokens(self) -> int:
        return sum(segment.tokens for segment in self.segments)

    @property
    def bytes(self) -> int:
        return sum(file.size for file in self.files)


class Segment:
    """One memory-mapped segment. `arrays` are its files by stem; nothing is read before it is used."""

    def __init__(self, index_dir: Path, entry: SegmentEntry) -> None:
        self.entry = entry
        self.arrays: dict[str, Array] = {Path(file.path).stem: map_file(index_dir, file) for file in entry.files}
        self.doc_ids: Ids = self.arrays["doc_ids"]
        self.offsets: NDArray[np.int64] = self.arrays["offsets"]
        self._deleted = map_file(index_dir, entry.deleted) if entry.deleted else None

    @cached_property
    def live(self) -> NDArray[np.bool_]:
        """Which documents (documents,) are not deleted."""
        if self._deleted is None:
            return np.ones(self.entry.documents, np.bool_)
        bits: NDArray[np.bool_] = np.unpackbits(self._deleted, count=self.entry.documents, bitorder="little") == 0
        return bits

    @cached_property
    def searchable(self) -> NDArray[np.bool_]:
        """Which documents (documents,) are not deleted and have tokens."""
        return self.live & (np.diff(self.offsets) > 0)

    def find(self, ids: Ids) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return where each of `ids` stands in this segment, and whether it does and is not deleted."""
        if not self.entry.documents:
            return np.zeros(len(ids), np.int64), np.zeros(len(ids), np.bool_)
        at = np.minimum(np.searchsorted(self.doc_ids, ids), self.entry.documents - 1)
        present = self.doc_ids[at] == ids
        if self._deleted is not None:
            present &= (self._deleted[at >> 3] >> (at & 7).astype(np.uint8)) & 1 == 0
        return at, present


def map_file(index_dir: Path, file: File, access: int = mmap.ACCESS_READ) -> Array:
    """Return `file` memory-mapped. Raises IndexCorrupt when it is missing or not as long as published."""
    try:
        with (index_dir / file.path).open("rb") as opened:
            found = os.fstat(opened.fileno()).st_size
            if found != file.size or file.size != int(np.prod(file.shape)) * file.dtype.itemsize:
                raise IndexCorrupt(f"xtr {file.path} has {found} bytes, {file.size} were published.", REBUILD)
            if not file.size:
                return _empty(file)
            mapped = mmap.mmap(opened.fileno(), 0, access=access)
    except OSError as error:
        raise IndexCorrupt(f"xtr {file.path} cannot be read: {error.strerror}.", REBUILD) from error
    return np.frombuffer(mapped, file.dtype).reshape(file.shape)


def _empty(file: File) -> Array:
    array = np.empty(file.shape, file.dtype)
    array.setflags(write=False)  # As mapped ones: numba compiles for each kind.
    return array


class ArrayFile:
    """A file being written block by block; `entry` makes it durable and says what it holds."""

    def __init__(self, index_dir: Path, path: str, row: tuple[int, ...]) -> None:
        self._path, self._row, self._rows, self._digest = path, row, 0, hashlib.sha256()
        with writing(path):
            self._file = (index_dir / path).open("xb")

    def append(self, block: Array) -> None:
        """Add the rows of `block` (n, *row)."""
        data = np.ascontiguousarray(block).tobytes()
        self._digest.update(data)
        self._rows += len(block)
        with writing(self._path):
            self._file.write(data)

    def entry(self) -> File:
        with writing(self._path), self._file as file:
            file.flush()
            os.fsync(file.fileno())
            return File(self._path, (self._rows, *self._row), file.tell(), self._digest.hexdigest())

    def close(self) -> None:
        """Give the file up where `entry` was not reached."""
        self._file.close()


def write_array(index_dir: Path, path: str, array: Array) -> File:
    """Write `array` to `path`, durably, and return its entry."""
    file = ArrayFile(index_dir, path, array.shape[1:])
    file.append(array)
    return file.entry()


@contextmanager
def writing(path: str) -> Iterator[None]:
    """Raise InsufficientStorage or StorageFailed for an OSError met while writing `path`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InsufficientStorage(f"cannot write xtr {path}: the disk is full.", "Free space.") from error
        raise StorageFailed(f"cannot write xtr {path}: {error.strerror}.", "Check the disk.") from error


def write_codec(index_dir: Path, codec: Codec) -> CodecEntry:
    """Write the arrays of `codec` and return its entry."""
    with writing(CODEC):
        (index_dir / CODEC).mkdir()
    centroids = codec.centroids
    arrays: dict[str, Array] = {
        "fine.i8": centroids.fine,
        "halves.f32": centroids.halves,
        "coarse.i8": centroids.coarse,
        "groups.i64": centroids.bounds,
        "scales.f32": codec.scales,
    }
    files = tuple(write_array(index_dir, f"{CODEC}/{name}", array) for name, array in arrays.items())
    with writing(CODEC):
        sync_folder(index_dir / CODEC)
    return CodecEntry(codec.unit, codec.step, files)


def read_codec(index_dir: Path, manifest: Manifest) -> Codec | None:
    """Return the codec, memory-mapped; None for layout flat and where no token was ever seen. Raises IndexCorrupt."""
    entry = manifest.codec
    if entry is None:
        return None
    # Copy on write, though nobody writes: torch warns of arrays it could not write to.
    fine, halves, coarse, groups, scales = (map_file(index_dir, file, mmap.ACCESS_COPY) for file in entry.files)
    return Codec(
        manifest.dim, manifest.quant_bits, entry.unit, entry.step, Centroids(fine, halves, coarse, groups), scales
    )


def write_deleted(index_dir: Path, name: str, change: int, live: NDArray[np.bool_]) -> File:
    """Write which documents of segment `name` are not `live`."""
    return write_array(index_dir, f"{name}-deleted-{change:06}.u8", np.packbits(~live, bitorder="little"))


def write_manifest(index_dir: Path, manifest: Manifest) -> None:
    """Make `manifest` the one that readers find, in one step."""
    fields = {"format": FORMAT, "version": VERSION} | asdict(manifest)
    document = json.dumps(fields | {"checksum": _checksum(fields)}).encode()
    draft = index_dir / f"{MANIFEST}.draft"
    with writing(MANIFEST):
        with draft.open("wb") as file:
            file.write(document)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(index_dir)
        draft.replace(index_dir / MANIFEST)
        sync_folder(index_dir)


def read_manifest(index_dir: Path) -> Manifest:
    """Return what is published. Raises IndexCorrupt when it is missing or not as written, IndexIncompatible for another
    format."""
    try:
        fields = json.loads((index_dir / MANIFEST).read_bytes())
        found = fields.pop("format"), fields.pop("version")
        checksum = fields.pop("checksum")
        if found != (FORMAT, VERSION):
            raise IndexIncompatible(f"xtr {MANIFEST} is {found[0]} {found[1]}, this reads {FORMAT} {VERSION}.", REBUILD)
        if checksum != _checksum({"format": FORMAT, "version": VERSION} | fields):
            raise IndexCorrupt(f"xtr {MANIFEST} does not match its own checksum.", REBUILD)
        return _manifest(fields)
    except OSError as error:
        raise IndexCorrupt(f"xtr {MANIFEST} cannot be read: {error.strerror}.", REBUILD) from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise IndexCorrupt(f"xtr {MANIFEST} is not one this library wrote.", REBUILD) from error


def _manifest(fields: dict[str, Any]) -> Manifest:
    codec, segments = fields.pop("codec"), fields.pop("segments")
    return Manifest(
        **fields,
        codec=CodecEntry(**codec | {"files": _files(codec["files"])}) if codec else None,
        segments=tuple(_segment(segment) for segment in segments),
    )


def _segment(fields: dict[str, Any]) -> SegmentEntry:
    deleted = fields["deleted"]
    return SegmentEntry(
        **fields | {"files": _files(fields["files"]), "deleted": _files([deleted])[0] if deleted else None}
    )


def _files(entries: list[dict[str, Any]]) -> tuple[File, ...]:
    return tuple(File(**entry | {"shape": tuple(entry["shape"])}) for entry in entries)


def _checksum(fields: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def remove_unreferenced(index_dir: Path, manifest: Manifest) -> None:
    """Remove what `manifest` does not name: drafts, old bitmaps, merged segments. An index already open keeps them."""
    kept = {index_dir / MANIFEST} | {index_dir / file.path for file in manifest.files}
    with writing(MANIFEST):
        for path in sorted(index_dir.rglob("*"), reverse=True):
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
            elif path.is_file() and path not in kept:
                path.unlink()


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
