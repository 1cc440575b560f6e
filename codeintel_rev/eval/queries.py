"""What is asked, and which places are right? Files of questions with their judgements.

    queries.jsonl    one object a line: qid, query; repo, where a file is for several; judged, a list of {path,
                     start_line, end_line}, where there are no qrels; every other text is a class to break down by
    qrels.tsv        qid, path, start_line, end_line, gain; without lines the whole file is right
    anything else    written by hand: the question and places `path`, `path:12` or `path:12-30`, tabs between

The first two are the format of public retrieval sets.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codeintel_rev.errors import InvalidArgument, NotFound
from codeintel_rev.eval.metrics import LAST_LINE, Place
from codeintel_rev.io.durable import os_errors_mapped

_KEYS = {"qid", "query", "repo"}
_PLACE = re.compile(r"(?P<path>.+?)(?::(?P<start>\d+)(?:-(?P<end>\d+))?)?")
_SHAPE = "Each line is an object {qid, query, repo}."


@dataclass(frozen=True, slots=True)
class Query:
    """A question, the repository it is asked of ("": any), the places that are right, and its classes by name."""

    qid: str
    text: str
    repo: str
    judged: tuple[Place, ...]
    classes: Mapping[str, str] = field(default_factory=dict)


def bench_set(folder: Path) -> list[Query]:
    """Return the judged questions of a public set. Raises as `read`."""
    return read(folder / "queries.jsonl", folder / "qrels.tsv")


def read(queries: Path, qrels: Path | None = None) -> list[Query]:
    """Return the questions of a file that have a judgement, in its order.

    Raises NotFound, InvalidArgument naming the line that cannot be read, or a qid that stands twice.
    """
    judged = _judgements(qrels) if qrels else {}
    found = _written(queries) if queries.suffix != ".jsonl" else (_of_row(row) for row in question_rows(queries))
    asked = [Query(one.qid, one.text, one.repo, judged.get(one.qid, one.judged), one.classes) for one in found]
    twice = [qid for qid, count in Counter(one.qid for one in asked).items() if count > 1]
    if twice:
        raise InvalidArgument(f"{queries.name} has {twice[0]} twice.", "Give each question a qid of its own.")
    return [one for one in asked if one.judged]


def question_rows(queries: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a file of questions, each with qid and query. Raises NotFound, InvalidArgument."""
    for place, line in _lines(queries):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InvalidArgument(f"{place} is not JSON.", _SHAPE) from error
        if not isinstance(row, dict) or not {"qid", "query"} <= row.keys():
            raise InvalidArgument(f"{place} lacks qid or query.", _SHAPE)
        yield row


def row_of(query: Query) -> dict[str, object]:
    """Return what `read` makes `query` of again."""
    judged = [{"path": one.path, "start_line": one.start_line, "end_line": one.end_line} for one in query.judged]
    return {"qid": query.qid, "query": query.text, "repo": query.repo, **query.classes, "judged": judged}


def of_repository(queries: Iterable[Query], repo: str) -> list[Query]:
    """Return those that may be asked of `repo`. Raises InvalidArgument when there are none."""
    chosen = [query for query in queries if query.repo in ("", repo)]
    if not chosen:
        raise InvalidArgument(f"no question with a judgement is for {repo}.", "Give --qrels, or `judged` in each line.")
    return chosen


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the lines that hold something, each with how to name it."""
    if not path.is_file():
        raise NotFound(f"{path} is not a file.", "Give a file of lines {qid, query, repo}.")
    with os_errors_mapped("read", path):
        lines = path.read_text(encoding="utf-8").splitlines()
    yield from ((f"line {number} of {path.name}", line) for number, line in enumerate(lines, start=1) if line.strip())


def _of_row(row: Mapping[str, Any]) -> Query:
    classes = {name: value for name, value in row.items() if name not in _KEYS and isinstance(value, str)}
    try:
        judged = tuple(Place(**place) for place in row.get("judged", ()))
    except TypeError as error:
        raise InvalidArgument(f"{row['qid']} is judged by no places.", "Give path, start_line and end_line.") from error
    return Query(row["qid"], row["query"], row.get("repo", ""), judged, classes)


def _written(queries: Path) -> Iterator[Query]:
    for _, line in _lines(queries):
        text, *places = (cell.strip() for cell in line.split("\t"))
        qid = f"w-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        yield Query(qid, text, "", tuple(_place(cell) for cell in places if cell))


def _place(cell: str) -> Place:
    found = _PLACE.fullmatch(cell)
    if found is None or not found["start"]:
        return Place(cell)
    return Place(found["path"], int(found["start"]), int(found["end"] or found["start"]))


def _judgements(qrels: Path) -> dict[str, tuple[Place, ...]]:
    judged: dict[str, list[Place]] = defaultdict(list)
    for place, line in _lines(qrels):
        try:
            qid, path, start, end, gain = line.rstrip("\n").split("\t")
            if int(float(gain)) > 0:
                judged[qid].append(Place(path, int(start or 0), int(end or LAST_LINE)))
        except ValueError as error:
            raise InvalidArgument(
                f"{place} is no judgement.", "Each line is qid, path, start_line, end_line, gain with tabs between."
            ) from error
    return {qid: tuple(places) for qid, places in judged.items()}
