"""What a running build is doing, told through one small file that any process may read.

`<shard>/progress.json` is replaced as the build goes on and removed at its end. It is a courtesy, not a record: it is
believed only while somebody holds the builder's lock, which the OS frees at death, so a killed build never looks like a
running one. Its pid proves nothing: a restarted container gives the same ones out again.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from codeintel_rev.io.leases import FileLock
from codeintel_rev.types import BuildProgress

FILE = "progress.json"


def write_progress(directory: Path, progress: BuildProgress) -> None:
    """Tell readers of the shard at `directory` what its builder does. Not synced: it is of no use after a crash.

    REQUIRES: the builder's lock is held.
    """
    draft = directory / f"{FILE}.tmp"
    draft.write_text(json.dumps(asdict(progress)), encoding="utf-8")
    draft.replace(directory / FILE)


def clear_progress(directory: Path) -> None:
    (directory / FILE).unlink(missing_ok=True)


def read_progress(directory: Path) -> BuildProgress | None:
    """Return what the shard's builder does, None when nobody builds or says so."""
    try:
        progress = BuildProgress(**json.loads((directory / FILE).read_bytes()))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return progress if _is_building(directory) else None


def _is_building(directory: Path) -> bool:
    lock = FileLock.take(directory / "lock", exclusive=False)
    if lock is None:
        return (directory / "lock").exists()
    lock.release()
    return False
