"""Repositories that nobody wrote with an index in mind, and disks that run full: told, and survived."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from projects import SHOP, Project, ids_by_store, new_project

from codeintel_rev.errors import InsufficientStorage
from codeintel_rev.types import Scope

LATIN = "größe = 1  # Straße\n".encode("latin-1")
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Project:
    """A tree with one of everything that hurts, beside one good file; built."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "outside.py").write_text("outside_secret = 1\n")
    files: dict[str, str | bytes] = {
        "good.py": "def good_function():\n    return 1\n",
        "image.png": b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8,
        "huge.py": b"x = 1\n" * (MIB // 2),
        "broken.py": b"name = '\xff\xfe\xfa'\ndef broken_text():\n    return name\n",
        "latin.py": LATIN,
        ".env": "PASSWORD=hunter2\n",
        "id_rsa": "-----BEGIN RSA PRIVATE KEY-----\nabc\n",
        "nested.py": "deep = (\n" + ("(" * 50 + "\n") * 2000 + (")" * 50 + "\n") * 2000 + ")\n",
        "brackets.js": ("[" * 50 + "\n") * 300,
        "nul.py": b"a = 1\x00\nb = 2\n",
        "nothing.py": "",
        "blank.py": "\n  \n\t\n",
        "bom.py": b"\xef\xbb\xbfdef with_bom():\n    return 2\n",
        "wide.py": "def wide():\n    return 3\n".encode("utf-16"),
        "crlf.py": b"def carriage():\r\n    return 4\r\n",
        "no_end.py": "def unfinished(:\n    retur",
        "app.min.js": "var a=1;\n",
        "node_modules/lib/index.js": "module.exports = 1;\n",
        "one_line.txt": "word " * 100_000,
        "surrogate.py": b"s = '\xed\xa0\x80'\n",
    }
    project = new_project(folder, models_dir, files)
    (project.root / "link.py").symlink_to(folder / "outside.py")
    (project.root / "loop").symlink_to(project.root)
    (project.root / "dangling.py").symlink_to("nowhere.py")
    os.mkfifo(project.root / "pipe.py")
    (project.root / os.fsdecode(b"bad\xff.py")).write_text("bad_name = 1\n")
    project.build()
    return project


def test_every_file_left_out_is_there_with_its_reason(hostile: Project) -> None:
    """F09, S15: skipped with a reason, and the build goes on."""
    reasons = {path: row.reason for path, row in hostile.files.items() if row.status == "skipped"}
    assert reasons == {
        ".env": "secret",
        "app.min.js": "minified",
        "bad\\xff.py": "unreadable",
        "blank.py": "empty",
        "dangling.py": "symlink",
        "huge.py": "oversize",
        "id_rsa": "secret",
        "image.png": "binary",
        "link.py": "symlink",
        "loop": "symlink",
        "node_modules/lib/index.js": "vendored",
        "nothing.py": "empty",
        "nul.py": "binary",
        "pipe.py": "special",
    }


def test_what_can_be_read_is_indexed_and_joined(hostile: Project) -> None:
    indexed = {path for path, row in hostile.files.items() if row.status == "indexed"}
    stores = ids_by_store(hostile.directory)
    assert indexed >= {"good.py", "bom.py", "wide.py", "crlf.py", "no_end.py", "latin.py", "nested.py", "brackets.js"}
    assert len(set(map(tuple, stores.values()))) == 1


@pytest.mark.parametrize(
    ("name", "path"),
    [("with_bom", "bom.py"), ("wide", "wide.py"), ("carriage", "crlf.py"), ("good_function", "good.py")],
)
def test_names_are_found_whatever_the_encoding(hostile: Project, name: str, path: str) -> None:
    assert hostile.search(name).hits[0].path == path


def test_nothing_outside_the_tree_is_indexed(hostile: Project) -> None:
    """S15: a link is not followed."""
    with hostile.opened() as opened:
        found = opened.navigator.search_text(
            "outside_secret|hunter2",
            regex=True,
            case_sensitive=True,
            scope=Scope(),
            limit=5,
            context_lines=0,
            cursor="",
        )
    assert found.matches == ()


def test_a_hostile_tree_is_built_once(hostile: Project) -> None:
    assert not hostile.build().changed


def test_the_summary_counts_the_reasons(hostile: Project) -> None:
    hostile.write({"good.py": "def good_function():\n    return 2\n"})
    reasons = hostile.build().reasons
    assert (reasons["symlink"], reasons["secret"], reasons["special"]) == (3, 2, 1)


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def on_full_disk(full_disk: Path, tmp_path: Path, models_dir: Path) -> Project:
    """SHOP, its data on the small disk, built; then as much source added as does not fit into what is left."""
    planned = new_project(tmp_path, models_dir)
    project = Project(planned.root, full_disk, {"index": {"disk_low_mb": 0}})
    (full_disk / "models").symlink_to(models_dir)
    project.build()
    (full_disk / "ballast").write_bytes(bytes(max(0, shutil.disk_usage(full_disk).free - MIB)))
    for part in range(4):
        noise = (f"def noise_{part}_{n}():\n    return '{os.urandom(120).hex()}'" for n in range(1500))
        project.write({f"noise/n{part}.py": "\n\n".join(noise)})
    return project


def test_a_full_disk_is_told_and_the_old_generation_serves(on_full_disk: Project) -> None:
    """F06."""
    before = on_full_disk.current.generation
    with pytest.raises(InsufficientStorage, match="disk is full"):
        on_full_disk.build()
    assert on_full_disk.store.verify(before) == []
    assert on_full_disk.search("charge_card").hits[0].path == "shop/payment.py"


def test_a_failed_build_gives_its_space_back(on_full_disk: Project) -> None:
    """F06: the partial folder is removed, and with less source the next build succeeds."""
    with pytest.raises(InsufficientStorage):
        on_full_disk.build()
    left = list((on_full_disk.store.directory / "generations").iterdir())
    assert all((path / "MANIFEST.json").exists() for path in left)
    shutil.rmtree(on_full_disk.root / "noise")
    (on_full_disk.data_dir / "ballast").unlink()
    on_full_disk.write({"shop/new.py": "def brand_new():\n    return 1\n"})
    assert on_full_disk.build().stage == "complete"
    assert sorted(on_full_disk.files) == sorted([*SHOP, "shop/new.py"])
