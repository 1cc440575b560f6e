"""The one interface between those who ask and whatever answers: one shard, many shards, a fake, a remote handle."""

from __future__ import annotations

from typing import Protocol

from codeintel_rev.retrieval.options import AS_SET, Options
from codeintel_rev.types import Scope, SearchResult, ShardStatus

NONE = range(0)


class Searcher(Protocol):
    """Answers queries over one or many repositories. Safe to call from many threads at once."""

    def search(
        self,
        query: str,
        scope: Scope,
        limit: int,
        *,
        deadline_ms: float,
        explained: range = NONE,
        options: Options = AS_SET,
    ) -> SearchResult:
        """Return at most `limit` hits, best first, within `deadline_ms` milliseconds.

        Of the hits at the positions `explained` the first few have token matches; nothing else depends on it. `options`
        win over the settings.
        Empty `scope.repos` means every repository served. Raises NotFound for a repository that is not served,
        InvalidArgument for an empty query, IndexUnavailable when no repository in scope has a usable generation,
        DeadlineExceeded. Everything less than that is a Limit in the result.
        """
        ...

    def status(self) -> tuple[ShardStatus, ...]:
        """Return the truth about every repository served, by name."""
        ...

    def close(self) -> None:
        """Release every lease and handle. Further calls fail."""
        ...
