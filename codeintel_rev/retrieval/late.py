"""The token index of one generation, opened beside the encoder that asks it, and a query's tokens, made once."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Self

from codeintel_rev.encoders.sparse import SparseEncoder
from codeintel_rev.encoders.token_encoder import TokenEncoders
from codeintel_rev.encoders.tokens import EncodedQuery, TokenEncoder
from codeintel_rev.errors import ChannelFailed, IndexIncompatible, IndexUnavailable
from codeintel_rev.io.impacts import Impacts
from codeintel_rev.io.token_index import TOKENS, read_build, read_projection, token_model_id
from codeintel_rev.observability.metrics import observe_xtr
from codeintel_rev.types import Floats
from codeintel_rev.xtr.config import SearchConfig
from codeintel_rev.xtr.metrics import Figure, timed

if TYPE_CHECKING:
    from codeintel_rev.xtr.search import XTRSearch

BUILD = "Run `codeintel index`, or `xtr build` for it."


class QueryTokens:
    """One query, encoded once for each encoder that is asked for. Safe to ask from many threads at once."""

    def __init__(self, query: str) -> None:
        self._query = query
        self._lock = Lock()
        self._made: dict[str, EncodedQuery] = {}
        self._weighing = Lock()  # Of its own: the two models run side by side.
        self._weighed: dict[str, Impacts] = {}

    def of(self, encoder: TokenEncoder) -> Floats:
        """Return its tokens (n, dim), n >= 1. Raises EncoderFailed, and ChannelFailed when none has a vector."""
        tokens = self.encoded(encoder).tokens
        if not len(tokens):
            raise ChannelFailed("no token of the query has a vector.", "Ask in other words.")
        return tokens

    def encoded(self, encoder: TokenEncoder) -> EncodedQuery:
        """Return its tokens and dense vector, of one pass. Raises EncoderFailed."""
        model = encoder.fingerprint.sha256
        with self._lock:
            if model not in self._made:
                with timed(observe_xtr, Figure.SEARCH_ENCODE_MS):
                    self._made[model] = encoder.encode_query(self._query)
            return self._made[model]

    def impacts(self, encoder: SparseEncoder) -> Impacts:
        """Return the terms of a sparse model's vocabulary that it is about. Raises EncoderFailed."""
        with self._weighing:
            if encoder.model_id not in self._weighed:
                self._weighed[encoder.model_id] = encoder.encode_query(self._query)
            return self._weighed[encoder.model_id]


@dataclass(frozen=True, slots=True)
class TokenIndex:
    """An engine whose documents are chunks by id, and the encoder that made its tokens. Safe for many threads.

    `built` are the engine's figures of its build, by name.
    """

    engine: XTRSearch
    encoder: TokenEncoder
    built: Mapping[str, float]

    @classmethod
    def open(cls, directory: Path, encoders: TokenEncoders) -> Self:
        """Map the index in `directory` and load what asks it: model, projection, compiled kernels.

        Takes seconds at the first call, so never on the request path. Raises IndexUnavailable when there is none,
        IndexIncompatible when its tokens are of another model, IndexCorrupt, and what opening the encoder raises.
        """
        if not (directory / TOKENS).is_dir():
            raise IndexUnavailable("there is no late-interaction index.", BUILD)
        # Imported now that there is an index: numba takes a third of a second.
        library, config = importlib.import_module("codeintel_rev.xtr.search"), SearchConfig(directory / TOKENS)
        engine: XTRSearch = library.XTRSearch.open(config, observe_xtr)
        encoder = encoders.of(read_projection(directory))
        serving = token_model_id(encoder.fingerprint)
        if engine.manifest.model_id != serving:
            raise IndexIncompatible(
                f"the index holds tokens of {engine.manifest.model_id[:80]}, the encoder is {serving[:80]}.",
                "Build it again, or configure the model it was built with.",
            )
        # By an engine of its own: the seconds that compiling takes are no figure of a search.
        library.XTRSearch.open(config).warm()
        encoder.encode_query("warm")
        return cls(engine, encoder, read_build(directory).figures)
