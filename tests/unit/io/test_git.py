"""Git is asked, never obeyed: whatever a repository's config names as a program stays unstarted."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from codeintel_rev.errors import BuildInProgress, InvalidArgument, SourceFailed
from codeintel_rev.io.git import commit_of, fetch_clone, ignored, revision, tracked_and_untracked, work_tree_root
from codeintel_rev.io.leases import FileLock


def run_git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *identity, *arguments], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    (root / "src").mkdir(parents=True)
    run_git(root, "init", "-q")
    (root / "src" / "main.py").write_text("x = 1\n")
    (root / "notes.md").write_text("# Notes\n")
    run_git(root, "add", "-A")
    run_git(root, "commit", "-qm", "first")
    return root


def test_the_root_is_found_from_a_sub_folder(repository: Path) -> None:
    assert work_tree_root(repository / "src") == repository


def test_a_plain_folder_has_no_root(tmp_path: Path) -> None:
    assert work_tree_root(tmp_path) is None


def test_a_folder_its_repository_ignores_is_a_plain_folder(repository: Path) -> None:
    (repository / ".gitignore").write_text("build/\n")
    (repository / "build").mkdir()
    assert work_tree_root(repository / "build") is None


def test_a_work_tree_that_config_puts_elsewhere_is_not_followed(repository: Path, tmp_path: Path) -> None:
    """F40: `core.worktree` must not turn a repository into a window on another folder."""
    (tmp_path / "private").mkdir()
    run_git(repository, "config", "core.worktree", str(tmp_path / "private"))
    assert work_tree_root(repository) is None


def test_broken_config_is_reported_without_the_place_on_disk(repository: Path) -> None:
    (repository / ".git" / "config").write_text("[core\n")
    with pytest.raises(SourceFailed, match="bad config") as raised:
        work_tree_root(repository)
    assert str(repository) not in str(raised.value)


def test_revision_names_commit_and_branch(repository: Path) -> None:
    told = revision(repository)
    assert (told.commit, told.branch, told.dirty) == (run_git(repository, "rev-parse", "HEAD"), "main", False)


def test_an_unborn_branch_has_no_commit(tmp_path: Path) -> None:
    run_git(tmp_path, "init", "-q")
    assert revision(tmp_path).commit == ""


def test_a_detached_head_has_no_branch(repository: Path) -> None:
    run_git(repository, "checkout", "-q", "--detach")
    assert revision(repository).branch == ""


@pytest.mark.parametrize("change", ["src/main.py", "src/new.py"])
def test_an_edited_or_new_file_makes_the_tree_dirty(repository: Path, change: str) -> None:
    (repository / change).write_text("y = 2\n")
    assert revision(repository).dirty


def test_a_change_outside_of_the_folder_asked_about_is_not_its_own(repository: Path) -> None:
    (repository / "notes.md").write_text("changed\n")
    assert not revision(repository / "src").dirty


def test_paths_are_relative_to_the_folder_asked_about(repository: Path) -> None:
    (repository / "src" / "new.py").write_text("")
    assert tracked_and_untracked(repository / "src") == ["main.py", "new.py"]


def test_odd_names_are_listed_as_they_are(repository: Path) -> None:
    for name in ("-rf", "a b", "ü\n.py", os.fsdecode(b"\xff.py")):
        (repository / name).write_text("")
    assert {"-rf", "a b", "ü\n.py", os.fsdecode(b"\xff.py")} <= set(tracked_and_untracked(repository))


def test_a_conflicted_path_is_listed_once(repository: Path) -> None:
    run_git(repository, "checkout", "-qb", "other")
    (repository / "notes.md").write_text("theirs\n")
    run_git(repository, "commit", "-qam", "theirs")
    run_git(repository, "checkout", "-q", "main")
    (repository / "notes.md").write_text("ours\n")
    run_git(repository, "commit", "-qam", "ours")
    with pytest.raises(subprocess.CalledProcessError):
        run_git(repository, "merge", "other")
    assert tracked_and_untracked(repository).count("notes.md") == 1


def hostile_monitor(root: Path, payload: str) -> None:
    run_git(root, "config", "core.fsmonitor", f"{payload}; false")


def hostile_filter(root: Path, payload: str) -> None:
    """The driver's name holds `=`, where `-c filter.<name>.clean=` would be cut in the wrong place."""
    run_git(root, "config", "filter.a=b.clean", f"{payload}; cat")
    run_git(root, "config", "filter.a=b.required", "true")
    (root / ".git" / "info" / "attributes").write_text("* filter=a=b\n")
    (root / "notes.md").write_text("# Notez\n")


def hostile_process(root: Path, payload: str) -> None:
    run_git(root, "config", "filter.x.process", payload)
    (root / ".git" / "info" / "attributes").write_text("* filter=x\n")
    (root / "notes.md").write_text("# Notez\n")


def hostile_hook(root: Path, payload: str) -> None:
    hooks = root / ".git" / "hooks"
    hooks.mkdir(exist_ok=True)
    (hooks / "post-index-change").write_text(f"#!/bin/sh\n{payload}\n")
    (hooks / "post-index-change").chmod(0o755)
    os.utime(root / "notes.md", (1, 1))


def hostile_promisor(root: Path, payload: str) -> None:
    """A missing tree makes git fetch it lazily, by a program and over a protocol that the repository's config names."""
    for key, value in {
        "core.repositoryFormatVersion": "1",
        "extensions.partialClone": "origin",
        "remote.origin.url": str(root),
        "remote.origin.promisor": "true",
        "remote.origin.uploadpack": f"{payload}; false",
        "protocol.file.allow": "always",
    }.items():
        run_git(root, "config", key, value)
    tree = run_git(root, "rev-parse", "HEAD^{tree}")
    (root / ".git" / "objects" / tree[:2] / tree[2:]).unlink()


HOSTILE = [hostile_monitor, hostile_filter, hostile_process, hostile_hook, hostile_promisor]


@pytest.mark.parametrize("plant", HOSTILE)
def test_nothing_a_repository_names_is_executed(
    repository: Path, tmp_path: Path, plant: Callable[[Path, str], None]
) -> None:
    """F40, S16: plain git starts the planted program, these functions do not."""
    canary = tmp_path / "canary"
    plant(repository, f"touch {canary}")

    try:
        work_tree_root(repository)
        tracked_and_untracked(repository)
        revision(repository)
    except SourceFailed:
        assert plant is hostile_promisor  # its missing tree stays missing
    started_by_us = canary.exists()
    subprocess.run(["git", "status"], cwd=repository, capture_output=True, check=False)

    assert (started_by_us, canary.exists()) == (False, True)


def test_what_git_ignores_is_told_apart(repository: Path) -> None:
    (repository / ".gitignore").write_text("*.log\nbuild/\n/notes.md\n")
    given = {"a.log", "build/gone.o", "src/main.py", "notes.md", "new \n\udcff.py", "\udcff.log"}
    assert ignored(repository, given) == {"a.log", "build/gone.o", "\udcff.log"}


def test_nothing_ignored_is_no_failure(repository: Path) -> None:
    assert ignored(repository, ["src/main.py"]) == set()


def test_a_path_git_cannot_judge_is_a_failure(repository: Path) -> None:
    with pytest.raises(SourceFailed, match="outside repository"):
        ignored(repository, ["../other.py"])


# Clones


def bare(repository: Path) -> str:
    """Return the URL of a bare copy, as a server has it."""
    place = repository.parent / "bare.git"
    run_git(repository.parent, "clone", "-q", "--bare", str(repository), str(place))
    return f"file://{place}"


def test_a_clone_is_the_work_tree_of_the_newest_commit(repository: Path, tmp_path: Path) -> None:
    url, clone = bare(repository), tmp_path / "clone"
    fetch_clone(url, clone)
    assert tracked_and_untracked(clone) == ["notes.md", "src/main.py"]
    assert revision(clone).commit == run_git(repository, "rev-parse", "HEAD")


def test_a_clone_fetched_again_is_what_is_new_and_nothing_else(repository: Path, tmp_path: Path) -> None:
    url, clone = bare(repository), tmp_path / "clone"
    fetch_clone(url, clone)
    (clone / "notes.md").write_text("changed here\n")
    (clone / "stray.py").write_text("x = 1\n")
    (repository / "new.py").write_text("y = 2\n")
    run_git(repository, "rm", "-q", "src/main.py")
    run_git(repository, "add", "-A")
    run_git(repository, "commit", "-qm", "second")
    run_git(repository, "push", "-q", url, "HEAD")
    fetch_clone(url, clone)
    assert tracked_and_untracked(clone) == ["new.py", "notes.md"]
    assert (clone / "notes.md").read_text() == "# Notes\n"
    assert run_git(clone, "rev-list", "--count", "HEAD") == "1"


def test_two_processes_do_not_fetch_one_clone_at_once(repository: Path, tmp_path: Path) -> None:
    url, clone = bare(repository), tmp_path / "clone"
    clone.mkdir()
    holder = FileLock.take(clone, exclusive=True)
    assert holder
    with pytest.raises(BuildInProgress, match="clone"):
        fetch_clone(url, clone)
    assert list(clone.iterdir()) == []
    holder.release()
    fetch_clone(url, clone)
    assert tracked_and_untracked(clone) == ["notes.md", "src/main.py"]


@pytest.mark.parametrize("ref", ["side", "v1"])
def test_a_clone_is_the_work_tree_of_the_ref_asked_for(repository: Path, tmp_path: Path, ref: str) -> None:
    run_git(repository, "checkout", "-qb", "side")
    (repository / "side.py").write_text("y = 2\n")
    run_git(repository, "add", "-A")
    run_git(repository, "commit", "-qm", "second")
    run_git(repository, "tag", "-am", "one", "v1")
    url = bare(repository)
    run_git(repository, "push", "-q", url, "side~1:refs/heads/elsewhere")
    fetch_clone(url, tmp_path / "clone", "elsewhere")
    assert not (tmp_path / "clone" / "side.py").exists()
    fetch_clone(url, tmp_path / "clone", ref)
    assert revision(tmp_path / "clone").commit == commit_of(repository, ref)
    assert (tmp_path / "clone" / "side.py").exists()


def test_a_clone_runs_no_hook(repository: Path, tmp_path: Path) -> None:
    """F40."""
    url, clone = bare(repository), tmp_path / "clone"
    fetch_clone(url, clone)
    hook = clone / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    hook.chmod(0o755)
    fetch_clone(url, clone)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "url",
    [
        "--upload-pack=touch ran",
        "ext::sh -c touch% ran",
        "ext://sh",
        "git://host/x",
        "http://host/x",
        "ssh://-oProxyCommand=touch/x",
        "https://user:word@host/x",
        "https://host/x\n--upload-pack=touch",
        "-https://host/x",
    ],
)
def test_what_is_no_plain_url_is_refused_before_git_sees_it(tmp_path: Path, url: str) -> None:
    with pytest.raises(InvalidArgument):
        fetch_clone(url, tmp_path / "clone")
    assert not any(tmp_path.iterdir())


def test_a_repository_that_is_not_there_is_told_without_its_place(tmp_path: Path) -> None:
    with pytest.raises(SourceFailed, match="could not fetch") as raised:
        fetch_clone(f"file://{tmp_path}/none.git", tmp_path / "clone")
    assert str(tmp_path) not in str(raised.value)


def test_a_name_stands_for_one_url(repository: Path, tmp_path: Path) -> None:
    fetch_clone(bare(repository), tmp_path / "clone")
    with pytest.raises(InvalidArgument, match="another URL"):
        fetch_clone(f"file://{repository}", tmp_path / "clone")
