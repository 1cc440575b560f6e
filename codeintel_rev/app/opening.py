"""Opens what is published below `data_dir`, and keeps it up to date while the process runs."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from codeintel_rev.answer.library import OpenedLibrary
from codeintel_rev.app.context import Opened
from codeintel_rev.config.settings import Settings
from codeintel_rev.encoders.dense import open_encoder
from codeintel_rev.io.registry import published
from codeintel_rev.navigation.opened import OpenedNavigator
from codeintel_rev.retrieval.options import AS_SET, Options
from codeintel_rev.retrieval.searcher import NONE
from codeintel_rev.retrieval.shards import Shards
from codeintel_rev.types import Scope, SearchResult, ShardStatus

LOOK_S = 0.25
"""Between two looks at whether anything was published: a stat a repository. A saved file waits for it."""


def open_index(settings: Settings) -> Opened:
    """Return the searcher and navigator of every repository indexed below `settings.paths.data_dir`.

    What was not asked for yet is verified, and what is published later swapped in, by a background thread until the
    searcher is closed. Raises EncoderFailed, SettingsError.
    """
    encoder = open_encoder(settings.embedding, settings.paths.data_dir / "models", settings.vllm.embed)
    shards = Shards(settings.paths.data_dir, encoder, settings)
    navigator = OpenedNavigator(shards, settings.limits.max_lines, settings.retrieval.request_deadline_ms / 1000)
    return Opened(_Refreshed(shards, settings.paths.data_dir, settings.server.poll_s), navigator, OpenedLibrary(shards))


@dataclass(slots=True)
class _Refreshed:
    """Shards with a thread that opens what is published, and tries again every `poll_s` seconds what it could not."""

    shards: Shards
    data_dir: Path
    poll_s: float
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._poll, name="refresh", daemon=True)
        self._thread.start()

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
        return self.shards.search(query, scope, limit, deadline_ms=deadline_ms, explained=explained, options=options)

    def status(self) -> tuple[ShardStatus, ...]:
        return self.shards.status()

    def close(self) -> None:
        self._stop.set()
        self.shards.close()
        self._thread.join()

    def _poll(self) -> None:
        seen: dict[str, tuple[int, int]] = {}
        refreshed = time.monotonic()
        while not self._stop.wait(min(LOOK_S, self.poll_s)):
            found = published(self.data_dir)
            if found != seen or time.monotonic() - refreshed >= self.poll_s:
                self.shards.refresh()
                seen, refreshed = found, time.monotonic()
