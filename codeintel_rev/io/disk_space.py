"""May a build begin? Not with less free space than the low mark, and then not before there is the higher one again.

Between the marks it depends on where the disk comes from, which one file tells, so that builds which start and end on
their own agree. What is published is served all the same.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from codeintel_rev.config.settings import IndexSettings
from codeintel_rev.errors import InsufficientStorage
from codeintel_rev.io.durable import os_errors_mapped
from codeintel_rev.types import Limit

MARKER = "disk-low"
"""In `data_dir` from the first refusal until there is space enough."""
STAGE = "build"

_MIB = 1024 * 1024


def check_space(data_dir: Path, settings: IndexSettings) -> None:
    """Return when a build may begin below `data_dir`, a folder. Raises InsufficientStorage with what is free and
    needed, StorageFailed."""
    marker = data_dir / MARKER
    lacking = _lacking(data_dir, settings)
    if lacking is None:
        with os_errors_mapped("remove", marker):
            marker.unlink(missing_ok=True)
        return
    # There may be no space even for a name: then it is refused anyway, for as long as that is so.
    with suppress(OSError):
        marker.touch()
    raise lacking


def shortage(data_dir: Path, settings: IndexSettings) -> Limit | None:
    """Return why no build may begin now, None when one may. Changes nothing."""
    lacking = _lacking(data_dir, settings) if data_dir.is_dir() else None
    return Limit("disk-low", STAGE, lacking.detail, lacking.hint) if lacking else None


def _lacking(data_dir: Path, settings: IndexSettings) -> InsufficientStorage | None:
    with os_errors_mapped("ask for free space of", data_dir):
        free = shutil.disk_usage(data_dir).free // _MIB
    needed = settings.disk_resume_mb if (data_dir / MARKER).exists() else settings.disk_low_mb
    if free >= needed:
        return None
    return InsufficientStorage(
        f"{free} MiB of disk are free, builds begin at {settings.disk_resume_mb} MiB.",
        "Free space (`indexctl gc NAME --keep 1` drops old generations), or set index.disk_low_mb.",
    )
