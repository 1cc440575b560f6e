"""Settings of the server that decide who may reach it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from codeintel_rev.config.multiprocess import VARIABLE, share_metrics, shares_metrics
from codeintel_rev.config.settings import ServerSettings, load_settings


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_loopback_needs_no_list_of_hosts(host: str) -> None:
    """S01."""
    assert ServerSettings(host=host).host == host


def test_another_host_may_be_bound_once_its_names_are_listed() -> None:
    """S01."""
    assert ServerSettings(host="0.0.0.0", allowed_hosts=("code.example",)).host == "0.0.0.0"


@pytest.mark.parametrize("given", ["a.example,b.example", " a.example , b.example", '["a.example", "b.example"]'])
def test_a_list_in_a_variable_is_json_or_separated_by_commas(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap T24."""
    monkeypatch.setenv("CODEINTEL_SERVER__ALLOWED_HOSTS", given)
    assert load_settings().server.allowed_hosts == ("a.example", "b.example")


def test_sharing_metrics_empties_their_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap T7 c: counts of an earlier server would be added to this one's."""
    monkeypatch.setenv(VARIABLE, "")
    folder = tmp_path / "metrics"
    folder.mkdir()
    (folder / "counter_1.db").touch()
    share_metrics(folder)
    assert list(folder.iterdir()) == []
    assert (os.environ[VARIABLE], shares_metrics()) == (str(folder), True)
