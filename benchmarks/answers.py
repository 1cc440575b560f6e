"""Is the extractive answer right, in time, and refused when it should be?

`python -m benchmarks.answers SET_DIR [REPO …]`; a set as in `benchmarks.quality`. Every question is asked of its own
repository and of the next one, which mostly does not answer it. Of its own none should be refused, and the gap in
confidence be wide.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import TypeVar

from codeintel_rev.answer.events import CancelledBy, Citation, Completed, Event, Extract, Sources
from codeintel_rev.answer.library import OpenedLibrary
from codeintel_rev.answer.orchestrator import Question, answer
from codeintel_rev.answer.parts import Parts
from codeintel_rev.config.settings import Settings
from codeintel_rev.encoders.dense import open_encoder
from codeintel_rev.eval.queries import Query, bench_set
from codeintel_rev.indexing.build import build
from codeintel_rev.retrieval.shards import Shards
from codeintel_rev.types import Scope

T = TypeVar("T")


async def in_thread(work: Callable[[float], T], deadline_ms: float) -> T:
    return await asyncio.to_thread(work, deadline_ms)


async def asked(parts: Parts, settings: Settings, text: str, repo: str) -> list[Event]:
    cancel: asyncio.Future[CancelledBy] = asyncio.get_running_loop().create_future()
    question = Question(text, Scope(repos=(repo,)), "", "", "deep")
    return [event async for event in answer(question, parts, settings.answer, cancel)]


def first_is_right(events: Sequence[Event], query: Query) -> bool:
    """Whether the first citation names a file that the question's judges named."""
    paths = {s.n: s.path for event in events if isinstance(event.body, Sources) for s in event.body.sources}
    cited = [event.body.n for event in events if isinstance(event.body, Citation)]
    return bool(cited) and paths[cited[0]] in {place.path for place in query.judged}


def completed(events: Sequence[Event]) -> Completed:
    last = events[-1].body
    if not isinstance(last, Completed) or last.limits:
        raise SystemExit(f"a measured answer may lack nothing: {last}")
    return last


async def measure(parts: Parts, settings: Settings, queries: Sequence[Query], repos: Sequence[str]) -> None:
    own = [await asked(parts, settings, query.text, query.repo) for query in queries]
    other = [
        await asked(parts, settings, query.text, repos[(repos.index(query.repo) + 1) % len(repos)]) for query in queries
    ]
    right = [first_is_right(events, query) for events, query in zip(own, queries, strict=True)]
    sure, unsure = ([completed(events).confidence for events in half] for half in (own, other))
    ahead = sum((a > b) + (a == b) / 2 for a in sure for b in unsure) / (len(sure) * len(unsure))
    extracts = [event.t_ms for events in own for event in events if isinstance(event.body, Extract)]
    print(f"questions {len(queries)}, repositories {len(repos)}")
    print(f"first citation in a judged file {sum(right) / len(right):.3f}")
    for name, half in (("own", own), ("other", other)):
        refused = sum(completed(events).status in ("abstained", "empty") for events in half)
        print(f"refused, {name} repository {refused / len(half):.3f}")
    print(f"confidence: own {median(sure):.2f}, other {median(unsure):.2f}, own ahead of other {ahead:.3f}")
    print(f"extract p50 {median(extracts):.0f} ms, p95 {sorted(extracts)[int(0.95 * len(extracts))]:.0f} ms")


def main() -> None:
    sets = [Path(argument) for argument in sys.argv[1:] if Path(argument, "queries.jsonl").is_file()]
    if not sets:
        print("no set given: python -m benchmarks.answers SET_DIR [REPO …]")
        return
    folder = sets[0]
    questions = bench_set(folder)
    chosen = {query.repo for query in questions} & set(sys.argv) or {query.repo for query in questions}
    queries = [query for query in questions if query.repo in chosen]
    repos = sorted(chosen)
    with tempfile.TemporaryDirectory() as data:
        settings = Settings.model_validate({"paths": {"data_dir": data}, "retrieval": {"channel_deadline_ms": 20_000}})
        for repo in repos:
            build(repo, folder / "trees" / repo, settings, on_progress=lambda _: None)
        encoder = open_encoder(settings.embedding, settings.paths.data_dir / "models")
        shards = Shards(settings.paths.data_dir, encoder, settings)
        try:
            shards.refresh()
            asyncio.run(measure(Parts(shards, OpenedLibrary(shards), in_thread), settings, queries, repos))
        finally:
            shards.close()


if __name__ == "__main__":
    main()
