"""Vectors by the text they were made from, so that an unchanged text is never encoded twice, in any repository.

Format 1, one SQLite file in WAL mode for every model and process, table `vectors_1`:

    model   BLOB  SHA-256 of the model's fingerprint
    key     BLOB  SHA-256 of the encoded text
    vector  BLOB  dim × float16, little-endian
    crc     INT   CRC-32 of model, key and vector, because SQLite does not notice a flipped bit

The cache may lose rows but never gives a wrong one: what does not match is a miss, and a file SQLite cannot read is
set aside. One SELECT a key costs 5 µs; a table WITHOUT ROWID costs four times as much to fill.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from codeintel_rev.errors import InsufficientStorage, StorageFailed
from codeintel_rev.io.durable import DISK
from codeintel_rev.types import Floats, ModelFingerprint

T = TypeVar("T")

_UNREADABLE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)  # the last: a damaged schema
_BUSY_TIMEOUT_S = 60.0
_STORED = np.dtype("<f2")
_CREATE = """CREATE TABLE IF NOT EXISTS vectors_1
    (model BLOB NOT NULL, key BLOB NOT NULL, vector BLOB NOT NULL, crc INTEGER NOT NULL, PRIMARY KEY (model, key))"""
_SELECT = "SELECT CAST(vector AS BLOB), CAST(crc AS INTEGER) FROM vectors_1 WHERE model = ? AND key = ?"
_INSERT = "INSERT OR REPLACE INTO vectors_1 VALUES (?, ?, ?, ?)"


class VectorCache:
    """One model's vectors. Many processes may share the file; one object serves one thread at a time.

    A row that is not what was put is a miss. `set_aside` names the unreadable file that was replaced by an empty one,
    if any. Raises StorageFailed and InsufficientStorage when the disk does not serve.
    """

    def __init__(self, path: Path, fingerprint: ModelFingerprint) -> None:
        self.fingerprint = fingerprint
        self.set_aside: Path | None = None
        self._path = path
        self._model = hashlib.sha256(json.dumps(asdict(fingerprint), sort_keys=True).encode()).digest()
        self._connection = _connect(path)
        self._recovering(self._prepare)

    @classmethod
    def open(cls, path: Path, fingerprint: ModelFingerprint) -> Self:
        """Return the cache kept in `path`, which is made if it does not exist."""
        DISK.make_directory(path.parent)
        return cls(path, fingerprint)

    def get_many(self, keys: Sequence[bytes]) -> tuple[Floats, NDArray[np.bool_]]:
        """Return (n, dim) vectors in the order of `keys` and (n,) which of them were found; the others are zeros."""
        vectors = np.zeros((len(keys), self.fingerprint.dim), np.float32)
        found = np.zeros(len(keys), np.bool_)
        for row, stored in enumerate(self._recovering(lambda: self._stored(keys))):
            if stored is not None:
                vectors[row] = np.frombuffer(stored, _STORED)
                found[row] = True
        return vectors, found

    def put_many(self, keys: Sequence[bytes], vectors: Floats) -> Floats:
        """Keep `vectors` (n, dim) under `keys` and return them as `get_many` will, rounded to what is stored."""
        stored = vectors.astype(_STORED)
        rows = [
            (self._model, key, vector, self._crc(key, vector))
            for key, vector in zip(keys, map(bytes, stored), strict=True)
        ]
        self._recovering(lambda: self._insert(rows))
        return stored.astype(np.float32)

    def close(self) -> None:
        self._connection.close()

    def _prepare(self) -> None:
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")  # a power cut may cost the last rows, no more
        self._connection.execute(_CREATE)

    def _stored(self, keys: Sequence[bytes]) -> list[bytes | None]:
        cursor = self._connection.cursor()
        return [self._valid(key, cursor.execute(_SELECT, (self._model, key)).fetchone()) for key in keys]

    def _valid(self, key: bytes, row: tuple[bytes | None, int | None] | None) -> bytes | None:
        if row is None:
            return None
        vector, crc = row
        if (
            vector is not None
            and len(vector) == self.fingerprint.dim * _STORED.itemsize
            and crc == self._crc(key, vector)
        ):
            return vector
        return None

    def _insert(self, rows: Sequence[tuple[bytes, bytes, bytes, int]]) -> None:
        with self._connection:
            self._connection.executemany(_INSERT, rows)

    def _crc(self, key: bytes, vector: bytes) -> int:
        return zlib.crc32(vector, zlib.crc32(key, zlib.crc32(self._model)))

    def _recovering(self, action: Callable[[], T]) -> T:
        """Return what `action` gives, on an empty file if the present one turns out to be unreadable."""
        try:
            return action()
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF not in _UNREADABLE:
                raise _storage_error(error) from error
        self._replace_file()
        return action()

    def _replace_file(self) -> None:
        self._connection.close()
        self.set_aside = self._path.with_name(f"{self._path.name}.corrupt")
        # The log first: beside a new file of that name, SQLite would replay it.
        for suffix in ("-wal", "-shm", ""):
            part = self._path.with_name(f"{self._path.name}{suffix}")
            if part.exists():
                DISK.replace(part, part.with_name(f"{self.set_aside.name}{suffix}"))
        self._connection = _connect(self._path)
        self._prepare()


def _connect(path: Path) -> sqlite3.Connection:
    """Return a connection that one thread may hand to another."""
    try:
        return sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level="IMMEDIATE", check_same_thread=False)
    except sqlite3.OperationalError as error:
        raise _storage_error(error) from error


def _storage_error(error: sqlite3.DatabaseError) -> InsufficientStorage | StorageFailed:
    if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
        return InsufficientStorage("cannot write the vector cache: the disk is full.", "Free space.")
    return StorageFailed(f"the vector cache failed: {error}.", "Check the disk and its permissions.")
