"""Builds a repository and dies without a word: `python killed_build.py ROOT DATA_DIR MOMENT`.

MOMENT is a number, of the progress reports that may be made before the kill, or the name of a failpoint with `:` and
how many times it may be passed.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from projects import Project

from codeintel_rev.indexing import build as build_module
from codeintel_rev.indexing import progress, token_stage, vector_stage
from codeintel_rev.io.failpoints import armed

CHECKPOINT = 4


def killed_build(project: Project, moment: str, **variables: str) -> None:
    """Build in a process that has these environment variables too and dies at `moment`."""
    tests = Path(__file__).parent
    command = (sys.executable, __file__, str(project.root), str(project.data_dir), moment)
    path = os.pathsep.join(map(str, (tests, tests.parent)))
    died = subprocess.run(command, env={**os.environ, **variables, "PYTHONPATH": path}, check=False, timeout=60)
    assert died.returncode == -signal.SIGKILL, moment


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dying_after(times: int) -> Callable[..., None]:
    passed = itertools.count()
    return lambda *_: die() if next(passed) == times else None


def main(root: str, data_dir: str, moment: str) -> None:
    progress._INTERVAL_S = 0.0  # every report, so that a number always means the same moment
    vector_stage.CHECKPOINT = build_module.CHECKPOINT = token_stage.PART = CHECKPOINT
    project = Project(Path(root), Path(data_dir), {"index": {"publish_every_s": 1e-9}, "embedding": {"threads": 1}})
    name, _, times = moment.rpartition(":")
    if name:
        with armed(name, dying_after(int(times))):
            project.build()
    else:
        project.build(dying_after(int(times)))


if __name__ == "__main__":
    main(*sys.argv[1:])
