"""Run the web application under Hypercorn, in worker processes."""

from __future__ import annotations

import errno
import logging
import tempfile
from multiprocessing import active_children
from pathlib import Path

from hypercorn.config import Config
from hypercorn.run import run

from codeintel_rev.config.multiprocess import share_metrics
from codeintel_rev.config.settings import Settings
from codeintel_rev.errors import SettingsError
from codeintel_rev.observability.logs import configure_logs

APPLICATION = "codeintel_rev.app.asgi:app"
STARTUP_TIMEOUT_S = 600.0
"""A worker verifies every byte of a generation before it serves it."""


def serve(settings: Settings, *, application: str = APPLICATION) -> int:
    """Serve until SIGTERM or SIGINT and return the exit code. Workers read the settings again, for themselves.

    Raises SettingsError when the address cannot be bound.
    """
    server = settings.server
    configure_logs(settings.observability)
    # A fresh folder for each run: counts left by an earlier one would be added to this one's.
    with tempfile.TemporaryDirectory(prefix="codeintel-metrics-") as folder:
        share_metrics(Path(folder))
        try:
            return run(hypercorn_config(settings, application))
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL):
                raise
            raise SettingsError(
                f"setting server.port: {server.host}:{server.port} cannot be bound, {error.strerror}.",
                "Stop what listens there or set CODEINTEL_SERVER__PORT.",
            ) from error
        finally:
            # Hypercorn leaves while busy workers still end their requests; those count in the folder.
            for worker in active_children():
                worker.join()


def hypercorn_config(settings: Settings, application: str) -> Config:
    """Return Hypercorn's configuration for these settings."""
    server = settings.server
    host = f"[{server.host}]" if ":" in server.host else server.host
    config = Config()
    config.application_path = application
    config.bind = [f"{host}:{port}" for port in (server.port, server.ops_port) if port is not None]
    config.workers = server.workers
    config.graceful_timeout = server.graceful_timeout_s
    config.shutdown_timeout = server.graceful_timeout_s
    config.startup_timeout = STARTUP_TIMEOUT_S
    config.errorlog = logging.getLogger("hypercorn.error")
    config.include_server_header = False
    # Daemonic processes may not have children, and an encoder may want some.
    config.daemon = False
    return config
