"""More repositories than may be open at once: all are found, few are held."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from codeintel_rev.app.probes import State, judge
from codeintel_rev.errors import DeadlineExceeded
from codeintel_rev.io.duckdb_catalog import CATALOG
from codeintel_rev.retrieval.shards import Shards
from codeintel_rev.types import Scope
from tests.indexed import Place, ask, copied, new_place

COUNT = 6
AT_ONCE = 2


def made(folder: Path, count: int) -> Place:
    place = new_place(folder)
    for number in range(count):
        place.write(f"repo-{number:03}", "one.py", f"def one_{number}():\n    return {number}\n")
        place.index(f"repo-{number:03}")
    return place


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return made(tmp_path_factory.mktemp("many"), COUNT)


@pytest.fixture
def place(made_once: Place, tmp_path: Path) -> Place:
    return copied(made_once, tmp_path)


@contextmanager
def opened(place: Place, at_once: int = AT_ONCE) -> Iterator[Shards]:
    settings = place.settings
    index = settings.index.model_copy(update={"open_shards": at_once})
    shards = Shards(place.data_dir, None, settings.model_copy(update={"index": index}))
    try:
        yield shards
    finally:
        shards.close()


def open_catalogues(place: Place) -> list[str]:
    """Return the repositories whose catalogue this process has open, as the system tells it."""
    links = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    own = (Path(link) for link in links if link.startswith(str(place.data_dir)) and link.endswith(CATALOG))
    return sorted(path.relative_to(place.data_dir / "repos").parts[0] for path in own)


def leases(place: Place) -> int:
    links = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return sum(link.startswith(str(place.data_dir)) and link.endswith("MANIFEST.json") for link in links)


def damage(generation: Path) -> None:
    (generation / CATALOG).unlink()


def test_nothing_is_opened_before_it_is_asked_for_and_all_is_told(place: Place) -> None:
    with opened(place) as shards:
        told = shards.status()
        assert open_catalogues(place) == []
        assert judge(told) == (State.STARTING, ())
        shards.refresh()
        assert judge(shards.status()) == (State.READY, ())
    assert [(one.state, one.counts["chunks"], one.generation) for one in told] == [
        ("ready", 1, place.current(one.repo).name) for one in told
    ]
    assert len(told) == COUNT


def test_a_scope_opens_what_it_names(place: Place) -> None:
    with opened(place) as shards:
        assert ask(shards, "one_3", repos=("repo-003",)).hits[0].repo == "repo-003"
        assert open_catalogues(place) == ["repo-003"]


def test_the_least_recently_asked_is_closed(place: Place) -> None:
    with opened(place) as shards:
        for number in (0, 1, 0, 2):
            ask(shards, "one", repos=(f"repo-{number:03}",))
        assert open_catalogues(place) == ["repo-000", "repo-002"]
        assert leases(place) == AT_ONCE


def test_a_search_over_more_than_may_be_open_answers_whole(place: Place) -> None:
    """What few may hold is no part of the answer."""
    with opened(place) as few, opened(place, COUNT) as all_open:
        found = ask(few, "one")
        assert found == _at(ask(all_open, "one"), found)
        assert (len(found.hits), found.limits, len(found.generations)) == (COUNT, (), COUNT)
    assert open_catalogues(place) == []


def _at(result, like):  # type: ignore[no-untyped-def]
    """Return `result` with the times of `like`."""
    return replace(result, stages=like.stages)


def test_after_a_search_over_all_few_stay_open(place: Place) -> None:
    with opened(place) as shards:
        ask(shards, "one")
        assert (len(open_catalogues(place)), leases(place)) == (AT_ONCE, AT_ONCE)


def test_what_is_held_is_not_closed(place: Place) -> None:
    with opened(place) as shards, shards.lease(("repo-000",)) as (held,):
        ask(shards, "one")
        assert held.catalog.counts()["chunks"] == 1
        assert "repo-000" in open_catalogues(place)


def test_a_refresh_verifies_all_and_keeps_few_open(place: Place) -> None:
    with opened(place) as shards:
        shards.refresh()
        assert (len(open_catalogues(place)), leases(place)) == (AT_ONCE, AT_ONCE)
        assert {one.state for one in shards.status()} == {"ready"}


def test_a_new_generation_of_one_that_sleeps_is_the_one_that_is_opened(place: Place) -> None:
    with opened(place) as shards:
        shards.refresh()
        asleep = next(one.repo for one in shards.status() if one.repo not in open_catalogues(place))
        place.write(asleep, "two.py", "def two():\n    return 2\n")
        newest = place.index(asleep)
        assert ask(shards, "two", repos=(asleep,)).generations == {asleep: newest}
    place.tree(asleep).joinpath("two.py").unlink()


def test_a_damaged_one_is_told_by_a_refresh_though_nobody_asked_and_few_are_open(place: Place) -> None:
    damage(place.current("repo-000"))
    with opened(place) as shards:
        shards.refresh()
        told = {one.repo: one.state for one in shards.status()}
        found = ask(shards, "one")
    assert told.pop("repo-000") == "down"
    assert set(told.values()) == {"ready"}
    assert [limit.code for limit in found.limits] == ["index-unavailable"]
    assert len(found.hits) == COUNT - 1


def test_one_that_stepped_down_is_degraded_while_it_sleeps(place: Place) -> None:
    good = place.current("repo-001").name
    place.write("repo-001", "two.py", "def two():\n    return 2\n")
    place.index("repo-001")
    place.tree("repo-001").joinpath("two.py").unlink()
    damage(place.current("repo-001"))
    with opened(place) as shards:
        shards.refresh()
        ask(shards, "one", repos=("repo-004", "repo-005"))
        assert "repo-001" not in open_catalogues(place)
        status = next(one for one in shards.status() if one.repo == "repo-001")
        assert (status.state, status.generation) == ("degraded", good)
        assert [limit.code for limit in ask(shards, "one", repos=("repo-001",)).limits] == ["index-corrupt"]


def test_what_is_not_opened_in_time_is_a_limit_unless_it_was_named(place: Place) -> None:
    with opened(place) as shards:
        ask(shards, "one", repos=("repo-002",))
        with shards.lease((), deadline=0.0) as held:
            assert [shard.repo for shard in held] == ["repo-002"]
        with pytest.raises(DeadlineExceeded, match="repo-003"), shards.lease(("repo-003",), deadline=0.0):
            pass


def test_many_ask_for_more_than_may_be_open_at_once(place: Place) -> None:
    with opened(place) as shards:

        def turn(number: int) -> list[str]:
            scope = Scope() if number % 5 == 0 else Scope(repos=(f"repo-{number % COUNT:03}",))
            return [hit.repo for hit in shards.search("one", scope, 50, deadline_ms=60_000).hits]

        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(turn, range(60)))
        assert len(open_catalogues(place)) <= AT_ONCE
    for number, repos in enumerate(answers):
        assert len(repos) == (COUNT if number % 5 == 0 else 1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("count", [200])
def test_two_hundred_are_served_within_bounds(tmp_path: Path, count: int) -> None:
    """Files and memory: two handles each of what is open, and a few MiB."""
    place = made(tmp_path, count)
    before = _resident_mib()
    with opened(place, 64) as shards:
        shards.refresh()
        assert (len(open_catalogues(place)), leases(place)) == (64, 64)
        assert len(ask(shards, "one", limit=count).generations) == count
        assert (len(open_catalogues(place)), leases(place)) == (64, 64)
        for number in range(count):
            assert ask(shards, f"one_{number}", repos=(f"repo-{number:03}",)).hits
        assert _resident_mib() - before < 300
    assert (open_catalogues(place), leases(place)) == ([], 0)


def _resident_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))
