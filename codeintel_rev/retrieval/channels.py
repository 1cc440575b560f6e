"""The ways a chunk can be found, each behind the same small interface.

BM25, vectors, symbols, impacts, tokens and a test's fake are all Channels; a new one is one more class here and one
more weight in `plan.WEIGHTS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from codeintel_rev.errors import ChannelFailed
from codeintel_rev.io.dual_index import DualIndex
from codeintel_rev.io.impacts import SPLADE
from codeintel_rev.io.lexical import LexicalIndex
from codeintel_rev.retrieval.late import QueryTokens, TokenIndex
from codeintel_rev.retrieval.options import WIDE
from codeintel_rev.retrieval.plan import Plan
from codeintel_rev.retrieval.sparse import SparseIndex
from codeintel_rev.types import Floats, Ranking, Selection


@dataclass(frozen=True, slots=True)
class Question:
    """A planned query, for the dense channel its vector (dim,) of unit norm, and its tokens, made when asked for."""

    plan: Plan
    vector: Floats | None
    tokens: QueryTokens


class Channel(Protocol):
    @property
    def name(self) -> str: ...

    def rank(self, question: Question, selection: Selection | None) -> Ranking:
        """Return at most `question.plan.depth` chunks of the selection (None: of all), best first.

        Raises ChannelFailed, or another CodeIntelError that says why this channel cannot answer.
        """
        ...


@dataclass(frozen=True, slots=True)
class Lexical:
    """BM25 over code, path, symbol and header words."""

    index: LexicalIndex
    name: str = "lexical"

    def rank(self, question: Question, selection: Selection | None) -> Ranking:
        plan = question.plan
        return self.index.search(plan.query, plan.depth, title=plan.title, selection=selection)


@dataclass(frozen=True, slots=True)
class Symbols:
    """Definitions of the names the query writes out."""

    index: LexicalIndex
    name: str = "symbols"

    def rank(self, question: Question, selection: Selection | None) -> Ranking:
        return self.index.symbols(question.plan.names, question.plan.depth, selection=selection)


@dataclass(frozen=True, slots=True)
class Dense:
    """Nearest vectors, scored exactly (architecture.md law 5)."""

    index: DualIndex
    name: str = "dense"

    def rank(self, question: Question, selection: Selection | None) -> Ranking:
        if question.vector is None:
            raise ChannelFailed("the query has no vector.", "See the encoder's limit.")
        allowed = None if selection is None else selection.chunk_ids
        return Ranking(self.name, *self.index.search(question.vector, question.plan.depth, allowed=allowed))


@dataclass(frozen=True, slots=True)
class Sparse:
    """Terms of a SPLADE model's vocabulary, those that the text does not write out too."""

    index: SparseIndex
    name: str = SPLADE

    def rank(self, question: Question, selection: Selection | None) -> Ranking:
        allowed = None if selection is None else selection.chunk_ids
        impacts = question.tokens.impacts(self.index.encoder)
        return Ranking(self.name, *self.index.impacts.search(impacts, question.plan.depth, allowed))


@dataclass(frozen=True, slots=True)
class Wide:
    """Every token of every chunk, by late interaction."""

    index: TokenIndex
    name: str = WIDE

    def rank(self, question: Question, selection: Selection | None) -> Ranking:
        allowed = None if selection is None else selection.chunk_ids
        found = self.index.engine.search(question.tokens.of(self.index.encoder), question.plan.depth, allowed)
        return Ranking(self.name, found.doc_ids, found.scores)
