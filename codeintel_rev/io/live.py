"""The generation a running server answers from: swapped under load, closed when its last request has ended."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Generic, Protocol, TypeVar

from codeintel_rev.errors import CodeIntelError, IndexCorrupt, IndexIncompatible, IndexUnavailable
from codeintel_rev.io.generation_reader import GenerationReader
from codeintel_rev.io.leases import Generation
from codeintel_rev.types import Limit


class Closable(Protocol):
    def close(self) -> None: ...


T = TypeVar("T", bound=Closable)


class LiveGeneration(Generic[T]):
    """Serves what `opener` makes of the current generation of `store`; serves nothing before the first `refresh`.

    `opener` refuses a generation it cannot serve by IndexCorrupt or IndexIncompatible. Safe to use from many threads.
    """

    def __init__(self, store: GenerationReader, opener: Callable[[Generation], T]) -> None:
        self._store = store
        self._opener = opener
        self._swap = threading.Lock()
        self._refreshing = threading.Lock()
        self._served: tuple[Generation, T] | None = None
        self._current: str | None = None
        self._failure: CodeIntelError | None = IndexUnavailable(f"{store.repo} is not opened yet.")

    @contextmanager
    def acquire(self) -> Iterator[T]:
        """Hold the served object for the block: a swap meanwhile neither changes nor closes it.

        Raises IndexUnavailable when nothing is served.
        """
        with ExitStack() as held:
            with self._swap:
                if self._served is None:
                    raise self._unavailable()
                generation, opened = self._served
                held.enter_context(generation.lease())
            yield opened

    @property
    def limits(self) -> tuple[Limit, ...]:
        """What callers do not get: an older generation is served, or the newest could not be opened."""
        with self._swap:
            limits = self._served[0].limits if self._served else ()
            return limits if self._failure is None else (*limits, _limit(self._failure))

    def refresh(self) -> bool:
        """Serve the current generation if it is not served already; return whether it was swapped in.

        Hashes and opens, so call it off the request path, from a background poll. A generation that cannot be opened
        leaves the old one served and becomes a Limit; it is tried again unless it is corrupt or incompatible. With
        nothing served yet the nearest good older one is.
        """
        with self._refreshing:
            try:
                return self._refresh()
            except CodeIntelError as error:
                self._failure = error
                return False

    def close(self) -> None:
        """Serve nothing from now on; running requests keep what they hold."""
        with self._refreshing:
            self._failure = IndexUnavailable(f"{self._store.repo} is closed.")
            self._exchange(None)

    def _refresh(self) -> bool:
        current = self._store.current_id()
        if current is not None and current == self._current:
            return False
        try:
            self._exchange(self._open(current))
        except (IndexCorrupt, IndexIncompatible):
            self._current = current
            raise
        self._current, self._failure = current, None
        return True

    def _open(self, current: str | None) -> tuple[Generation, T]:
        if self._served is None or current is None:
            return self._store.open_best(self._opened)
        return self._store.open(current, self._opened)

    def _opened(self, generation: Generation) -> tuple[Generation, T]:
        opened = self._opener(generation)
        generation.on_close(opened.close)
        return generation, opened

    def _exchange(self, fresh: tuple[Generation, T] | None) -> None:
        with self._swap:
            old, self._served = self._served, fresh
        if old is not None:
            old[0].close()

    def _unavailable(self) -> IndexUnavailable:
        failure = self._failure
        return IndexUnavailable(failure.detail if failure else "nothing is served.", failure.hint if failure else "")


def _limit(error: CodeIntelError) -> Limit:
    return Limit(error.slug, "generation", f"the newest generation is not served: {error.detail}", error.hint)
