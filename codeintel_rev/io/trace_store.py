"""Traces of answers on disk: `traces/YYYY-MM-DD/<ulid>.parquet`, each a part of that day's rows.

    columns   the fields of AnswerTrace, in their order and by their names; zstd; `FORMAT` rises when one changes

The day is that of the question, in UTC. Parts are written beside their name and then renamed: who reads a folder never
meets half of one.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq
import structlog
from ulid import ULID

from codeintel_rev.errors import CodeIntelError
from codeintel_rev.io.parquet_store import reading, writing
from codeintel_rev.observability.answer_trace import AnswerTrace
from codeintel_rev.observability.metrics import TRACES_DROPPED

FORMAT = b"1"
TRACES = "traces"
MOST_WAITING = 4096
"""Traces that may wait for the disk; the next is dropped."""
PART_ROWS = 1024
EVERY_S = 5.0


def _list(of: pa.DataType) -> pa.DataType:
    return pa.list_(pa.field("element", of))  # As Parquet calls it, whatever it is called here.


_KINDS: dict[object, pa.DataType] = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    tuple[str, ...]: _list(pa.string()),
    tuple[int, ...]: _list(pa.int64()),
}
_NULLABLE: dict[object, pa.DataType] = {str | None: pa.string(), int | None: pa.int64(), float | None: pa.float64()}

log = structlog.get_logger(__name__)


def get_trace_schema() -> pa.Schema:
    kinds = get_type_hints(AnswerTrace)
    columns = [
        pa.field(one.name, (_KINDS | _NULLABLE)[kinds[one.name]], nullable=kinds[one.name] in _NULLABLE)
        for one in fields(AnswerTrace)
    ]
    return pa.schema(columns, metadata={b"codeintel.format": FORMAT})


def write_traces(folder: Path, traces: Iterable[AnswerTrace]) -> None:
    """Write `traces` below `folder`, one new part a day. Raises InsufficientStorage, StorageFailed."""
    days: dict[str, list[dict[str, object]]] = {}
    for trace in traces:
        days.setdefault(trace.asked_at[:10], []).append(asdict(trace))
    for day, rows in days.items():
        part = folder / day / f"{ULID()}.parquet"
        with writing(part):
            part.parent.mkdir(parents=True, exist_ok=True)
            unfinished = part.with_suffix(".tmp")
            pq.write_table(pa.Table.from_pylist(rows, schema=get_trace_schema()), unfinished, compression="zstd")
            unfinished.rename(part)


def read_traces(folder: Path) -> list[AnswerTrace]:
    """Return every trace below `folder`, by day and by part. Raises IndexCorrupt, IndexIncompatible."""
    traces = []
    for part in sorted(folder.glob("*/*.parquet")):
        with reading(part, get_trace_schema()) as table:
            traces += [_trace(row) for row in table.read().to_pylist()]
    return traces


class TraceStore:
    """Writes traces from a thread of its own, so that no answer waits for a disk.

    What is not written is dropped, counted and told in the log; nothing else fails for it.
    """

    def __init__(self, folder: Path, every_s: float = EVERY_S) -> None:
        self._folder = folder
        self._every_s = every_s
        self._waiting: queue.Queue[AnswerTrace] = queue.Queue(MOST_WAITING)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._thread.start()

    def add(self, trace: AnswerTrace) -> None:
        """Have `trace` written soon; at once when the store is closed."""
        try:
            self._waiting.put_nowait(trace)
        except queue.Full:
            TRACES_DROPPED.inc()

    def close(self) -> None:
        """Write what waits, and end."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self._write(self._waiting.qsize())
        self._write(self._waiting.qsize())

    def _write(self, waiting: int) -> None:
        while waiting:
            traces = [self._waiting.get() for _ in range(min(waiting, PART_ROWS))]
            waiting -= len(traces)
            self._write_part(traces)

    def _write_part(self, traces: Sequence[AnswerTrace]) -> None:
        try:
            write_traces(self._folder, traces)
        except CodeIntelError as error:
            TRACES_DROPPED.inc(len(traces))
            log.warning("traces_dropped", count=len(traces), reason=str(error))


def _trace(row: dict[str, object]) -> AnswerTrace:
    return AnswerTrace(**{name: tuple(value) if isinstance(value, list) else value for name, value in row.items()})  # type: ignore[arg-type]
