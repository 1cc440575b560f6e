"""The work tree beside an index: do indexed lines still stand there as they were indexed?"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from codeintel_rev.errors import InvalidArgument, NotFound
from codeintel_rev.io.confined import read_beneath
from codeintel_rev.io.decode import decode, lines_of
from codeintel_rev.types import Freshness

MAX_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Worktree:
    """Where only the index is at hand (a copied shard), `root` cannot be entered and nothing can be told."""

    root: Path

    def freshness(self, path: str, start_line: int, text: str) -> Freshness:
        """Return whether `text` stands at `start_line` of `path` now. The file is read, so nothing is assumed."""
        if not os.access(self.root, os.R_OK | os.X_OK):
            return Freshness.UNKNOWN
        try:
            decoded = decode(read_beneath(self.root, path, MAX_BYTES))
        except NotFound:
            return Freshness.MISSING
        except InvalidArgument:
            return Freshness.EDITED
        wanted = text.split("\n")
        found = lines_of(decoded.text)[start_line - 1 : start_line - 1 + len(wanted)] if decoded else []
        return Freshness.FRESH if found == wanted else Freshness.EDITED

    def lines(self, path: str) -> tuple[str, ...] | None:
        """Return the lines of the file as they stand now, none of one that is gone; None where nothing can be told."""
        if not os.access(self.root, os.R_OK | os.X_OK):
            return None
        try:
            decoded = decode(read_beneath(self.root, path, MAX_BYTES))
        except (NotFound, InvalidArgument):
            return ()
        return tuple(lines_of(decoded.text)) if decoded else ()
