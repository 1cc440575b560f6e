"""`indexctl tune`, and what `status` says afterwards, over a real index."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from codeintel_rev.cli import inspect, tuning
from codeintel_rev.eval import tune
from tests.indexed import Place, copied


@pytest.fixture
def place(corpus: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    own = copied(corpus, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CODEINTEL_PATHS__DATA_DIR", str(own.data_dir))
    monkeypatch.setenv("CODEINTEL_RETRIEVAL__CHANNEL_DEADLINE_MS", "60000")
    monkeypatch.setattr(tune, "CANDIDATES", (10,))
    (tmp_path / "mine.tsv").write_text("cart total\tshop/cart.py\napply a discount\tshop/discounts.py\n")
    return own


def told(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    """Return what was printed; logs that nobody configured are no part of it."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines() if line[0] in "[{"]


def test_the_choice_is_kept_and_shown(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tuning.tune("shop", tmp_path / "mine.tsv", qrels=None, k=10, dry_run=False, as_json=True)
    inspect.status(as_json=True)
    point, shards = told(capsys)
    shown = {shard["repo"]: shard.get("operating_point") for shard in shards}  # type: ignore[attr-defined]
    assert shown == {"shop": point, "org/ledger": None}
    assert (point["candidates"], point["questions"], point["probes"]) == (10, 2, [])
    inspect.status(as_json=False)
    assert "shop: 10 candidates were enough for 2 questions (ndcg@10 1.000" in capsys.readouterr().out


def test_a_dry_run_keeps_nothing(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tuning.tune("shop", tmp_path / "mine.tsv", qrels=None, k=10, dry_run=True, as_json=False)
    assert "CODEINTEL_RETRIEVAL__CANDIDATES=10 is enough for these 2 questions" in capsys.readouterr().out
    assert tune.read_point(place.directory("shop")) is None


def test_a_note_that_cannot_be_read_does_not_hide_the_status(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    (place.directory("shop") / tune.OPERATING_POINT).write_text("{")
    inspect.status(as_json=False)
    printed = capsys.readouterr()
    assert "shop" in printed.out
    assert "operating_point.json of shop is not readable" in printed.err
