"""`codeintel mcp`: be the server an agent starts for itself."""

from __future__ import annotations

from codeintel_rev.app.opening import open_index
from codeintel_rev.app.stdio import serve_stdio
from codeintel_rev.config.settings import load_settings


def mcp() -> None:
    """Serve over MCP on standard input and output."""
    serve_stdio(load_settings(), open_index)
