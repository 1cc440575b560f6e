"""The generation a running server answers from: opened when it is asked for, swapped under load, closed when its last
request has ended, and put to sleep when others need the room."""

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
    """Serves what `opener` makes of the current generation of `store`: from the first `refresh` or `acquire` on.

    `opener` refuses a generation it cannot serve by IndexCorrupt or IndexIncompatible. Safe to use from many threads.
    """

    def __init__(self, store: GenerationReader, opener: Callable[[Generation], T]) -> None:
        self.store = store
        self._opener = opener
        self._swap = threading.Lock()
        self._refreshing = threading.Lock()
        self._served: tuple[Generation, T] | None = None
        self._limits: tuple[Limit, ...] = ()
        self._asleep = True
        self._closed = False
        self._current: str | None = None
        self._failure: CodeIntelError | None = None

    @contextmanager
    def acquire(self) -> Iterator[T]:
        """Hold the served object for the block: neither a swap nor `sleep` meanwhile changes or closes it.

        Opens what sleeps, which takes the time of hashing its files the first time. Raises IndexUnavailable when
        nothing is served.
        """
        with ExitStack() as held:
            opened = self._leased(held)
            while opened is None:
                self._wake()
                opened = self._leased(held)
            yield opened

    @property
    def is_open(self) -> bool:
        return self._served is not None

    @property
    def is_asleep(self) -> bool:
        """Whether nothing is open and the next `acquire` opens it."""
        return self._asleep

    @property
    def has_news(self) -> bool:
        """Whether `refresh` may find something: a generation never looked at, or one to be tried again."""
        try:
            return self._current is None or self.store.current_id() != self._current
        except CodeIntelError:
            return True

    @property
    def limits(self) -> tuple[Limit, ...]:
        """What callers do not get: an older generation is served, or the newest could not be opened."""
        with self._swap:
            return self._limits if self._failure is None else (*self._limits, _limit(self._failure))

    def sleep(self) -> bool:
        """Close what is open and leave it to the next `acquire` to open it again; return False when it is in use."""
        with self._swap:
            if self._served is None or self._served[0].is_leased:
                return False
            generation, _ = self._served
            self._served, self._asleep = None, True
        generation.close()
        return True

    def refresh(self) -> bool:
        """Serve the current generation if it is not served already; return whether it was swapped in.

        Hashes and opens, so call it off the request path, from a background poll. A generation that cannot be opened
        leaves the old one served and becomes a Limit; it is tried again unless it is corrupt or incompatible. With
        nothing served yet the nearest good older one is.
        """
        with self._refreshing:
            return self._refresh()

    def close(self) -> None:
        """Serve nothing from now on; running requests keep what they hold."""
        with self._refreshing:
            self._closed = True
            self._failure = IndexUnavailable(f"{self.store.repo} is closed.")
            self._exchange(None)

    def _leased(self, held: ExitStack) -> T | None:
        """Return what is served, leased until `held` ends, None when it sleeps."""
        with self._swap:
            if self._served is not None:
                generation, opened = self._served
                held.enter_context(generation.lease())
                return opened
            if not self._asleep:
                raise self._unavailable()
            return None

    def _wake(self) -> None:
        with self._refreshing:
            if self._asleep:
                self._refresh()

    def _refresh(self) -> bool:
        """REQUIRES: `_refreshing` is held."""
        if self._closed:
            return False
        current = None
        try:
            current = self.store.current_id()
            if current is not None and current == self._current and self._is_done():
                return False
            self._exchange(self._open(current))
        except CodeIntelError as error:
            refused = isinstance(error, IndexCorrupt | IndexIncompatible)
            self._current = current if refused else None
            self._failure, self._asleep = error, False
            return False
        self._current, self._failure = current, None
        return True

    def _is_done(self) -> bool:
        """Whether the generation last looked at needs no second look: it is served, or it was refused for good."""
        return self._served is not None or not self._asleep

    def _open(self, current: str | None) -> tuple[Generation, T]:
        if self._served is None or current is None:
            return self.store.open_best(self._opened)
        return self.store.open(current, self._opened)

    def _opened(self, generation: Generation) -> tuple[Generation, T]:
        opened = self._opener(generation)
        generation.on_close(opened.close)
        return generation, opened

    def _exchange(self, fresh: tuple[Generation, T] | None) -> None:
        with self._swap:
            old, self._served = self._served, fresh
            self._asleep = False
            if fresh is not None:
                self._limits = fresh[0].limits
        if old is not None:
            old[0].close()

    def _unavailable(self) -> IndexUnavailable:
        failure = self._failure
        return IndexUnavailable(failure.detail if failure else "nothing is served.", failure.hint if failure else "")


def _limit(error: CodeIntelError) -> Limit:
    return Limit(error.slug, "generation", f"the newest generation is not served: {error.detail}", error.hint)
