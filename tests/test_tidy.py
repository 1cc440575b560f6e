"""What the style asks for and neither ruff nor mypy nor import-linter can see."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import codeintel_rev

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "codeintel_rev"
MODULES = sorted(PACKAGE.rglob("*.py"))
PACKAGES = sorted(path.parent for path in PACKAGE.rglob("*/__init__.py"))
NAMELESS = re.compile(r"(Manager|Helper|Utils?|Factory|Service)$")
MACHINE_PATH = re.compile(rb"/(?:home|Users|root|work)/[A-Za-z0-9_.-]+|/tmp/[A-Za-z0-9]")


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def calls(path: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree(path)) if isinstance(node, ast.Call))


def contracts() -> list[dict[str, object]]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]


def test_every_module_can_be_imported() -> None:
    names = [module.name for module in pkgutil.walk_packages(codeintel_rev.__path__, "codeintel_rev.")]
    runs_on_import = {"codeintel_rev.app.asgi"}  # It is the application: it reads the environment.
    for module in sorted(set(names) - runs_on_import):
        importlib.import_module(module)
    assert len(names) > 90


def test_every_benchmark_can_be_imported() -> None:
    """In a process of their own: some of them load torch, and settle its threads."""
    program = (
        "import importlib, benchmarks.__main__ as b; [importlib.import_module(f'benchmarks.{m}') for m in b.modules()]"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_module_says_what_it_is() -> None:
    silent = [name(path) for path in MODULES if not ast.get_docstring(tree(path)) and path != PACKAGE / "__init__.py"]
    assert silent == []


def test_every_folder_asks_a_question() -> None:
    """The first line of a package's docstring is the question it answers; the rest says what it is of use for."""
    docstrings = {name(folder): ast.get_docstring(tree(folder / "__init__.py")) or "" for folder in PACKAGES}
    assert {folder for folder, text in docstrings.items() if "?" not in text.partition("\n\n")[0]} == set()
    assert {folder for folder, text in docstrings.items() if "Useful for" not in text} == set()


def test_a_package_exports_nothing() -> None:
    bodies = {name(folder): tree(folder / "__init__.py").body[1:] for folder in PACKAGES}
    assert {folder for folder, body in bodies.items() if body} == set()


def test_no_attribute_is_guessed() -> None:
    """A default makes a typo read as "off", for ever."""
    defaulted = [
        f"{name(path)}:{call.lineno}"
        for path in MODULES
        for call in calls(path)
        if isinstance(call.func, ast.Name) and call.func.id == "getattr" and len(call.args) > 2
    ]
    assert defaulted == []


def test_no_wrapper_is_reached_around() -> None:
    assert [name(path) for path in MODULES if "__wrapped__" in path.read_text()] == []


def test_no_duration_is_taken_from_a_clock_that_can_go_back() -> None:
    """time.time() may say when something happened, never how long it took."""
    subtracted = [
        f"{name(path)}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.Sub | ast.Add)
        and "time.time()" in (ast.unparse(node.left), ast.unparse(node.right))
    ]
    assert subtracted == []


def test_no_class_has_a_name_that_says_nothing() -> None:
    named = [
        f"{name(path)}:{node.name}"
        for path in MODULES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ClassDef) and NAMELESS.search(node.name)
    ]
    assert named == []


def test_modules_stay_small_enough_to_read() -> None:
    """Tables of rules are as long as there are rules."""
    long = {name(path): len(path.read_text().splitlines()) for path in MODULES if "_rules" not in path.name}
    assert {path: lines for path, lines in long.items() if lines > 400} == {}


@pytest.mark.parametrize("document", ["ARCHITECTURE.md"])
def test_every_layer_is_on_the_map(document: str) -> None:
    """The layers of the import contract, the folders there are and the code map are the same."""
    text = (ROOT / document).read_text()
    layers = next(contract["layers"] for contract in contracts() if contract["type"] == "layers")
    names = {part.strip(" ()") for layer in layers for part in layer.split("|")}  # type: ignore[attr-defined]
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders <= names
    assert {layer for layer in names if f"`{layer}" not in text and f"{layer}`" not in text} == set()
    assert {folder for folder in folders if f"`{folder}/`" not in text} == set()


def test_no_tracked_file_holds_a_path_of_somebodys_machine() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("no git here")
    tracked = [ROOT / path for path in listed.stdout.decode().split("\0") if path and path != name(Path(__file__))]
    found = {
        f"{name(path)}: {match.group().decode()}"
        for path in tracked
        if path.is_file() and not path.is_symlink()
        for match in MACHINE_PATH.finditer(path.read_bytes())
    }
    assert found == set()


def test_every_test_file_has_a_name_of_its_own() -> None:
    """Without packages pytest tells two files of one name apart by nothing."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names))
