"""`python -m codeintel_rev.cli.bound ARGUMENTS`: `codeintel ARGUMENTS`, ended when the process that started it is gone.

Standard input is a pipe that the starter holds and never writes to: it ends with the starter, also by SIGKILL.
"""

from __future__ import annotations

import os
import signal
import threading

from codeintel_rev.cli.main import app


def _end_with_starter() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_end_with_starter, name="bound", daemon=True).start()
    app()
