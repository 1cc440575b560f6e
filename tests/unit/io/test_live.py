"""A running server changes generations under load: no request fails, none sees two."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from codeintel_rev.errors import EncoderFailed, IndexIncompatible, IndexUnavailable
from codeintel_rev.io.generations import GenerationStore
from codeintel_rev.io.leases import Generation
from codeintel_rev.io.live import LiveGeneration
from tests.faults import UnsyncedStorage
from tests.marked_generations import FILES, publish_marked


@contextmanager
def running(target: Callable[[int], None], count: int, stop: threading.Event) -> Iterator[None]:
    """Run `target` in `count` threads during the block, which ends with `stop` set."""
    threads = [threading.Thread(target=target, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)


class Opened:
    """Reads its files by path at every question, so that a file gone too early shows."""

    def __init__(self, generation: Generation) -> None:
        self.id = generation.manifest.generation
        self.path = generation.path
        self.closed = False

    def ask(self, choose: random.Random) -> tuple[str, str]:
        assert not self.closed
        first, second = ((self.path / name).read_bytes().split(b"\n")[0].decode() for name in choose.sample(FILES, 2))
        return first, second

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def store(tmp_path: Path) -> GenerationStore:
    return GenerationStore(tmp_path / "shard", UnsyncedStorage())


def asked(live: LiveGeneration[Opened]) -> str:
    with live.acquire() as opened:
        return opened.ask(random.Random(0))[0]


def test_nothing_is_served_before_something_is_published(store: GenerationStore) -> None:
    live = LiveGeneration(store, Opened)
    for refresh in (lambda: False, live.refresh):
        assert refresh() is False
        with pytest.raises(IndexUnavailable), live.acquire():
            pass
    publish_marked(store, "one")
    assert live.refresh() is True
    assert asked(live) == "one"
    assert live.limits == ()
    live.close()


def test_a_swap_is_seen_by_the_next_request_and_not_by_the_running_one(store: GenerationStore) -> None:
    """F18, F19: the old object is closed when its last request ends, and its files may go only then."""
    publish_marked(store, "one")
    live = LiveGeneration(store, Opened)
    live.refresh()
    with live.acquire() as held:
        for marker in ("two", "three"):
            publish_marked(store, marker)
            assert live.refresh() is True
        assert store.gc(1) == []
        assert asked(live) == "three"
        assert held.ask(random.Random(0)) == ("one", "one")
    assert held.closed
    assert len(store.gc(1)) == 1
    live.close()


def test_refresh_without_news_changes_nothing(store: GenerationStore) -> None:
    publish_marked(store, "one")
    live = LiveGeneration(store, Opened)
    assert [live.refresh(), live.refresh()] == [True, False]
    live.close()


def test_a_rollback_is_followed(store: GenerationStore) -> None:
    publish_marked(store, "one")
    publish_marked(store, "two")
    live = LiveGeneration(store, Opened)
    live.refresh()
    store.rollback()
    assert live.refresh() is True
    assert asked(live) == "one"
    live.close()


def test_a_corrupt_newest_leaves_the_old_one_served_and_is_a_limit(store: GenerationStore) -> None:
    """F11 in a running server; the next publish ends it."""
    publish_marked(store, "one")
    live = LiveGeneration(store, Opened)
    live.refresh()
    bad = publish_marked(store, "two").generation
    (store.directory / "generations" / bad / "catalog.duckdb").unlink()
    assert [live.refresh(), live.refresh()] == [False, False]
    assert asked(live) == "one"
    (limit,) = live.limits
    assert (limit.code, limit.stage) == ("index-corrupt", "generation")
    publish_marked(store, "three")
    assert live.refresh() is True
    assert (asked(live), live.limits) == ("three", ())
    live.close()


def test_a_server_started_on_a_corrupt_newest_serves_its_parent(store: GenerationStore) -> None:
    """F11."""
    publish_marked(store, "one")
    bad = publish_marked(store, "two").generation
    (store.directory / "generations" / bad / "catalog.duckdb").unlink()
    live = LiveGeneration(store, Opened)
    assert [live.refresh(), live.refresh()] == [True, False]
    assert asked(live) == "one"
    assert [limit.code for limit in live.limits] == ["index-corrupt"]
    live.close()


def test_an_incompatible_generation_is_tried_once_and_a_failed_encoder_again(store: GenerationStore) -> None:
    """F16: opening costs seconds; what cannot change without a publish is not tried at every poll."""
    publish_marked(store, "one")
    tried: list[str] = []
    errors = {"two": IndexIncompatible("another model."), "three": EncoderFailed("no memory.")}

    def opener(generation: Generation) -> Opened:
        opened = Opened(generation)
        marker = opened.ask(random.Random(0))[0]
        tried.append(marker)
        if marker in errors:
            raise errors[marker]
        return opened

    live = LiveGeneration(store, opener)
    live.refresh()
    for marker in ("two", "three"):
        publish_marked(store, marker)
        live.refresh()
        live.refresh()
    assert tried == ["one", "two", "three", "three"]
    assert [limit.code for limit in live.limits] == ["encoder-failed"]
    assert asked(live) == "one"
    live.close()


def test_a_lost_current_leaves_the_old_one_served(store: GenerationStore) -> None:
    publish_marked(store, "one")
    live = LiveGeneration(store, Opened)
    live.refresh()
    (store.directory / "CURRENT").unlink()
    assert [live.refresh(), live.refresh()] == [False, False]
    assert (asked(live), len(live.limits)) == ("one", 1)
    live.close()


def test_close_lets_running_requests_finish(store: GenerationStore) -> None:
    publish_marked(store, "one")
    live = LiveGeneration(store, Opened)
    live.refresh()
    with live.acquire() as held:
        live.close()
        live.close()
        assert held.ask(random.Random(0)) == ("one", "one")
        with pytest.raises(IndexUnavailable, match="is closed"), live.acquire():
            pass
    assert held.closed


def test_fifty_swaps_under_load_give_no_error_and_no_mixed_answer(store: GenerationStore) -> None:
    """F18, L5: four threads ask all the time; every generation is collected as soon as it may be."""
    publish_marked(store, "start")
    made: list[Opened] = []

    def opener(generation: Generation) -> Opened:
        made.append(Opened(generation))
        return made[-1]

    live = LiveGeneration(store, opener)
    live.refresh()
    stop = threading.Event()
    answers: list[tuple[str, str, str]] = []
    errors: list[BaseException] = []
    markers = {store.current_id(): "start"}

    def ask(seed: int) -> None:
        choose = random.Random(seed)
        try:
            while not stop.is_set():
                with live.acquire() as opened:
                    answers.append((opened.id, *opened.ask(choose)))
        except BaseException as error:
            errors.append(error)

    with running(ask, 4, stop):
        for number in range(50):
            markers[publish_marked(store, f"swap {number}").generation] = f"swap {number}"
            assert live.refresh() is True
            store.gc(1)
            enough = len(answers) + 4
            while len(answers) < enough and not errors:
                stop.wait(0.001)
    live.close()

    assert errors == []
    assert [answer for answer in answers if answer[1] != answer[2]] == []
    assert [answer for answer in answers if markers[answer[0]] != answer[1]] == []
    assert len({answer[0] for answer in answers}) > 40
    assert len(made) == 51
    assert all(opened.closed for opened in made)
