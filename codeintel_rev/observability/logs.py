"""One line a happening, to standard error: readable on a terminal, JSON elsewhere. Never query text, never code."""

from __future__ import annotations

import logging
import sys
import uuid

import structlog

from codeintel_rev.config.settings import ObservabilitySettings

SHARED: tuple[structlog.typing.Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)


def configure_logs(settings: ObservabilitySettings) -> None:
    """Send every log record, ours and the libraries', through one handler.

    To be called after MCPServer is built: it installs a handler of its own on the root logger, and every line would
    be printed twice. Standard output stays free: MCP over stdio speaks there.
    """
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=SHARED,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level.upper())
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def request_id() -> str:
    """Return the id of the request in progress, which every log line of it carries; a new one outside of any."""
    return str(structlog.contextvars.get_contextvars().get("request_id", uuid.uuid4()))
