"""A pool of parse workers that are none: starting a process costs more than parsing what tests parse."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Self

from codeintel_rev.indexing.chunking import ParsedFile, chunk_file
from codeintel_rev.types import SourceFile


class OwnProcess:
    """Stands for `ParsePool` and parses in this process."""

    def __init__(self, repo: str, max_tokens: int, *_: object) -> None:
        self._chunked = partial(chunk_file, repo, max_tokens=max_tokens)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def parse(self, files: Iterable[SourceFile]) -> Iterator[ParsedFile]:
        return (self._chunked(file) for file in files)
