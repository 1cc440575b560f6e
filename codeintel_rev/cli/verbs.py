"""How every verb of the command line is reached and how it fails."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from codeintel_rev.errors import (
    BuildInProgress,
    CodeIntelError,
    IndexUnavailable,
    InvalidArgument,
    NotFound,
    SettingsError,
    StaleBuild,
)

EXIT_CODES: tuple[tuple[type[CodeIntelError], int], ...] = (
    (SettingsError, 2),
    (InvalidArgument, 2),
    (NotFound, 3),
    (IndexUnavailable, 3),
    (BuildInProgress, 4),
    (StaleBuild, 4),
    (CodeIntelError, 1),
)


class Verbs(TyperGroup):
    """Turns every error raised on purpose into a sentence on standard error and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except CodeIntelError as error:
            sys.stderr.write(f"{ctx.info_name}: {error}\n")
            code = next(code for kind, code in EXIT_CODES if isinstance(error, kind))
            raise typer.Exit(code) from error


def verb(module: str) -> Any:
    """Return the module of this package that does the work, imported now that it is asked for.

    Raises SettingsError first, before seconds are spent on importing what a broken setting would stop anyway. Logs tell
    only of trouble until a server or a builder configures its own: a person asked for an answer.
    """
    observability = importlib.import_module("codeintel_rev.config.settings").load_settings().observability
    if observability.log_level == "info":
        observability = observability.model_copy(update={"log_level": "warning"})
    importlib.import_module("codeintel_rev.observability.logs").configure_logs(observability)
    return importlib.import_module(f"codeintel_rev.cli.{module}")
