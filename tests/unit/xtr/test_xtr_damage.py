"""An index that is not what was published is refused, and opening one costs next to nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from codeintel_rev.errors import IndexCorrupt, IndexIncompatible
from codeintel_rev.xtr.build import BuildConfig, append, build_index, delete
from codeintel_rev.xtr.config import Layout, SearchConfig
from codeintel_rev.xtr.search import XTRSearch
from codeintel_rev.xtr.validate import audit, verify
from tests.unit.xtr.token_corpora import clustered


@pytest.fixture(scope="module", params=["flat", "warp"])
def published(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    layout: Layout = request.param
    return made(tmp_path_factory.mktemp(layout), layout, 3)


def made(folder: Path, layout: Layout, seed: int) -> Path:
    corpus = clustered(np.random.default_rng(seed), [6] * 40, 32)
    build_index(BuildConfig(folder, 32, layout=layout), list(corpus.items())[:30])
    append(folder, list(corpus.items())[30:])
    delete(folder, np.array([1, 3], np.int64))
    return folder


def copied(published: Path, tmp_path: Path) -> Path:
    shutil.copytree(published, tmp_path / "index")
    return tmp_path / "index"


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_sound_index_has_no_problems(published: Path) -> None:
    """A09, A38."""
    found = audit(published)
    assert (found.problems, found.documents, found.deleted, found.tokens, found.shards) == ((), 38, 2, 240, 2)
    assert found.bytes == sum(path.stat().st_size for path in files(published) if path.suffix != ".json")


def test_a_truncated_file_is_refused_at_open(published: Path, tmp_path: Path) -> None:
    """F12: every file, three lengths each."""
    index = copied(published, tmp_path)
    for path in files(index):
        whole = path.read_bytes()
        for length in {0, len(whole) // 2, len(whole) - 1}:
            path.write_bytes(whole[:length])
            with pytest.raises(IndexCorrupt):
                XTRSearch.open(SearchConfig(index))
        path.write_bytes(whole)
    XTRSearch.open(SearchConfig(index))


def test_a_missing_file_is_refused_at_open(published: Path, tmp_path: Path) -> None:
    index = copied(published, tmp_path)
    for path in files(index):
        whole = path.read_bytes()
        path.unlink()
        with pytest.raises(IndexCorrupt):
            XTRSearch.open(SearchConfig(index))
        path.write_bytes(whole)


def test_a_flipped_bit_is_found(published: Path, tmp_path: Path) -> None:
    """F13: every file, three places each."""
    index = copied(published, tmp_path)
    random = np.random.default_rng(0)
    for path in files(index):
        whole = path.read_bytes()
        for place in random.integers(0, len(whole), 3).tolist():
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << random.integers(8)]) + whole[place + 1 :])
            with pytest.raises((IndexCorrupt, IndexIncompatible)):
                verify(index)
        path.write_bytes(whole)
    assert verify(index).problems == ()


def test_files_of_two_indexes_do_not_mix(published: Path, tmp_path: Path) -> None:
    """F14: same sizes, other contents."""
    layout: Layout = "warp" if (published / "codec").exists() else "flat"
    index, other = copied(published, tmp_path), made(tmp_path / "other", layout, 4)
    for path in files(index):
        twin = other / path.relative_to(index)
        whole = path.read_bytes()
        if not twin.exists() or twin.read_bytes() == whole:
            continue
        path.write_bytes(twin.read_bytes())
        with pytest.raises(IndexCorrupt):
            verify(index)
        path.write_bytes(whole)


def test_another_format_is_refused(published: Path, tmp_path: Path) -> None:
    """F16."""
    index = copied(published, tmp_path)
    fields = json.loads((index / "manifest.json").read_text())
    (index / "manifest.json").write_text(json.dumps(fields | {"version": 2}))
    with pytest.raises(IndexIncompatible, match="Build the index again"):
        XTRSearch.open(SearchConfig(index))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"format": "codeintel-xtr", "version": 1}', "[" * 9999])
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(IndexCorrupt):
        XTRSearch.open(SearchConfig(tmp_path))


def test_no_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IndexCorrupt):
        XTRSearch.open(SearchConfig(tmp_path / "nowhere"))
