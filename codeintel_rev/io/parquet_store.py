"""The Parquet table of a generation: which vectors it has.

    idmap.parquet     faiss_id, chunk_id        row of the vector → chunk; rows of the secondary count on from those
                                                of the primary, those of deleted vectors are not there

No column is nullable; compression is zstd. `FORMAT` stands in the schema's metadata and rises when a column changes.
Parquet does not notice a flipped bit: the manifest's hash does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EIO, ENOSPC
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from codeintel_rev.errors import IndexCorrupt, IndexIncompatible
from codeintel_rev.io.durable import storage_error
from codeintel_rev.types import Ids

FORMAT = b"1"
IDMAP = "idmap.parquet"


def get_idmap_schema() -> pa.Schema:
    columns = [pa.field(name, pa.int64(), nullable=False) for name in ("faiss_id", "chunk_id")]
    return pa.schema(columns, metadata={b"codeintel.format": FORMAT})


@contextmanager
def writing(path: Path, foreign: type[Exception] = OSError) -> Iterator[None]:
    """Turn an OSError, or an engine's `foreign` error, of a write into InsufficientStorage or StorageFailed."""
    try:
        yield
    except OSError as error:
        raise storage_error("write", path, error) from error
    except foreign as error:
        code = ENOSPC if os.strerror(ENOSPC) in str(error) else EIO
        raise storage_error("write", path, OSError(code, os.strerror(code))) from error


def write_idmap(path: Path, chunk_ids: Ids, faiss_ids: Ids | None = None) -> int:
    """Write `chunk_ids` (n,) by their rows `faiss_ids` (n,), from 0 when not given, and return how many there are.

    Raises InsufficientStorage, StorageFailed.
    """
    rows = np.arange(len(chunk_ids), dtype=np.int64) if faiss_ids is None else faiss_ids
    columns = [pa.array(rows, pa.int64()), pa.array(chunk_ids, pa.int64())]
    with writing(path):
        pq.write_table(pa.Table.from_arrays(columns, schema=get_idmap_schema()), path, compression="zstd")
    return len(chunk_ids)


def read_idmap(directory: Path) -> tuple[Ids, Ids]:
    """Return the rows of the vectors (n,), ascending, and the chunk id (n,) of each.

    Raises IndexCorrupt for a missing or broken file and rows out of order, IndexIncompatible for another format.
    """
    with reading(directory / IDMAP, get_idmap_schema()) as table:
        columns = table.read()
    rows, chunk_ids = (np.asarray(columns[name], np.int64) for name in ("faiss_id", "chunk_id"))
    if len(rows) and (rows[0] < 0 or np.any(rows[1:] <= rows[:-1])):
        raise IndexCorrupt(f"{IDMAP} does not hold distinct rows in ascending order.", "Build the index again.")
    return rows, chunk_ids


@contextmanager
def reading(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetFile]:
    """Open one table. Raises IndexCorrupt, also for a page that is read later, and IndexIncompatible."""
    try:
        with pq.ParquetFile(path) as table:
            if not table.schema_arrow.equals(schema, check_metadata=True):
                raise IndexIncompatible(f"{path.name} has another format than this version writes.", "Build again.")
            yield table
    except FileNotFoundError as error:
        raise IndexCorrupt(f"{path.name} is missing.", "Build the index again.") from error
    except (pa.ArrowException, OSError) as error:
        raise IndexCorrupt(f"{path.name} cannot be read.", "Build the index again.") from error
