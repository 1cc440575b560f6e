"""`codeintel watch`, and what `index --watch` goes on to do: follow work trees until told to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType

from codeintel_rev.cli.beside import compacting
from codeintel_rev.cli.places import check_data_dir
from codeintel_rev.config.settings import Settings, load_settings
from codeintel_rev.indexing.upkeep import Upkeep
from codeintel_rev.indexing.watch import Watch, updating
from codeintel_rev.io.registry import repository_directory, source_of
from codeintel_rev.observability.logs import configure_logs


def watch(repos: Sequence[str]) -> None:
    """Follow the work trees of `repos`, all registered ones when none is named. Raises NotFound."""
    settings = load_settings()
    configure_logs(settings.observability)
    check_data_dir(settings.paths.data_dir)
    for repo in repos:
        source_of(repository_directory(settings.paths.data_dir, repo))
    follow(repos, settings)


def follow(repos: Sequence[str], settings: Settings) -> None:
    """Keep the indexes current until SIGINT or SIGTERM; a build that is under way is given up then."""
    stop = threading.Event()

    def end(*_: int | FrameType | None) -> None:
        # Ctrl-C reaches a whole process group, and the server then ends its watcher too: once is enough.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        stop.set()
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    with suppress(KeyboardInterrupt):
        Watch(settings, repos, updating(settings), Upkeep(settings, compacting)).run(stop)
