"""Every file of a repository is read, or left out with a reason."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from codeintel_rev.config.settings import SourceSettings
from codeintel_rev.errors import NotFound
from codeintel_rev.indexing.source import PathEntry, SourceTree, contents_of, read_file, scan
from codeintel_rev.io.stat_cache import Stamp, StatCache
from codeintel_rev.types import Revision, Role, SkippedFile, SourceFile

Plant = Callable[..., Path]


def git(root: Path, *arguments: str) -> None:
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@example.com", *arguments], cwd=root, check=True)


def plain(root: Path, files: dict[str, str | bytes]) -> Path:
    for path, content in files.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def work_tree(root: Path, files: dict[str, str | bytes]) -> Path:
    git(plain(root, files), "init", "-q", "-b", "main", ".")
    return root


BOTH = pytest.mark.parametrize("plant", [plain, work_tree])


def settings(**values: object) -> SourceSettings:
    return SourceSettings.model_validate(values)


def listed(tree: SourceTree) -> list[str]:
    return [entry.path for entry in tree.files]


def read_files(tree: SourceTree) -> list[SourceFile | SkippedFile]:
    return [read_file(tree.root, entry, tree.settings) for entry in tree.files]


def read(tree: SourceTree) -> dict[str, SourceFile]:
    return {file.path: file for file in read_files(tree) if isinstance(file, SourceFile)}


def reasons(tree: SourceTree) -> dict[str, str]:
    left_out = [*tree.skipped, *(file for file in read_files(tree) if isinstance(file, SkippedFile))]
    return {skip.path: skip.reason for skip in left_out}


@BOTH
def test_a_file_is_read_whole(plant: Plant, tmp_path: Path) -> None:
    content = b"\xef\xbb\xbfdef f():\r\n    return 'x'\r\n"
    tree = scan(plant(tmp_path, {"src/test_a.py": content}), settings())
    assert read(tree) == {
        "src/test_a.py": SourceFile(
            path="src/test_a.py",
            language="python",
            role=Role.TEST,
            size=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            encoding="utf-8",
            text="def f():\n    return 'x'\n",
        )
    }


@BOTH
def test_ignored_files_are_not_mentioned(plant: Plant, tmp_path: Path) -> None:
    files = {
        ".gitignore": "*.log\nbuild/\n!keep.log\n",
        "a.log": "x",
        "keep.log": "x",
        "build/out.py": "x",
        "sub/.gitignore": "*.py\n!b.py\n",
        "sub/a.py": "x",
        "sub/b.py": "x",
    }
    tree = scan(plant(tmp_path, files), settings())
    assert (listed(tree), tree.skipped) == ([".gitignore", "keep.log", "sub/.gitignore", "sub/b.py"], ())


def test_info_exclude_is_honoured_in_a_work_tree(tmp_path: Path) -> None:
    work_tree(tmp_path, {"a.py": "x", "private.py": "x"})
    (tmp_path / ".git" / "info" / "exclude").write_text("private.py\n")
    assert listed(scan(tmp_path, settings())) == ["a.py"]


def test_a_tracked_file_is_listed_though_ignored_and_not_when_deleted(tmp_path: Path) -> None:
    work_tree(tmp_path, {".gitignore": "*.py\n", "kept.py": "x", "gone.py": "x"})
    git(tmp_path, "add", "-f", ".")
    (tmp_path / "gone.py").unlink()
    tree = scan(tmp_path, settings())
    assert (listed(tree), tree.skipped) == ([".gitignore", "kept.py"], ())


def test_a_folder_inside_a_work_tree_is_a_root_of_its_own(tmp_path: Path) -> None:
    work_tree(tmp_path, {".gitignore": "*.log\n", "top.py": "x", "sub/a.py": "x", "sub/b.log": "x"})
    assert listed(scan(tmp_path / "sub", settings())) == ["a.py"]


def test_a_work_tree_knows_its_revision_and_a_plain_folder_does_not(tmp_path: Path) -> None:
    work_tree(tmp_path / "git", {"a.py": "x"})
    git(tmp_path / "git", "add", ".")
    git(tmp_path / "git", "commit", "-qm", "first")
    in_git = scan(tmp_path / "git", settings()).revision
    in_plain = scan(plain(tmp_path / "plain", {"a.py": "x"}), settings()).revision
    assert (len(in_git.commit), in_git.branch, in_plain) == (40, "main", Revision("", "", dirty=False))


@BOTH
def test_the_project_s_own_ignore_files_are_reported(plant: Plant, tmp_path: Path) -> None:
    files = {
        ".codeintelignore": "data/\n*.sql\n",
        "a.sql": "select 1",
        "data/deep/x.py": "x",
        "data/y.py": "x",
        "sub/.codeintelignore": "!b.sql\n",
        "sub/b.sql": "select 1",
    }
    tree = scan(plant(tmp_path, files), settings())
    assert (listed(tree), reasons(tree)) == (
        [".codeintelignore", "sub/.codeintelignore", "sub/b.sql"],
        {"a.sql": "denied", "data/": "denied"},
    )


def test_a_tracked_file_is_denied_by_the_project_s_own_ignore_file(tmp_path: Path) -> None:
    work_tree(tmp_path, {".codeintelignore": "a.py\n", "a.py": "x"})
    git(tmp_path, "add", ".")
    assert reasons(scan(tmp_path, settings())) == {"a.py": "denied"}


def test_allow_and_deny_are_reported(tmp_path: Path) -> None:
    plain(tmp_path, {"a.py": "x", "b.py": "x", "c.go": "x"})
    tree = scan(tmp_path, settings(allow=["*.py"], deny=["b.*"]))
    assert (listed(tree), reasons(tree)) == (["a.py"], {"b.py": "denied", "c.go": "denied"})


SECRETS = [
    *(".env", ".env.production", "prod.env", "deploy/server.pem", "id_rsa", ".ssh/config", "cert.p12", "a.keystore"),
    *("credentials.json", ".npmrc", ".netrc", ".pypirc", ".aws/credentials", "tls.KEY", "my-service-account-1.json"),
    *("config/master.key", "terraform.tfstate", ".git-credentials", ".htpasswd", "secrets.yaml"),
]


@BOTH
def test_files_that_hold_secrets_are_denied_by_name(plant: Plant, tmp_path: Path) -> None:
    """S29."""
    tree = scan(plant(tmp_path, dict.fromkeys(SECRETS, "token")), settings(allow=["*"]))
    assert (listed(tree), reasons(tree)) == ([], dict.fromkeys(SECRETS, "secret"))


def test_a_private_key_is_a_secret_under_any_name(tmp_path: Path) -> None:
    """S29."""
    begin = "-----BEGIN OPENSSH " + "PRIVATE KEY-----\nabc\n"
    assert reasons(scan(plain(tmp_path, {"deploy": begin}), settings())) == {"deploy": "secret"}


@pytest.mark.parametrize("name", [".env.example", "id_rsa.pub", "environment.py", "keys.py", "secret.go"])
def test_files_that_only_sound_secret_are_read(tmp_path: Path, name: str) -> None:
    assert listed(scan(plain(tmp_path, {name: "x"}), settings())) == [name]


@BOTH
def test_content_that_is_no_source_is_reported(plant: Plant, tmp_path: Path) -> None:
    """F09, S15."""
    files: dict[str, str | bytes] = {
        "binary.dat": b"\x89PNG\0\0",
        "nul.py": b"a = 1\0\n",
        "oversize.json": b"[" + b"1," * 1_100_000 + b"1]",
        "minified.js": "var a=b(c);" * 500,
        "jquery.min.js": "x",
        "lib.go": "// Code generated by a tool. DO NOT EDIT.\n",
        "yarn.lock": "x",
        "vendor/lib.go": "package lib\n",
        "empty.py": "",
        "blank.py": " \n\n",
    }
    assert reasons(scan(plant(tmp_path, files), settings())) == {
        "binary.dat": "binary",
        "nul.py": "binary",
        "oversize.json": "oversize",
        "minified.js": "minified",
        "jquery.min.js": "minified",
        "lib.go": "generated",
        "yarn.lock": "generated",
        "vendor/lib.go": "vendored",
        "empty.py": "empty",
        "blank.py": "empty",
    }


def test_a_forty_megabyte_line_is_never_read(tmp_path: Path) -> None:
    """F09."""
    with (tmp_path / "line.js").open("wb") as file:
        file.truncate(40 * 1024 * 1024)
    assert scan(tmp_path, settings()).skipped == (SkippedFile("line.js", "oversize", 40 * 1024 * 1024),)


def test_generated_and_vendored_files_are_read_when_asked_for(tmp_path: Path) -> None:
    files = {"vendor/a.go": "package a\n", "b.pb.go": "package b\n", "c.min.js": "c()"}
    tree = scan(plain(tmp_path, files), settings(index_vendored=True, index_generated=True))
    assert {file.path: file.role for file in read(tree).values()} == {
        "vendor/a.go": Role.VENDORED,
        "b.pb.go": Role.GENERATED,
        "c.min.js": Role.CODE,
    }


@BOTH
def test_a_file_of_exactly_the_limit_is_read(plant: Plant, tmp_path: Path) -> None:
    """S15."""
    tree = scan(plant(tmp_path, {"a.py": "x" * 100, "b.py": "x" * 101}), settings(max_bytes=100))
    assert (listed(tree), reasons(tree)) == (["a.py"], {"b.py": "oversize"})


@BOTH
def test_files_beyond_the_limit_are_reported(plant: Plant, tmp_path: Path) -> None:
    """S15."""
    tree = scan(plant(tmp_path, {"c.py": "x", "a.py": "x", "b.py": "x"}), settings(max_files=2))
    assert (listed(tree), reasons(tree)) == (["a.py", "b.py"], {"c.py": "too-many-files"})


@BOTH
def test_links_are_not_followed(plant: Plant, tmp_path: Path) -> None:
    """S15."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.py").write_text("x")
    root = plant(tmp_path / "root", {"a.py": "x"})
    (root / "file.py").symlink_to(tmp_path / "outside" / "secret.py")
    (root / "folder").symlink_to(tmp_path / "outside")
    (root / "loop").symlink_to(".")
    assert reasons(scan(root, settings())) == dict.fromkeys(["file.py", "folder", "loop"], "symlink")


def test_a_device_or_fifo_is_special(tmp_path: Path) -> None:
    """S15: a FIFO is reported and nobody waits for it."""
    os.mkfifo(plain(tmp_path, {}) / "pipe.py")
    assert reasons(scan(tmp_path, settings())) == {"pipe.py": "special"}


def test_a_tracked_file_that_became_a_fifo_is_special(tmp_path: Path) -> None:
    """S15."""
    git(work_tree(tmp_path, {"a.py": "x"}), "add", ".")
    (tmp_path / "a.py").unlink()
    os.mkfifo(tmp_path / "a.py")
    assert reasons(scan(tmp_path, settings())) == {"a.py": "special"}


def test_a_submodule_is_not_entered(tmp_path: Path) -> None:
    """S15."""
    inner = work_tree(tmp_path / "inner", {"a.py": "x"})
    git(inner, "add", ".")
    git(inner, "commit", "-qm", "first")
    outer = work_tree(tmp_path / "outer", {"b.py": "x"})
    git(outer, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(inner), "module")
    git(work_tree(outer / "nested", {"c.py": "x"}), "add", ".")
    assert reasons(scan(outer, settings())) == {"module": "submodule", "nested": "submodule"}


def test_a_repository_inside_a_plain_folder_is_an_ordinary_folder(tmp_path: Path) -> None:
    work_tree(plain(tmp_path, {"a.py": "x"}) / "inner", {"b.py": "x"})
    assert listed(scan(tmp_path, settings())) == ["a.py", "inner/b.py"]


@BOTH
def test_a_name_that_is_no_utf8_is_reported_readably(plant: Plant, tmp_path: Path) -> None:
    root = plant(tmp_path, {"a.py": "x"})
    (root / os.fsdecode(b"caf\xe9.py")).write_text("x")
    assert reasons(scan(root, settings())) == {r"caf\xe9.py": "unreadable"}


def test_a_path_too_long_to_open_is_reported(tmp_path: Path) -> None:
    """S15: folders nested beyond what one path can name."""
    root = plain(tmp_path / "root", {"a.py": "x"})
    folder = os.open(root, os.O_RDONLY)
    for _ in range(25):
        os.mkdir("d" * 200, dir_fd=folder)
        inner = os.open("d" * 200, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(os.open("b.py", os.O_CREAT | os.O_WRONLY, dir_fd=folder))
    os.close(folder)
    tree = scan(root, settings())
    shutil.rmtree(root)
    assert (listed(tree), [skip.reason for skip in tree.skipped]) == (["a.py"], ["unreadable"])


def test_a_file_that_vanished_since_the_scan_is_unreadable(tmp_path: Path) -> None:
    tree = scan(plain(tmp_path, {"a.py": "x"}), settings())
    (tmp_path / "a.py").unlink()
    assert reasons(tree) == {"a.py": "unreadable"}


def test_a_file_that_grew_since_the_scan_is_oversize(tmp_path: Path) -> None:
    plain(tmp_path, {"a.py": "x" * 200})
    assert read_file(tmp_path, PathEntry("a.py", Stamp(10, 0, 0, 0)), settings(max_bytes=100)) == SkippedFile(
        "a.py", "oversize", 10
    )


def test_a_folder_swapped_for_a_link_since_the_scan_is_unreadable(tmp_path: Path) -> None:
    """F37, S14."""
    plain(tmp_path / "outside", {"a.py": "secret"})
    tree = scan(plain(tmp_path / "root", {"src/a.py": "x"}), settings())
    (tmp_path / "root" / "src").rename(tmp_path / "aside")
    (tmp_path / "root" / "src").symlink_to(tmp_path / "outside")
    assert reasons(tree) == {"src/a.py": "unreadable"}


def test_what_is_no_folder_cannot_be_scanned(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="'missing' is no folder"):
        scan(tmp_path / "missing", settings())


def test_contents_are_the_digests_of_the_bytes(tmp_path: Path) -> None:
    tree = scan(plain(tmp_path / "tree", {"a.py": b"x\r\n", "b.bin": b"\0"}), settings())
    contents = contents_of(tree, StatCache(tmp_path))
    assert contents == {
        path: hashlib.sha256(data).hexdigest() for path, data in {"a.py": b"x\r\n", "b.bin": b"\0"}.items()
    }
    assert {file.path: file.sha256 for file in read_files(tree)} == contents


def test_a_file_that_cannot_be_read_has_no_digest(tmp_path: Path) -> None:
    tree = scan(plain(tmp_path / "tree", {"a.py": "x"}), settings())
    (tmp_path / "tree" / "a.py").unlink()
    assert contents_of(tree, StatCache(tmp_path)) == {"a.py": ""}
