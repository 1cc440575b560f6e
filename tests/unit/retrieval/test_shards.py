"""Shards under change: new generations, damaged ones, builds that run and builds that were killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from codeintel_rev.app.opening import open_index
from codeintel_rev.config.settings import Settings
from codeintel_rev.encoders.dense import DenseEncoder
from codeintel_rev.errors import GenerationMismatch, IndexUnavailable, NotFound
from codeintel_rev.io.catalogs import Catalogs
from codeintel_rev.io.generation_reader import GenerationReader
from codeintel_rev.io.generations import GenerationStore
from codeintel_rev.io.registry import Source, register
from codeintel_rev.io.worktree import Worktree
from codeintel_rev.retrieval.shard import open_shard
from codeintel_rev.retrieval.shards import Shards
from codeintel_rev.types import BuildProgress, Scope, SearchResult, ShardStatus
from tests.indexed import LONG_MS, REPOSITORIES, Place, ask, new_place

SWAPS = 20
TURNS = 6  # Queries that run into each publication, and into each swap: without end they only slow the builder down.
MARKED_FILES = 4


def one_file(place: Place, repo: str = "shop", text: str = "def one():\n    return 1\n") -> Place:
    place.write(repo, "one.py", text)
    place.index(repo)
    return place


def status_of(shards: Shards, repo: str) -> ShardStatus:
    return next(status for status in shards.status() if status.repo == repo)


# Swaps


def mark(place: Place, marker: int) -> str:
    """Publish a generation in every file of which stands `marker`, and return its id."""
    for number in range(MARKED_FILES):
        place.write("shop", f"part_{number}.py", f'def marked_{number}():\n    return "marker {marker}"\n')
    return place.index("shop")


def test_no_answer_mixes_generations_while_new_ones_are_published(tmp_path: Path) -> None:
    """F18: four threads ask throughout; every answer is whole, of the generation it names, and none fails."""
    place = new_place(tmp_path)
    marker_of = {mark(place, 0): 0}
    answers: list[list[SearchResult]] = [[] for _ in range(4)]
    failures: list[Exception] = []
    turns, end = threading.Semaphore(0), threading.Event()
    with place.opened() as shards:

        def keep_asking(mine: list[SearchResult]) -> None:
            try:
                while turns.acquire() and not end.is_set():
                    mine.append(ask(shards, "marked marker"))
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=keep_asking, args=(mine,)) for mine in answers]
        for thread in threads:
            thread.start()
        for marker in range(1, SWAPS + 1):
            turns.release(TURNS)
            marker_of[mark(place, marker)] = marker
            turns.release(TURNS)
            shards.refresh()
        end.set()
        turns.release(len(threads))
        for thread in threads:
            thread.join(30)
        assert ask(shards, "marked marker").generations["shop"] == max(marker_of)
    assert failures == []
    assert sum(map(len, answers)) > SWAPS
    for result in (result for mine in answers for result in mine):
        shown = f'return "marker {marker_of[result.generations["shop"]]}"'
        assert len(result.hits) == MARKED_FILES
        assert all(shown in hit.snippet for hit in result.hits)


def test_what_is_published_later_is_found_after_a_refresh(tmp_path: Path) -> None:
    place = one_file(new_place(tmp_path))
    with place.opened() as shards:
        one_file(place, "org/ledger", "def other():\n    return 2\n")
        with pytest.raises(NotFound):
            ask(shards, "other", repos=("org/ledger",))
        shards.refresh()
        assert [hit.repo for hit in ask(shards, "other").hits] == ["org/ledger"]


def polling(place: Place, poll_s: float) -> Settings:
    return place.settings.model_copy(update={"server": place.settings.server.model_copy(update={"poll_s": poll_s})})


def test_a_running_index_finds_new_generations_by_itself(tmp_path: Path) -> None:
    """Asked until it answers, however long the look takes; the poll itself comes too late."""
    place = one_file(new_place(tmp_path))
    opened = open_index(polling(place, 3600.0))
    with closing(opened.searcher) as searcher:
        newest = one_file(place, text="def two():\n    return 2\n").current("shop").name
        while searcher.search("two", Scope(), 5, deadline_ms=LONG_MS).generations != {"shop": newest}:
            pass
        assert searcher.search("two", Scope(), 5, deadline_ms=LONG_MS).hits[0].symbol == "two"


def test_a_running_index_finds_a_repository_of_which_nothing_is_published(tmp_path: Path) -> None:
    """What no publication announces is found by the poll."""
    place = new_place(tmp_path)
    opened = open_index(polling(place, 0.01))
    with closing(opened.searcher) as searcher:
        register(place.data_dir, Source("shop", tmp_path))
        while not searcher.status():
            pass
        assert [status.state for status in searcher.status()] == ["empty"]


def test_a_stray_folder_does_not_end_the_search_for_new_generations(tmp_path: Path) -> None:
    """What stands in the data directory and has no name of a repository costs nobody else anything."""
    place = one_file(new_place(tmp_path))
    stray = place.data_dir / "repos" / "shop (copy)"
    stray.mkdir()
    (stray / "source.json").write_text("{}")
    with place.opened() as shards:
        assert ask(shards, "one").hits
        assert [status.repo for status in shards.status()] == ["shop"]


def test_every_opened_generation_is_logged_with_what_its_vectors_are_served_by(
    corpus: Place, minilm: DenseEncoder
) -> None:
    """B11: the audit line of a start-up, once a generation."""
    with capture_logs() as logs, corpus.opened(minilm) as shards:
        shards.refresh()
    assert [(line["event"], line["log_level"], line["repo"], line["generation"]) for line in logs] == [
        ("generation opened", "info", repo, corpus.current(repo).name) for repo in sorted(REPOSITORIES)
    ]
    assert all("opts=[" in line["vectors"] and "factory=SQfp16" in line["vectors"] for line in logs)


def test_a_generation_without_vectors_is_logged_too(tmp_path: Path) -> None:
    place = one_file(new_place(tmp_path))
    with capture_logs() as logs, place.opened():
        pass
    assert [line["vectors"] for line in logs] == ["none"]


# What is missing is told


def damage(generation: Path) -> None:
    file = generation / "catalog.duckdb"
    file.chmod(0o644)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x40
    file.write_bytes(data)


def test_a_damaged_new_generation_leaves_the_old_one_and_says_so(tmp_path: Path) -> None:
    """F01: in every answer and in the status, not only in a log."""
    place = one_file(new_place(tmp_path))
    with place.opened() as shards:
        before = ask(shards, "one")
        damage(one_file(place, text="def two():\n    return 2\n").current("shop"))
        shards.refresh()
        after = ask(shards, "one")
        status = status_of(shards, "shop")
    assert [hit.chunk_id for hit in after.hits] == [hit.chunk_id for hit in before.hits]
    assert after.generations == before.generations
    assert [limit.code for limit in after.limits] == ["index-corrupt"]
    assert (status.state, [limit.code for limit in status.limits]) == ("degraded", ["index-corrupt"])


def test_stepping_down_at_start_is_told_once(tmp_path: Path) -> None:
    place = one_file(new_place(tmp_path))
    good = place.current("shop").name
    damage(one_file(place, text="def two():\n    return 2\n").current("shop"))
    with place.opened() as shards:
        result = ask(shards, "one")
        assert status_of(shards, "shop").state == "degraded"
    assert result.generations == {"shop": good}
    assert [limit.code for limit in result.limits] == ["index-corrupt"]


def test_a_repository_that_cannot_be_served_is_a_limit_unless_it_was_asked_for(tmp_path: Path) -> None:
    place = one_file(one_file(new_place(tmp_path)), "lost")
    damage(place.current("lost"))
    with place.opened() as shards:
        result = ask(shards, "one")
        with pytest.raises(IndexUnavailable, match="lost"):
            ask(shards, "one", repos=("shop", "lost"))
        assert ask(shards, "one", repos=("shop",)).limits == ()
    assert result.generations.keys() == {"shop"}
    assert [(limit.code, "lost" in limit.detail) for limit in result.limits] == [("index-unavailable", True)]


# States


def test_a_repository_without_a_generation_is_empty(tmp_path: Path) -> None:
    place = new_place(tmp_path)
    register(place.data_dir, Source("shop", place.trees))
    with place.opened() as shards:
        status = status_of(shards, "shop")
        assert (status.state, status.generation, status.counts) == ("empty", "", {})
        with pytest.raises(IndexUnavailable):
            ask(shards, "one")


def test_a_whole_index_is_ready(corpus: Place, served: Shards) -> None:
    for status in served.status():
        assert (status.state, status.vector_coverage, status.limits) == ("ready", 1.0, ())
        assert status.generation == corpus.current(status.repo).name
        assert status.counts["vectors"] == status.counts["chunks"] > 0
        assert status.model is not None
    assert [status.repo for status in served.status()] == ["org/ledger", "shop"]


def test_a_repository_of_nothing_is_ready(tmp_path: Path, models_dir: Path, minilm) -> None:  # type: ignore[no-untyped-def]
    """Nothing to encode is nothing missing."""
    place = new_place(tmp_path, models_dir)
    place.tree("void").mkdir()
    place.index("void")
    with place.opened(minilm) as shards:
        status = status_of(shards, "void")
        assert (status.state, status.vector_coverage, status.counts["chunks"]) == ("ready", 1.0, 0)
        assert ask(shards, "one").hits == ()


def test_a_repository_none_of_whose_generations_is_good_is_down(tmp_path: Path) -> None:
    place = one_file(new_place(tmp_path))
    damage(place.current("shop"))
    with place.opened() as shards:
        status = status_of(shards, "shop")
    assert status.state == "down"
    assert [limit.code for limit in status.limits] == ["index-unavailable"]


def test_a_running_build_is_told_while_it_runs(tmp_path: Path) -> None:
    place = one_file(new_place(tmp_path))
    seen: list[tuple[str, BuildProgress | None]] = []
    with place.opened() as shards:

        def told(progress: BuildProgress) -> None:
            seen.append((status_of(shards, "shop").state, status_of(shards, "shop").building))

        place.write("shop", "two.py", "def two():\n    return 2\n")
        place.index("shop", told)
        assert status_of(shards, "shop").state == "ready"
    assert {state for state, _ in seen} == {"building"}
    assert {building.stage for _, building in seen if building} == {"parse", "publish"}


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.indexed import Place

def told(progress):
    if progress.stage == "publish":
        os.kill(os.getpid(), signal.SIGKILL)

Place(Path(sys.argv[1]), Path(sys.argv[2])).index("shop", told)
"""


def test_a_killed_builder_is_not_believed(tmp_path: Path) -> None:
    """F02: its progress file stays, and its pid may be another process's by now: here it is made to be this one's."""
    place = new_place(tmp_path)
    place.write("shop", "one.py", "def one():\n    return 1\n")
    root = str(Path(__file__).parents[3])
    command = [sys.executable, "-c", KILLED, str(place.data_dir), str(place.trees)]
    killed = subprocess.run(command, cwd=root, check=False)
    assert killed.returncode == -signal.SIGKILL
    left = place.directory("shop") / "progress.json"
    left.write_text(json.dumps(json.loads(left.read_text()) | {"pid": os.getpid()}))
    with place.opened() as shards:
        status = status_of(shards, "shop")
        assert (status.state, status.building) == ("empty", None)


def test_a_closed_searcher_answers_no_more(tmp_path: Path) -> None:
    place = one_file(new_place(tmp_path))
    with place.opened() as shards:
        pass
    with pytest.raises(IndexUnavailable):
        ask(shards, "one")


def test_a_closed_searcher_holds_no_generation(tmp_path: Path) -> None:
    """Garbage collection, which spares what is leased, takes it."""
    place = one_file(new_place(tmp_path))
    with place.opened() as shards:
        held = place.current("shop")
        one_file(place, text="def two():\n    return 2\n")
        one_file(place, text="def three():\n    return 3\n")
        GenerationStore(place.directory("shop")).gc(1)
        assert held.exists()
        assert ask(shards, "one two three").generations == {"shop": held.name}
    GenerationStore(place.directory("shop")).gc(1)
    assert not held.exists()


def test_shards_of_the_corpus_answer_alone_and_together(served: Shards) -> None:
    together = ask(served, "amount of money", limit=200)
    alone = [hit for repo in ("shop", "org/ledger") for hit in ask(served, "amount of money", repos=(repo,)).hits]
    assert {hit.chunk_id for hit in together.hits} == {hit.chunk_id for hit in alone}
    assert {hit.repo for hit in together.hits} == {"shop", "org/ledger"}


def test_vectors_of_another_generation_are_not_served(corpus: Place, minilm: DenseEncoder) -> None:
    """F14: an index that is whole, but not as many vectors as were published."""
    catalogs = Catalogs(corpus.data_dir, corpus.settings.duckdb)
    with GenerationReader(corpus.directory("shop")).open_current() as generation:
        manifest = generation.manifest
        one_more = {name: manifest.counts[name] + 1 for name in ("vectors", "chunks")}
        generation.manifest = replace(manifest, counts=manifest.counts | one_more)
        with pytest.raises(GenerationMismatch, match="vectors of shop"):
            open_shard(generation, Worktree(corpus.tree("shop")), minilm.fingerprint, None, catalogs)
