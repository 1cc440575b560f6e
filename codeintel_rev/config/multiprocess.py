"""Where the worker processes of one server keep the metrics they share.

`prometheus_client` reads one environment variable, on import and in every worker, so it is set here and nowhere else.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def share_metrics(folder: Path) -> None:
    """Empty `folder` and make child processes keep their metrics in it.

    It is emptied before the first worker starts: counts left by an earlier server would be added to this one's.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ[VARIABLE] = str(folder)


def shares_metrics() -> bool:
    """Whether this process is one of several that share their metrics."""
    return bool(os.environ.get(VARIABLE))
