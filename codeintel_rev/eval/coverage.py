"""Which part of a repository do questions reach? By module and language. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from codeintel_rev.eval.run import Answer
from codeintel_rev.types import Chunk

MODULE_DEPTH = 2


@dataclass(slots=True)
class Reach:
    """Of one language below one module: its `chunks`, those that some answer held, the places that were judged right
    and those of them that were found; `never` names the chunks that no answer held."""

    module: str
    language: str
    chunks: int = 0
    reached: int = 0
    judged: int = 0
    found: int = 0
    never: list[str] = field(default_factory=list)


def module_of(path: str) -> str:
    """Return the folders of `path`, at most two of them."""
    return "/".join(path.split("/")[:-1][:MODULE_DEPTH])


def reach(chunks: Iterable[Chunk], answers: Sequence[Answer]) -> list[Reach]:
    """Return how far `answers` reach into `chunks`, by module and language. What was judged and is gone counts not."""
    held = {hit.chunk_id for answer in answers for hit in answer.hits}
    table: dict[tuple[str, str], Reach] = {}
    languages: dict[str, str] = {}
    for chunk in chunks:
        languages[chunk.path] = chunk.language
        row = table.setdefault(_key(chunk.path, chunk.language), Reach(module_of(chunk.path), chunk.language))
        row.chunks += 1
        if chunk.chunk_id in held:
            row.reached += 1
        else:
            row.never.append(f"{chunk.path}:{chunk.start_line}-{chunk.end_line}")
    for path, ranks in _judged(answers).items():
        if path in languages:
            row = table[_key(path, languages[path])]
            row.judged += len(ranks)
            row.found += sum(rank is not None for rank in ranks)
    return [table[key] for key in sorted(table)]


def _key(path: str, language: str) -> tuple[str, str]:
    return module_of(path), language


def _judged(answers: Iterable[Answer]) -> Mapping[str, list[int | None]]:
    """Return the rank of each judged place by its path."""
    ranks: dict[str, list[int | None]] = defaultdict(list)
    for place, rank in chain.from_iterable(zip(one.query.judged, one.score.ranks, strict=True) for one in answers):
        ranks[place.path].append(rank)
    return ranks
