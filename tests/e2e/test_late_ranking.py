"""From a work tree to a ranking that token vectors took part in: nothing is faked, no network is asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from codeintel_rev.types import Scope
from tests import tiny_models
from tests.projects import Project, new_project

QUERY = "take money from a card"


@pytest.fixture
def project(tmp_path: Path, models_dir: Path) -> Project:
    return new_project(tmp_path, models_dir)


@pytest.mark.parametrize("save", [tiny_models.save_pylate, tiny_models.save_colbert])
def test_a_checkpoint_switches_it_on_by_itself(project: Project, tmp_path: Path, save: Callable[[Path], Path]) -> None:
    """A03, A29: one setting, and the next index has tokens that the ranking uses."""
    checkpoint = str(save(tmp_path / "checkpoint"))
    with_model = project.having(xtr={"model": checkpoint}, embedding={"provider": "none"})
    summary = with_model.build()
    assert summary.tokens_encoded == summary.counts["chunks"] == summary.counts["tokens"]
    result = with_model.search(QUERY)
    assert result.limits == ()
    assert result.notes[0].startswith("xtr_rescore:")
    assert {"xtr_rescore"} <= set(result.hits[0].contributions)


def test_the_embedded_model_takes_part_only_when_told(project: Project) -> None:
    """A22: off by default; A43: and off for one who asks."""
    plain = project.build()
    untouched = project.search(QUERY)
    told = project.having(xtr={"enable": True})
    summary = told.build()
    assert "tokens" not in plain.counts
    assert summary.counts["tokens"] == summary.counts["chunks"]
    assert untouched.notes == ()
    with told.opened() as opened:
        result = opened.searcher.search(QUERY, Scope(), 5, deadline_ms=60_000)
        (status,) = opened.searcher.status()
    assert result.notes[0].startswith("xtr_rescore:")
    assert status.tokens is not None
    assert status.tokens.documents == summary.counts["chunks"]
