"""What a running build is doing, told through one small file that any process may read.

`<shard>/progress.json` is replaced as the build goes on and removed at its end. It is a courtesy, not a record: it is
believed only while its writer lives, so a killed build never looks like a running one.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

from codeintel_rev.types import BuildProgress

FILE = "progress.json"


def write_progress(directory: Path, progress: BuildProgress) -> None:
    """Tell readers of the shard at `directory` what its builder does. Not synced: it is of no use after a crash."""
    draft = directory / f"{FILE}.tmp"
    draft.write_text(json.dumps(asdict(progress)), encoding="utf-8")
    draft.replace(directory / FILE)


def clear_progress(directory: Path) -> None:
    (directory / FILE).unlink(missing_ok=True)


def read_progress(directory: Path) -> BuildProgress | None:
    """Return what the shard's builder does, None when no living process says that it builds."""
    try:
        progress = BuildProgress(**json.loads((directory / FILE).read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return progress if _is_alive(progress.pid) else None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
