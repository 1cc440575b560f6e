"""Work trees followed for real: files are saved, moved and deleted, and the system's own events are waited for."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from indexed import Place, ask, chunks_of, new_place
from structlog.testing import capture_logs

from codeintel_rev.app.probes import check_absent
from codeintel_rev.config.settings import EmbeddingSettings, EndpointSettings, Settings
from codeintel_rev.errors import SourceFailed
from codeintel_rev.indexing import watch
from codeintel_rev.indexing.upkeep import Upkeep
from codeintel_rev.indexing.watch import Events, Update, Watch, concerns, updating
from codeintel_rev.io.following import STAGE, Following, unfollowed
from codeintel_rev.io.generations import GenerationStore
from codeintel_rev.io.registry import Source, register

SOME = 1000


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A place with one small repository, "shop", known and not yet indexed."""
    place = new_place(tmp_path.resolve())
    place.write("shop", "cart.py", "def add_to_cart(item):\n    return item\n")
    place.write("shop", "old/rates.py", "def convert_currency(amount):\n    return amount\n")
    register(place.data_dir, Source("shop", place.tree("shop")))
    return place


def settings_of(place: Place, **index: object) -> Settings:
    """Settings in which nothing happens but by events."""
    return Settings.model_validate({**place.settings.model_dump(), "index": {"rescan_s": 3600.0, **index}})


def idle(settings: Settings) -> Upkeep:
    """Upkeep where nothing is ever to be done."""
    return Upkeep(settings, lambda repo: pytest.fail(f"{repo} is not to be compacted"))


@contextmanager
def following(settings: Settings, bring: Update, *repos: str, upkeep: Upkeep | None = None) -> Iterator[None]:
    """Run the loop in a thread for the block; the block may count on every tree having been brought up to date once."""
    stop, first = threading.Event(), threading.Event()

    def counted(source: Source) -> None:
        try:
            bring(source)
        finally:
            first.set()

    loop = threading.Thread(target=Watch(settings, repos, counted, upkeep or idle(settings)).run, args=(stop,))
    loop.start()
    try:
        assert first.wait(30)
        yield
    finally:
        stop.set()
        loop.join(30)
    assert not loop.is_alive()


def wait_until(happened: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < give_up, "waited in vain"
        time.sleep(0.02)


def real(place: Place) -> Update:
    return updating(settings_of(place))


def published(place: Place) -> Callable[[], bool]:
    """Return what tells whether another generation is current than now."""
    before = place.current("shop")
    return lambda: place.current("shop") != before


class Seen:
    """A builder that builds nothing: it notes which files it would have seen, each time."""

    def __init__(self) -> None:
        self.trees: list[set[str]] = []

    def __call__(self, source: Source) -> None:
        files = (path for path in source.root.rglob("*") if path.is_file() and ".git" not in path.parts)
        self.trees.append({path.relative_to(source.root).as_posix() for path in files})

    @property
    def counts(self) -> list[int]:
        return [len(tree) for tree in self.trees]


def test_a_saved_file_is_found_and_a_renamed_one_at_its_new_path_only(place: Place) -> None:
    with following(settings_of(place), real(place)):
        done = published(place)
        place.write("shop", "cart.py", "def empty_the_cart():\n    return []\n")
        wait_until(done)
        with place.opened() as shards:
            hit = ask(shards, "empty_the_cart").hits[0]
        done = published(place)
        (place.tree("shop") / "cart.py").rename(place.tree("shop") / "basket.py")
        wait_until(done)
    assert (hit.symbol, hit.freshness) == ("empty_the_cart", "fresh")
    with place.opened() as shards:
        assert {chunk.path for chunk in chunks_of(shards, "shop")} == {"basket.py", "old/rates.py"}


def test_the_encoder_is_opened_once_for_all_builds(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []

    def counted(_settings: EmbeddingSettings, models: Path, _served: EndpointSettings) -> None:
        opened.append(models)

    monkeypatch.setattr(watch, "open_encoder", counted)
    bring = real(place)
    for text in ("def one():\n    return 1\n", "def two():\n    return 2\n"):
        place.write("shop", "cart.py", text)
        bring(Source("shop", place.tree("shop")))
    assert len(opened) == 1


def test_a_deleted_folder_is_noticed(place: Place) -> None:
    seen = Seen()
    with following(settings_of(place), seen):
        shutil.rmtree(place.tree("shop") / "old")
        wait_until(lambda: seen.trees[-1] == {"cart.py"})


def test_files_in_a_new_folder_are_noticed(place: Place) -> None:
    seen = Seen()
    with following(settings_of(place), seen):
        place.write("shop", "new/deep/tax.py", "vat = 7\n")
        wait_until(lambda: "new/deep/tax.py" in seen.trees[-1])
        place.write("shop", "new/deep/duty.py", "duty = 7\n")
        wait_until(lambda: "new/deep/duty.py" in seen.trees[-1])


def test_a_thousand_files_that_come_at_once_are_one_update(place: Place, tmp_path: Path) -> None:
    folder = tmp_path / "unpacked"
    folder.mkdir()
    for number in range(SOME):
        (folder / f"{number}.py").write_text("x = 1\n")
    seen = Seen()
    with following(settings_of(place), seen):
        folder.rename(place.tree("shop") / "unpacked")
        wait_until(lambda: len(seen.counts) > 1)
    assert seen.counts == [2, 2 + SOME]


def test_a_checkout_of_a_thousand_files_is_one_update(place: Place) -> None:
    """Git is not disturbed half way, however slowly it writes: it holds its lock until the last file is there."""
    root = place.tree("shop")
    git = ("git", "-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "init.defaultBranch=main")

    def run(*arguments: str) -> None:
        subprocess.run((*git, *arguments), cwd=root, check=True, capture_output=True)

    run("init")
    run("add", "-A")
    run("commit", "-m", "few")
    run("checkout", "-b", "many")
    for number in range(SOME):
        (root / f"{number}.py").write_text("x = 1\n")
    run("add", "-A")
    run("commit", "-m", "many")
    run("checkout", "main")
    seen = Seen()
    with following(settings_of(place), seen):
        run("checkout", "many")
        wait_until(lambda: len(seen.counts) > 1)
    assert seen.counts == [2, 2 + SOME]


def test_what_is_saved_during_a_build_makes_one_more(place: Place) -> None:
    building, go_on = threading.Event(), threading.Event()
    seen = Seen()

    def slow(source: Source) -> None:
        seen(source)
        if len(seen.counts) == 2:
            building.set()
            assert go_on.wait(30)

    with following(settings_of(place), slow):
        place.write("shop", "a.py", "a = 1\n")
        assert building.wait(30)
        for number in range(20):
            place.write("shop", f"b{number}.py", "b = 1\n")
        go_on.set()
        wait_until(lambda: len(seen.counts) > 2)
    assert seen.counts == [2, 3, 23]


def test_a_build_that_fails_is_told_once_and_tried_again(place: Place) -> None:
    seen = Seen()

    def fails_twice(source: Source) -> None:
        seen(source)
        if len(seen.trees) in (2, 3):
            raise SourceFailed("git failed: index file corrupt.", "Repair the repository.")

    with capture_logs() as logs, following(settings_of(place), fails_twice):
        for attempt in (2, 3, 4):
            place.write("shop", f"{attempt}.py", "x = 1\n")
            wait_until(lambda attempt=attempt: len(seen.trees) >= attempt)  # type: ignore[misc]
    told = [(log["repo"], log["problem"]) for log in logs if log["event"] == "index not updated"]
    assert told == [("shop", "source-failed")]


def test_a_watcher_that_is_stopped_takes_its_promise_back(place: Place) -> None:
    with following(settings_of(place), Seen()):
        second = Following(place.directory("shop"))
        second.begin()
        assert (place.directory("shop") / "watch.json").exists()
        assert unfollowed(place.directory("shop")) is None
    assert not (place.directory("shop") / "watch.json").exists()


def test_another_builder_is_waited_for(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "BUSY_S", 0.05)
    attempts: list[str] = []

    def counted(source: Source) -> None:
        attempts.append(source.name)
        real(place)(source)

    with following(settings_of(place), counted):
        done = published(place)
        with GenerationStore(place.directory("shop")).builder_lock():
            place.write("shop", "cart.py", "def pay_later():\n    return 1\n")
            wait_until(lambda: len(attempts) > 2)
            assert not done()
        wait_until(done)


def test_an_index_in_the_tree_does_not_call_for_itself(place: Place) -> None:
    """What a build writes is no reason to build."""
    place = replace(place, data_dir=place.tree("shop") / "data")
    calls: list[str] = []

    def counted(source: Source) -> None:
        real(place)(source)
        calls.append(source.name)

    register(place.data_dir, Source("shop", place.tree("shop")))
    with following(settings_of(place), counted):
        for number in (2, 3):
            place.write("shop", "cart.py", f"def step_{number}():\n    return 1\n")
            wait_until(lambda number=number: len(calls) >= number)  # type: ignore[misc]
    assert calls == ["shop"] * 3


class Noting(Upkeep):
    """Upkeep that notes what it is asked."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, pytest.fail)
        self.asked: list[str] = []

    def look(self, repo: str) -> None:
        self.asked.append("look")

    def give_way(self, repo: str) -> None:
        self.asked.append("give way")

    def close(self) -> None:
        self.asked.append("close")


def test_compactions_give_way_to_changes_and_follow_them(place: Place) -> None:
    upkeep, seen = Noting(settings_of(place)), Seen()
    with following(settings_of(place), seen, upkeep=upkeep):
        place.write("shop", "new.py", "x = 1\n")
        wait_until(lambda: len(seen.counts) > 1)
    assert upkeep.asked == ["look", "give way", "look", "close"]


def test_a_rescan_finds_what_no_event_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError("OS file watch limit reached")

    monkeypatch.setattr(watch, "RustNotify", refused)
    seen = Seen()
    with capture_logs() as logs, following(settings_of(place, rescan_s=0.1), seen):
        place.write("shop", "unheard_of.py", "x = 1\n")
        wait_until(lambda: "unheard_of.py" in seen.trees[-1])
    assert "OS file watch limit reached" in {log.get("reason") for log in logs}


def test_a_tree_that_comes_back_is_followed_again(place: Place, tmp_path: Path) -> None:
    seen = Seen()
    with following(settings_of(place, rescan_s=0.1), seen):
        place.tree("shop").rename(tmp_path / "away")
        wait_until(lambda: seen.counts[-1] == 0)
        (tmp_path / "away").rename(place.tree("shop"))
        wait_until(lambda: seen.counts[-1] == 2)


def test_a_repository_that_is_new_is_followed(place: Place) -> None:
    names: list[str] = []
    with following(settings_of(place, rescan_s=0.1), lambda source: names.append(source.name)):
        place.write("other", "a.py", "a = 1\n")
        register(place.data_dir, Source("other", place.tree("other")))
        wait_until(lambda: "other" in names)


def test_only_the_repositories_that_were_named_are_followed(place: Place) -> None:
    place.write("other", "a.py", "a = 1\n")
    register(place.data_dir, Source("other", place.tree("other")))
    names: list[str] = []
    with following(settings_of(place, rescan_s=0.05), lambda source: names.append(source.name), "shop"):
        wait_until(lambda: len(names) > 3)
    assert set(names) == {"shop"}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("cart.py", True),
        ("gone.py", True),
        ("node_modules/left/pad.js", False),
        ("build", False),
        ("secretive/plan.md", False),
        ("kept.log", True),
        ("any.log", False),
        (".git/HEAD", True),
        (".git/index", True),
        (".git/index.lock", False),
        (".git/objects/ab/cdef", False),
        ("vendor/other/.git/HEAD", False),
    ],
)
@pytest.mark.parametrize("is_git", [True, False])
def test_only_what_can_be_indexed_is_a_reason_to_build(tmp_path: Path, path: str, expected: bool, is_git: bool) -> None:
    root = tmp_path.resolve()
    for name, text in {
        ".gitignore": "node_modules/\nbuild/\n*.log\n!kept.log\n",
        ".codeintelignore": "secretive/\n",
        "cart.py": "x = 1\n",
    }.items():
        (root / name).write_text(text)
    (root / "build").mkdir()
    if is_git:
        subprocess.run(("git", "init", "-q"), cwd=root, check=True)
    assert concerns(root, {f"{root}/{path}"}) is expected
    assert concerns(root, {f"{root}-other/{path}"}) is False


def test_the_tree_itself_is_a_reason_to_build(tmp_path: Path) -> None:
    assert concerns(tmp_path, {str(tmp_path)})


def test_a_tracked_file_is_a_reason_though_its_folder_is_ignored(tmp_path: Path) -> None:
    root = tmp_path.resolve()
    (root / ".gitignore").write_text("build/\n")
    (root / "build").mkdir()
    (root / "build/rules.mk").write_text("all:\n")
    subprocess.run(("git", "init", "-q"), cwd=root, check=True)
    subprocess.run(("git", "add", "-f", "build/rules.mk"), cwd=root, check=True)
    assert concerns(root, {f"{root}/build/rules.mk"})
    assert not concerns(root, {f"{root}/build/made.o"})


class Scripted:
    """A stand-in for the system's events: each wait takes as long as it may and tells what is scripted, then `stop`."""

    def __init__(self, *told: set[tuple[int, str]]) -> None:
        self.stop = threading.Event()
        self.now = 0.0
        self.told = list(told)
        self.waits: list[int] = []

    def __call__(self, *_: object) -> Scripted:
        return self

    def monotonic(self) -> float:
        return self.now

    def watch(self, _debounce_ms: int, _step_ms: int, timeout_ms: int, _stop: object) -> set[tuple[int, str]]:
        self.waits.append(timeout_ms)
        self.now += timeout_ms / 1000
        told = self.told.pop(0)
        if not self.told:
            self.stop.set()
        return told

    def close(self) -> None:
        pass


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[[Scripted], Scripted]:
    def put(script: Scripted) -> Scripted:
        monkeypatch.setattr(watch, "RustNotify", script)
        monkeypatch.setattr(watch, "time", script)
        return script

    return put


def test_changes_are_gathered_until_it_is_quiet(tmp_path: Path, scripted: Callable[[Scripted], Scripted]) -> None:
    script = scripted(Scripted({(1, "a")}, {(1, "b")}, set(), set()))
    assert Events([tmp_path]).wait(60.0, 0.3, script.stop) == {"a", "b"}
    assert script.waits == [60_000, 300, 300]


def test_a_tree_that_is_never_quiet_is_built_all_the_same(
    tmp_path: Path, scripted: Callable[[Scripted], Scripted]
) -> None:
    script = scripted(Scripted(*({(1, str(number))} for number in range(100))))
    changed = Events([tmp_path]).wait(60.0, 0.5, script.stop)
    assert changed == {"0", "1", "2", "3", "4"}
    assert sum(script.waits[1:]) == watch.MOST_S * 1000


def test_a_lock_that_git_left_behind_holds_nothing_up_for_ever(
    tmp_path: Path, scripted: Callable[[Scripted], Scripted]
) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/index.lock").touch()
    script = scripted(Scripted({(1, "a")}, *(set() for _ in range(100))))
    assert Events([tmp_path]).wait(60.0, 0.5, script.stop) == {"a"}
    assert sum(script.waits[1:]) == watch.GIT_MOST_S * 1000


def test_pauses_are_those_that_are_set(place: Place, scripted: Callable[[Scripted], Scripted]) -> None:
    script = scripted(Scripted({(1, "a")}, set()))
    settings = settings_of(place, watch_debounce_ms=123, rescan_s=7.0)
    Watch(settings, (), lambda _: None, idle(settings)).run(script.stop)
    assert script.waits == [7000, 123]


def test_readers_are_told_when_builds_fail_and_when_the_watcher_broke_down(place: Place) -> None:
    """Answers, status and readiness say that what is saved is not found."""
    attempts: list[Source] = []

    def fails(source: Source) -> None:
        attempts.append(source)
        if len(attempts) > 4:
            raise ZeroDivisionError
        raise SourceFailed("git failed: index file corrupt.", "Repair the repository.")

    place.index("shop")
    loop = Watch(settings_of(place, rescan_s=0.05), (), fails, idle(place.settings))
    with pytest.raises(ZeroDivisionError):
        loop.run(threading.Event())
    with place.opened() as shards:
        found, status = ask(shards, "cart"), shards.status()
    assert [limit.code for limit in found.limits] == ["watch-failing"]
    assert [(shard.state, shard.limits) for shard in status] == [("degraded", found.limits)]
    assert not check_absent(status, STAGE).healthy
