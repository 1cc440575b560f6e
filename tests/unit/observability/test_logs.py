"""What is written to the log, and how."""

from __future__ import annotations

import json
import logging

import pytest
import structlog

from codeintel_rev.config.settings import ObservabilitySettings
from codeintel_rev.observability.logs import configure_logs, request_id


def test_every_line_is_json_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(ObservabilitySettings(log_format="json"))
    structlog.get_logger("ours").info("happened", count=3)
    logging.getLogger("theirs").warning("also %s", "this")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["logger"], line["event"], line["level"]) for line in lines] == [
        ("ours", "happened", "info"),
        ("theirs", "also this", "warning"),
    ]


def test_nothing_is_printed_twice_however_many_handlers_there_were(capsys: pytest.CaptureFixture[str]) -> None:
    """Trap T6: MCPServer installs a handler of its own on the root logger."""
    logging.getLogger().addHandler(logging.StreamHandler())
    configure_logs(ObservabilitySettings(log_format="json"))
    logging.getLogger("theirs").warning("once")
    told = capsys.readouterr()
    assert (told.err.count("once"), told.out) == (1, "")


def test_a_traceback_does_not_show_the_values_of_variables(capsys: pytest.CaptureFixture[str]) -> None:
    """S32: a local variable may hold a query."""
    configure_logs(ObservabilitySettings(log_format="console"))

    def fail() -> None:
        query = "canary-" + "9"
        raise RuntimeError(len(query))

    try:
        fail()
    except RuntimeError:
        structlog.get_logger("ours").exception("failed")
    told = capsys.readouterr().err
    assert "RuntimeError: 8" in told
    assert "canary-9" not in told


def test_the_level_is_kept_to(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(ObservabilitySettings(log_level="error"))
    structlog.get_logger("ours").warning("quiet")
    logging.getLogger("theirs").warning("quiet")
    assert capsys.readouterr().err == ""


def test_the_request_in_progress_is_named() -> None:
    with structlog.contextvars.bound_contextvars(request_id="r-1"):
        assert request_id() == "r-1"
    assert len(request_id()) == 36
