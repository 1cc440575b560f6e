"""Every channel of every shard at once, under a deadline: what comes back in time, and a Limit for what does not."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from concurrent.futures import TimeoutError as NotInTime
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import ParamSpec, TypeVar

from codeintel_rev.errors import CodeIntelError, InvalidArgument
from codeintel_rev.observability.tracing import span
from codeintel_rev.retrieval.channels import Channel, Question
from codeintel_rev.retrieval.fuse import merge
from codeintel_rev.types import Limit, Ranking, Selection, Stage

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Task:
    """One channel of one repository's shard, to be asked within a selection of it."""

    repo: str
    channel: Channel
    selection: Selection | None


@dataclass(frozen=True, slots=True)
class Gathered:
    """One ranking per channel over all shards asked, what each channel took, and what is missing."""

    rankings: tuple[Ranking, ...]
    stages: tuple[Stage, ...]
    limits: tuple[Limit, ...]


@dataclass(frozen=True, slots=True)
class _Answer:
    task: Task
    ranking: Ranking | None
    ms: float
    limit: Limit | None


def gather(
    question: Question, tasks: Sequence[Task], executor: Executor, *, deadline: float, budget_ms: float
) -> Gathered:
    """Ask all tasks and return what is there at `deadline` (monotonic seconds).

    A late channel runs on in its thread, its answer unread; the executor bounds how many can pile up. Raises
    InvalidArgument, which is the caller's mistake and not a channel's.
    """
    running = [(task, executor.submit(in_context(_timed), task, question)) for task in tasks]
    answers = [_await(task, future, deadline) for task, future in running]
    names = tuple(dict.fromkeys(task.channel.name for task in tasks))
    by_channel = {name: [answer for answer in answers if answer.task.channel.name == name] for name in names}
    return Gathered(
        rankings=tuple(_merge(name, by_channel[name], question.plan.depth) for name in names),
        stages=tuple(_stage(name, by_channel[name], budget_ms) for name in names),
        limits=tuple(answer.limit for answer in answers if answer.limit),
    )


def in_context(work: Callable[P, T]) -> Callable[P, T]:
    """Return `work` to be run once, in any thread, as part of the request in progress: its trace, its log lines."""
    return partial(copy_context().run, work)


def _timed(task: Task, question: Question) -> tuple[Ranking, float]:
    started = time.monotonic()
    with span(f"search.{task.channel.name}"):
        ranking = task.channel.rank(question, task.selection)
    return ranking, (time.monotonic() - started) * 1000


def _await(task: Task, future: Future[tuple[Ranking, float]], deadline: float) -> _Answer:
    started = time.monotonic()
    try:
        ranking, ms = future.result(timeout=max(0.0, deadline - started))
    except InvalidArgument:
        raise
    except NotInTime:
        future.cancel()
        return _Answer(task, None, (time.monotonic() - started) * 1000, _late(task))
    except CodeIntelError as error:
        return _Answer(task, None, (time.monotonic() - started) * 1000, _failed(task, error))
    return _Answer(task, ranking, ms, None)


def _late(task: Task) -> Limit:
    name = task.channel.name
    return Limit("channel-late", name, f"{name} of {task.repo} was not in time.", "Other channels answered; retry.")


def _failed(task: Task, error: CodeIntelError) -> Limit:
    return Limit(error.slug, task.channel.name, f"{task.channel.name} of {task.repo}: {error.detail}", error.hint)


def _merge(name: str, answers: Sequence[_Answer], depth: int) -> Ranking:
    """Return the best `depth` of one channel's rankings from several shards."""
    merged = merge(name, [answer.ranking for answer in answers if answer.ranking is not None])
    return Ranking(name, merged.chunk_ids[:depth], merged.scores[:depth])


def _stage(name: str, answers: Sequence[_Answer], budget_ms: float) -> Stage:
    limits = [answer.limit for answer in answers if answer.limit]
    status = "ok" if not limits else "late" if limits[0].code == "channel-late" else "failed"
    return Stage(name, max(answer.ms for answer in answers), status, budget_ms, limits[0].detail if limits else "")
