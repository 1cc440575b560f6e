"""Ask the service every question of a set, and keep what it answered.

    RUN.jsonl       qid, hits, ms, search_ms, judged, ranks, k, classes: a run as any scorer reads it, and its own score
    metrics.json    figures over all questions and by class, times, which channel found what, the generation, limits
    details.csv     one row a question, for a spreadsheet

`ms` is wall time, `search_ms` that without the encoding of the question.
"""

from __future__ import annotations

import csv
import io
import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from codeintel_rev.errors import InvalidArgument, NotFound
from codeintel_rev.eval.bootstrap import Difference, paired
from codeintel_rev.eval.metrics import Place, Score, files_once, means, score
from codeintel_rev.eval.queries import Query
from codeintel_rev.io.durable import os_errors_mapped
from codeintel_rev.retrieval.searcher import Searcher
from codeintel_rev.types import Scope, SearchResult

RUN, METRICS, DETAILS = "RUN.jsonl", "metrics.json", "details.csv"
MOST_CLASSES = 24
"""A text with more values than this is no class but a name."""
_DETAIL = ("qid", "query", "rank", "ndcg", "recall", "ms", "search_ms", "first_path", "first_line", "channels")


@dataclass(frozen=True, slots=True)
class Found:
    """One hit: its place, its chunk, and the channels that offered it with their rank."""

    path: str
    start_line: int
    end_line: int
    chunk_id: int
    score: float
    channels: Mapping[str, int]

    @property
    def place(self) -> Place:
        return Place(self.path, self.start_line, self.end_line)


@dataclass(frozen=True, slots=True)
class Answer:
    """What one question got, how it scored, and what was limited."""

    query: Query
    hits: tuple[Found, ...]
    ms: float
    search_ms: float
    score: Score
    limits: tuple[str, ...]
    generation: str

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels that had the first right hit among their own first `k`."""
        if not self.score.found:
            return ()
        ranks = self.hits[min(self.score.found) - 1].channels
        return tuple(sorted(name for name, rank in ranks.items() if rank <= self.score.k))


def ask(searcher: Searcher, repo: str, queries: Iterable[Query], k: int, deadline_ms: float) -> list[Answer]:
    """Return the answer to each question, in order, one asked after the other. Raises as `Searcher.search`."""
    return [_answer(searcher, repo, query, k, deadline_ms) for query in queries]


def _answer(searcher: Searcher, repo: str, query: Query, k: int, deadline_ms: float) -> Answer:
    started = time.perf_counter()
    result = searcher.search(query.text, Scope(repos=(repo,)), k, deadline_ms=deadline_ms)
    ms = (time.perf_counter() - started) * 1000
    encoding = sum(stage.ms for stage in result.stages if stage.name == "encode")
    hits = _found(result)
    scored = score((hit.place for hit in hits), query.judged, k)
    limits = tuple(limit.code for limit in result.limits)
    return Answer(query, hits, ms, max(ms - encoding, 0.0), scored, limits, result.generations[repo])


def _found(result: SearchResult) -> tuple[Found, ...]:
    return tuple(
        Found(
            hit.path,
            hit.start_line,
            hit.end_line,
            hit.chunk_id,
            hit.score,
            {name: part.rank for name, part in hit.contributions.items() if part.rank is not None},
        )
        for hit in result.hits
    )


def write_run(out: Path, metrics: Mapping[str, Any], answers: Sequence[Answer]) -> None:
    """Write the three files into `out`, made when it is not there. Raises StorageFailed."""
    texts = {
        RUN: "".join(json.dumps(_row(answer)) + "\n" for answer in answers),
        METRICS: json.dumps(metrics, indent=1) + "\n",
        DETAILS: _details(answers),
    }
    with os_errors_mapped("write", out):
        out.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (out / name).write_text(text, encoding="utf-8")


def summary(repo: str, answers: Sequence[Answer]) -> dict[str, Any]:
    """Return what `metrics.json` says. REQUIRES: there is an answer."""
    scores = [answer.score for answer in answers]
    k = scores[0].k
    files = [
        score(files_once(hit.place for hit in one.hits), tuple(dict.fromkeys(files_once(one.query.judged))), k)
        for one in answers
    ]
    return {
        "repo": repo,
        "generations": sorted({answer.generation for answer in answers}),
        "questions": len(answers),
        "k": k,
        "figures": means(scores),
        "figures_by_file": means(files),
        "classes": dict(_by_class(answers)),
        "found_by": _found_by(answers),
        "ms": _times([answer.ms for answer in answers]),
        "search_ms": _times([answer.search_ms for answer in answers]),
        "limits": dict(sorted(Counter(code for answer in answers for code in answer.limits).items())),
    }


def _by_class(answers: Sequence[Answer]) -> Iterator[tuple[str, dict[str, dict[str, float]]]]:
    for name in sorted({name for answer in answers for name in answer.query.classes}):
        grouped = defaultdict(list)
        for answer in answers:
            if name in answer.query.classes:
                grouped[answer.query.classes[name]].append(answer.score)
        if len(grouped) <= MOST_CLASSES:
            yield name, {value: {"questions": len(of), **means(of)} for value, of in sorted(grouped.items())}


def _found_by(answers: Sequence[Answer]) -> dict[str, dict[str, float]]:
    """Return, of the questions with a right hit, the share that each channel found it for, and did so alone."""
    right = [answer.channels for answer in answers if answer.score.found]
    return {
        name: {
            "share": sum(name in channels for channels in right) / len(right),
            "alone": sum((name,) == channels for channels in right) / len(right),
        }
        for name in sorted({name for channels in right for name in channels})
    }


def _times(ms: Sequence[float]) -> dict[str, float]:
    p50, p95 = np.percentile(ms, (50, 95))
    return {"p50": round(float(p50), 2), "p95": round(float(p95), 2)}


def _row(answer: Answer) -> dict[str, object]:
    return {
        "qid": answer.query.qid,
        "query": answer.query.text,
        "hits": [asdict(hit) for hit in answer.hits],
        "ms": round(answer.ms, 2),
        "search_ms": round(answer.search_ms, 2),
        "judged": [asdict(place) for place in answer.query.judged],
        "ranks": answer.score.ranks,
        "k": answer.score.k,
        "classes": dict(answer.query.classes),
        "generation": answer.generation,
        "limits": answer.limits,
    }


def _details(answers: Sequence[Answer]) -> str:
    told = io.StringIO()
    writer = csv.writer(told, lineterminator="\n")
    classes = sorted({name for answer in answers for name in answer.query.classes})
    writer.writerow([*_DETAIL, *classes])
    for answer in answers:
        first = answer.hits[0] if answer.hits else None
        writer.writerow(
            [
                answer.query.qid,
                answer.query.text,
                min(answer.score.found, default=""),
                round(answer.score.ndcg, 4),
                round(answer.score.recall, 4),
                round(answer.ms, 2),
                round(answer.search_ms, 2),
                first.path if first else "",
                first.start_line if first else "",
                "+".join(answer.channels),
                *(answer.query.classes.get(name, "") for name in classes),
            ]
        )
    return told.getvalue()


def read_run(folder: Path) -> list[Answer]:
    """Return the answers of a run, as they were scored then. Raises NotFound, InvalidArgument for another shape."""
    path = folder / RUN
    if not path.is_file():
        raise NotFound(f"{folder} holds no {RUN}.", "Give a folder that `indexctl eval --out` wrote.")
    with os_errors_mapped("read", path):
        lines = path.read_text(encoding="utf-8").splitlines()
    try:
        return [_answer_of(json.loads(line)) for line in lines]
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidArgument(f"{RUN} of {folder.name} is not of this format.", "Ask the questions again.") from error


def _answer_of(row: Mapping[str, Any]) -> Answer:
    judged = tuple(Place(**place) for place in row["judged"])
    query = Query(row["qid"], row["query"], "", judged, row["classes"])
    hits = tuple(Found(**hit) for hit in row["hits"])
    scored = Score(tuple(row["ranks"]), row["k"])
    return Answer(query, hits, row["ms"], row["search_ms"], scored, tuple(row["limits"]), row["generation"])


@dataclass(frozen=True, slots=True)
class Comparison:
    """A run against an earlier one, over the `shared` questions: ndcg, and the qids that got worse, worst first."""

    shared: int
    ndcg: Difference
    worse: tuple[str, ...]


def compare(answers: Iterable[Answer], baseline: Iterable[Answer]) -> Comparison:
    """Return what became of the questions that both runs asked.

    Each is scored by the judgements of its own time: lines move. Raises InvalidArgument when the runs share no question
    or looked at another number of hits.
    """
    before = {answer.query.qid: answer.score for answer in baseline}
    pairs = [(one.query.qid, one.score, before[one.query.qid]) for one in answers if one.query.qid in before]
    if not pairs:
        raise InvalidArgument("the two runs share no question.", "Compare runs over the same questions.")
    if {now.k for _, now, _ in pairs} != {then.k for _, _, then in pairs}:
        raise InvalidArgument("the two runs have another --k.", "Ask again with the k of the baseline.")
    changes = {qid: now.ndcg - then.ndcg for qid, now, then in pairs}
    worse = sorted((qid for qid, change in changes.items() if change < 0), key=lambda qid: (changes[qid], qid))
    return Comparison(len(pairs), paired(list(changes.values())), tuple(worse))
