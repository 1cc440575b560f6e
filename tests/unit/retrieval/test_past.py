"""Questions about the past: kept generations, of a name or of a time, answer beside the newest."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from codeintel_rev.errors import CodeIntelError, GenerationGone, IndexCorrupt, InvalidArgument, NotFound
from codeintel_rev.io.generations import GenerationStore
from codeintel_rev.retrieval.past import moment
from codeintel_rev.retrieval.shards import Shards
from codeintel_rev.types import Freshness, Scope, SearchResult
from tests.indexed import LONG_MS, Place, new_place

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class History:
    """`shop` published three times, each time with another number in its one function; `later` published once."""

    place: Place
    generations: tuple[str, ...]

    @property
    def store(self) -> GenerationStore:
        return GenerationStore(self.place.directory("shop"))

    def time_of(self, generation: str) -> str:
        return self.store.manifest(generation).created_at


@pytest.fixture
def history(tmp_path: Path) -> History:
    place = new_place(tmp_path)
    generations = []
    for number in ("first", "second", "third"):
        place.write("shop", "price.py", f'def price():\n    return "{number}"\n')
        generations.append(place.index("shop"))
    place.write("later", "price.py", 'def price():\n    return "elsewhere"\n')
    place.index("later")
    return History(place, tuple(generations))


def asked(shards: Shards, **scope: str | tuple[str, ...]) -> SearchResult:
    return shards.search("price", Scope(**scope), 5, deadline_ms=LONG_MS)  # type: ignore[arg-type]


def codes(result: SearchResult) -> list[str]:
    return [limit.code for limit in result.limits]


def test_a_kept_generation_answers_as_it_was(history: History) -> None:
    with history.place.opened() as shards:
        old = asked(shards, generation=history.generations[0])
        new = asked(shards, repos=("shop",))
    assert '"first"' in old.hits[0].snippet
    assert old.generations == {"shop": history.generations[0]}
    assert codes(old) == ["past-generation"]
    assert history.time_of(history.generations[0]) in old.limits[0].detail
    assert old.hits[0].freshness is Freshness.EDITED
    assert '"third"' in new.hits[0].snippet
    assert codes(new) == []


def test_only_who_keeps_the_generation_answers(history: History) -> None:
    with history.place.opened() as shards:
        old = asked(shards, generation=history.generations[0], repos=("later", "shop"))
    assert old.generations == {"shop": history.generations[0]}


def test_the_status_tells_of_the_newest_after_a_question_about_the_past(history: History) -> None:
    with history.place.opened() as shards:
        asked(shards, generation=history.generations[0])
        status = {one.repo: one for one in shards.status()}["shop"]
    assert (status.generation, status.state) == (history.generations[2], "ready")


def test_the_newest_generation_asked_for_by_name_is_no_past(history: History) -> None:
    with history.place.opened() as shards:
        assert codes(asked(shards, generation=history.generations[2])) == []


def test_a_time_is_answered_by_what_was_published_then(history: History) -> None:
    with history.place.opened() as shards:
        then = asked(shards, repos=("shop",), as_of=history.time_of(history.generations[1]))
        now = asked(shards, as_of="0s")
    assert '"second"' in then.hits[0].snippet
    assert codes(then) == ["past-generation"]
    assert {hit.repo for hit in now.hits} == {"shop", "later"}
    assert codes(now) == []


def test_what_was_rolled_back_is_not_the_past(history: History) -> None:
    history.store.rollback(history.generations[0])
    with history.place.opened() as shards:
        assert '"first"' in asked(shards, repos=("shop",), as_of="0s").hits[0].snippet


def test_a_repository_that_keeps_nothing_of_a_time_is_left_out_and_told(history: History) -> None:
    with history.place.opened() as shards:
        then = asked(shards, as_of=history.time_of(history.generations[0]))
        with pytest.raises(GenerationGone, match="later keeps nothing"):
            asked(shards, repos=("later",), as_of=history.time_of(history.generations[0]))
    assert {hit.repo for hit in then.hits} == {"shop"}
    assert sorted(codes(then)) == ["generation-gone", "past-generation"]


def test_a_collected_generation_is_refused_with_those_that_are_kept(history: History) -> None:
    history.store.gc(keep=2)
    with history.place.opened() as shards, pytest.raises(GenerationGone, match="is not kept") as refused:
        asked(shards, repos=("shop",), generation=history.generations[0])
    assert all(kept in refused.value.hint for kept in history.generations[1:])
    assert history.generations[0] not in refused.value.hint


def test_a_generation_of_the_past_may_be_collected_once_it_answered(history: History) -> None:
    with history.place.opened() as shards:
        asked(shards, generation=history.generations[0])
        assert history.store.gc(keep=2) == [history.generations[0]]


def test_a_generation_of_the_past_that_is_damaged_is_not_searched(history: History) -> None:
    catalog = history.store.path_of(history.generations[0]) / "catalog.duckdb"
    catalog.chmod(0o600)
    catalog.write_bytes(catalog.read_bytes()[:-1])
    with history.place.opened() as shards, pytest.raises(IndexCorrupt, match=r"catalog\.duckdb"):
        asked(shards, generation=history.generations[0])


@pytest.mark.parametrize(
    ("scope", "error"),
    [
        ({"generation": "x", "as_of": "2h"}, InvalidArgument),
        ({"as_of": "yesterday"}, InvalidArgument),
        ({"as_of": "999999999w"}, InvalidArgument),
        ({"generation": "../../shop"}, GenerationGone),
        ({"as_of": "1w"}, GenerationGone),
        ({"repos": ("unknown",), "as_of": "0s"}, NotFound),
    ],
)
def test_a_past_that_is_not_there_is_refused(
    history: History, scope: dict[str, str], error: type[CodeIntelError]
) -> None:
    with history.place.opened() as shards, pytest.raises(error):
        asked(shards, **scope)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", NOON - timedelta(seconds=90)),
        ("2h", NOON - timedelta(hours=2)),
        ("1w", NOON - timedelta(days=7)),
        ("2026-02-28", datetime(2026, 2, 28, tzinfo=UTC)),
        ("2026-03-01T11:00:00+02:00", NOON - timedelta(hours=3)),
        ("2026-03-01T11:00:00.5Z", NOON - timedelta(minutes=59, seconds=59.5)),
    ],
)
def test_a_time_is_a_date_or_so_long_ago(text: str, expected: datetime) -> None:
    assert moment(text, NOON) == expected
