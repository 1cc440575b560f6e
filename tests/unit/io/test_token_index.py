"""What stands beside the engine's files reads as it was written or is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from codeintel_rev.errors import IndexCorrupt, IndexIncompatible
from codeintel_rev.io.token_index import (
    BUILD,
    TEXTS,
    TokenBuild,
    read_build,
    read_texts,
    write_build,
    write_texts,
)


def test_texts_and_figures_read_as_they_were_written(tmp_path: Path) -> None:
    texts = np.array([[1, -5], [7, 2**62]], np.int64)
    write_texts(tmp_path, texts)
    write_build(tmp_path, TokenBuild(3, {"xtr_build_train_ms": 1.5}))
    assert np.array_equal(read_texts(tmp_path), texts)
    assert read_build(tmp_path) == TokenBuild(3, {"xtr_build_train_ms": 1.5})


@pytest.mark.parametrize("content", [b"", b"no array", None])
def test_texts_that_are_none_are_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / TEXTS).write_bytes(content)
    with pytest.raises(IndexCorrupt, match=TEXTS):
        read_texts(tmp_path)


@pytest.mark.parametrize("texts", [np.zeros(4, np.int64), np.zeros((2, 2), np.float32), np.zeros((2, 3), np.int64)])
def test_texts_of_another_shape_are_refused(tmp_path: Path, texts: np.ndarray) -> None:
    np.save(tmp_path / TEXTS, texts)
    with pytest.raises(IndexCorrupt, match="int64"):
        read_texts(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"7", b'{"format": 1}', b'{"format": 1, "missing": 0, "figures": {"a": "b"}}', b"\xff"]
)
def test_a_build_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / BUILD).write_bytes(content)
    with pytest.raises(IndexCorrupt, match=BUILD):
        read_build(tmp_path)


def test_another_format_is_incompatible(tmp_path: Path) -> None:
    """F16."""
    (tmp_path / BUILD).write_bytes(b'{"format": 2}')
    with pytest.raises(IndexIncompatible, match="format 2, this version reads 1"):
        read_build(tmp_path)


def test_the_figures_of_a_build_are_read_as_written(tmp_path: Path) -> None:
    write_build(tmp_path, TokenBuild(3, {"xtr_doc_count": 2.0}))
    assert read_build(tmp_path) == TokenBuild(3, {"xtr_doc_count": 2.0})
