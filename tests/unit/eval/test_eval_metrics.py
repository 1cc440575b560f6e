"""What a run is worth, and whether another is worth less."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from codeintel_rev.errors import InvalidArgument
from codeintel_rev.eval.bootstrap import paired
from codeintel_rev.eval.metrics import LAST_LINE, Place, files_once, means, score

GOLDEN = json.loads((Path(__file__).parents[2] / "golden/eval_scores.json").read_text())
RENAMED = {"hit@1": "acc@1", "hit@5": "acc@5", "hit@10": "acc@10"}


def places(rows: list[tuple[str, int | None, int | None]]) -> list[Place]:
    return [Place(path, start or 0, end or LAST_LINE) for path, start, end in rows]


@pytest.mark.parametrize("view", ["chunks", "files"])
def test_figures_are_those_of_an_independent_scorer(view: str) -> None:
    rows = [(places(row["hits"]), places(row["judged"])) for row in GOLDEN["questions"]]
    found = means([score(hits if view == "chunks" else files_once(hits), judged, 10) for hits, judged in rows])
    assert {RENAMED.get(name, name): value for name, value in found.items()} == pytest.approx(
        GOLDEN["figures"][view], abs=1e-4
    )


def test_a_hit_behind_k_does_not_count() -> None:
    hits = [Place("a.py"), Place("b.py")]
    assert [score(hits, [Place("b.py")], k).mrr for k in (1, 2)] == [0.0, 0.5]


def test_a_question_without_a_judgement_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="judgement"):
        score([Place("a.py")], [], 10)


def test_a_plain_loss_is_a_loss() -> None:
    assert paired([-0.5, -0.4, -0.6] * 10).is_loss
    assert not paired([0.5, -0.4, -0.1] * 10).is_loss
    assert not paired([0.0] * 30).is_loss


def test_the_interval_is_the_same_for_the_same_and_about_two_standard_errors() -> None:
    values = np.random.default_rng(3).normal(0.1, 1.0, 400)
    found = paired(values)
    assert found == paired(values)
    assert found.half == pytest.approx(1.96 * values.std() / 20, rel=0.05)
