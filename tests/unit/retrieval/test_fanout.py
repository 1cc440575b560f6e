"""A channel that is late or fails costs its own part of the answer and is told; the others answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass

import numpy as np
import pytest

from codeintel_rev.errors import ChannelFailed, IndexCorrupt, InvalidArgument
from codeintel_rev.retrieval.channels import Question
from codeintel_rev.retrieval.fanout import Gathered, Task, gather
from codeintel_rev.retrieval.late import QueryTokens
from codeintel_rev.retrieval.plan import make_plan
from codeintel_rev.types import Ranking, Selection

QUESTION = Question(make_plan("cart", 3), None, QueryTokens("cart"))
IN_TIME = 60.0


@dataclass(frozen=True, slots=True)
class Scripted:
    """A channel that does what the test says."""

    name: str
    answer: Callable[[], Ranking]

    def rank(self, question: Question, selection: Selection | None) -> Ranking:
        return self.answer()


def offering(name: str, *scores: tuple[int, float]) -> Scripted:
    ids, values = zip(*scores, strict=True) if scores else ((), ())
    return Scripted(name, lambda: Ranking(name, np.array(ids, np.int64), np.array(values, np.float32)))


def failing(name: str, error: Exception) -> Scripted:
    def answer() -> Ranking:
        raise error

    return Scripted(name, answer)


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def gathered(executor: ThreadPoolExecutor, *channels: Scripted, within_s: float = IN_TIME, repo: str = "") -> Gathered:
    tasks = [Task(repo or f"repo{n}", channel, None) for n, channel in enumerate(channels)]
    return gather(QUESTION, tasks, executor, deadline=time.monotonic() + within_s, budget_ms=within_s * 1000)


def offered(found: Gathered) -> dict[str, list[int]]:
    return {ranking.channel: ranking.chunk_ids.tolist() for ranking in found.rankings}


def test_every_channel_in_time_answers_and_nothing_is_limited(executor: ThreadPoolExecutor) -> None:
    found = gathered(executor, offering("lexical", (1, 2.0)), offering("dense", (2, 0.5)))
    assert offered(found) == {"lexical": [1], "dense": [2]}
    assert found.limits == ()
    assert [(stage.name, stage.status) for stage in found.stages] == [("lexical", "ok"), ("dense", "ok")]


class AwaitingExceptLate(ThreadPoolExecutor):
    """Lets every task end before the next is asked, but for those of the channel "late"."""

    def submit(self, function, /, task, question):  # type: ignore[no-untyped-def, override]
        future = super().submit(function, task, question)
        if task.channel.name != "late":
            wait([future])
        return future


def test_a_late_channel_is_reported_as_a_limit() -> None:
    """The deadline is now: the others have answered, this one is held until the answer is read."""
    release = threading.Event()
    late = Scripted("late", lambda: release.wait() and offering("late", (9, 1.0)).answer())
    with AwaitingExceptLate(2) as executor:
        found = gathered(executor, offering("lexical", (1, 2.0)), late, repo="shop", within_s=0)
        release.set()
    assert offered(found) == {"lexical": [1], "late": []}
    assert [(limit.code, limit.stage) for limit in found.limits] == [("channel-late", "late")]
    assert "late of shop" in found.limits[0].detail
    assert [stage.status for stage in found.stages] == ["ok", "late"]


def test_a_channel_that_waits_for_a_thread_is_late_and_never_begins() -> None:
    """Under load, what nobody waits for any more does not take up a thread later."""
    release, begun = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as narrow:
        narrow.submit(release.wait)
        found = gathered(
            narrow, Scripted("lexical", lambda: begun.set() or Ranking("lexical", *_nothing())), within_s=0
        )
        release.set()
    assert [limit.code for limit in found.limits] == ["channel-late"]
    assert not begun.is_set()


def _nothing() -> tuple[np.ndarray, np.ndarray]:
    return np.empty(0, np.int64), np.empty(0, np.float32)


def test_a_failing_channel_is_reported_as_a_limit(executor: ThreadPoolExecutor) -> None:
    error = ChannelFailed("the engine panicked.", "Look at the log.")
    found = gathered(executor, failing("lexical", error), offering("dense", (2, 0.5)), repo="shop")
    assert offered(found) == {"lexical": [], "dense": [2]}
    (limit,) = found.limits
    assert (limit.code, limit.stage, limit.action) == ("channel-failed", "lexical", "Look at the log.")
    assert limit.detail == "lexical of shop: the engine panicked."
    assert [stage.status for stage in found.stages] == ["failed", "ok"]


def test_what_failed_is_told_by_its_own_name(executor: ThreadPoolExecutor) -> None:
    found = gathered(executor, failing("dense", IndexCorrupt("vectors.npy is missing.")))
    assert [limit.code for limit in found.limits] == ["index-corrupt"]


def test_the_caller_s_mistake_is_the_caller_s(executor: ThreadPoolExecutor) -> None:
    with pytest.raises(InvalidArgument):
        gathered(executor, failing("lexical", InvalidArgument("no.")), offering("dense", (2, 0.5)))


def test_a_bug_is_not_a_limit(executor: ThreadPoolExecutor) -> None:
    with pytest.raises(ZeroDivisionError):
        gathered(executor, failing("lexical", ZeroDivisionError()), offering("dense", (2, 0.5)))


def test_shards_are_merged_by_score_then_id_and_cut_at_the_depth(executor: ThreadPoolExecutor) -> None:
    found = gathered(
        executor,
        offering("lexical", (8, 5.0), (4, 1.0)),
        offering("lexical", (3, 5.0), (5, 4.0)),
        offering("lexical", (6, 4.5)),
    )
    assert offered(found) == {"lexical": [3, 8, 6]}
    assert found.rankings[0].scores.tolist() == [5.0, 5.0, 4.5]


def test_one_shard_s_failure_leaves_the_channel_s_other_shards(executor: ThreadPoolExecutor) -> None:
    found = gathered(executor, offering("lexical", (1, 2.0)), failing("lexical", ChannelFailed("no.")))
    assert offered(found) == {"lexical": [1]}
    assert [limit.detail for limit in found.limits] == ["lexical of repo1: no."]
    assert [(stage.name, stage.status) for stage in found.stages] == [("lexical", "failed")]


def test_no_channel_is_no_answer(executor: ThreadPoolExecutor) -> None:
    assert gathered(executor) == Gathered((), (), ())


def test_channels_are_asked_at_the_same_time(executor: ThreadPoolExecutor) -> None:
    """Each waits until all have begun; one after the other, none would end."""
    all_begun = threading.Barrier(3)

    def answer(name: str) -> Callable[[], Ranking]:
        return lambda: all_begun.wait() >= 0 and offering(name, (1, 1.0)).answer()

    found = gathered(executor, *(Scripted(name, answer(name)) for name in ("lexical", "dense", "symbols")))
    assert found.limits == ()
