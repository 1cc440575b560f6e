"""A branch, tag or commit is indexed as a repository of its own, and the work tree is left alone."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from codeintel_rev.cli.main import app
from codeintel_rev.io.generations import GenerationStore
from codeintel_rev.io.registry import repository_directory, source_of


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *identity, *arguments], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def run(*arguments: str) -> Any:
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`my shop`, on main with an unsaved change, and its branch feature/refund and tag v1, indexed as `shop`."""
    monkeypatch.setenv("CODEINTEL_PATHS__DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("CODEINTEL_EMBEDDING__PROVIDER", "none")
    monkeypatch.setenv("CODEINTEL_CHUNKING__WORKERS", "1")
    root = tmp_path / "my shop"
    root.mkdir()
    git(root, "init", "-q")
    (root / "cart.py").write_text("def add_item(cart, item):\n    cart.append(item)\n")
    (root / "pay.py").write_text("def charge_card(card):\n    return card.debit()\n")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "first")
    git(root, "tag", "v1")
    git(root, "checkout", "-qb", "feature/refund")
    (root / "pay.py").write_text("def refund_card(card):\n    return card.credit()\n")
    git(root, "commit", "-qam", "second")
    git(root, "checkout", "-q", "main")
    (root / "cart.py").write_text("def unsaved_change():\n    return 1\n")
    run("index", str(root), "--name", "shop")
    return root


def found(query: str, *repos: str) -> list[tuple[str, str]]:
    named = [word for repo in repos for word in ("--repo", repo)]
    return [(hit["repo"], hit["symbol"]) for hit in run("search", query, *named)["hits"]]


def test_a_branch_is_searched_by_its_own_name_and_the_work_tree_left_alone(root: Path) -> None:
    before = git(root, "status", "--porcelain", "--branch"), git(root, "worktree", "list")
    built = run("index", str(root), "--name", "shop", "--ref", "feature/refund")
    assert built["repo"] == "shop@feature/refund"
    assert found("refund card", "shop@feature/refund")[0] == ("shop@feature/refund", "refund_card")
    assert ("shop", "refund_card") not in found("refund card", "shop")
    assert ("shop@feature/refund", "unsaved_change") not in found("unsaved change", "shop@feature/refund")
    assert (git(root, "status", "--porcelain", "--branch"), git(root, "worktree", "list")) == before


def test_a_ref_is_of_the_family_of_its_repository_and_shown_with_its_commit(root: Path, tmp_path: Path) -> None:
    run("index", str(root), "--name", "shop", "--ref", "v1")
    directory = repository_directory(tmp_path / "data", "shop@v1")
    assert GenerationStore(directory).ls()[0].family == "shop"
    assert run("indexctl", "ls", "shop@v1")[0]["commit"] == git(root, "rev-parse", "v1")[:12]
    assert [one["repo"] for one in run("status")] == ["shop", "shop@v1"]
    assert (source_of(directory).root / "pay.py").read_text() == git(root, "show", "v1:pay.py") + "\n"


def test_a_branch_that_moved_is_brought_up_to_date_by_the_same_command(root: Path) -> None:
    run("index", str(root), "--name", "shop", "--ref", "main")
    git(root, "commit", "-qam", "third")
    assert run("index", str(root), "--name", "shop", "--ref", "main")["changed"] is True
    assert found("unsaved change", "shop@main")[0] == ("shop@main", "unsaved_change")


@pytest.mark.parametrize(
    ("ref", "code"),
    [("--upload-pack=touch ran", 2), ("a:b", 2), ("+main", 2), ("@{-1}", 2), ("none", 3), ("../../shop", 3)],
)
def test_what_is_no_ref_is_refused(root: Path, tmp_path: Path, ref: str, code: int) -> None:
    """F40."""
    done = CliRunner().invoke(app, ["index", str(root), "--name", "shop", f"--ref={ref}"])
    assert done.exit_code == code, done.output
    assert sorted(path.name for path in (tmp_path / "data" / "repos").iterdir() if path.is_dir()) == ["shop"]
