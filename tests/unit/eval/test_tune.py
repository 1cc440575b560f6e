"""Which number is enough, and how the choice is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from codeintel_rev.errors import IndexCorrupt
from codeintel_rev.eval.metrics import Score
from codeintel_rev.eval.queries import Query
from codeintel_rev.eval.run import Answer
from codeintel_rev.eval.tune import (
    CANDIDATES,
    OPERATING_POINT,
    OperatingPoint,
    Point,
    ProbePoint,
    enough_probes,
    read_point,
    sweep,
    write_point,
)


def measured(lost: dict[int, int], questions: int) -> Callable[[int], list[Answer]]:
    """Return a measurement in which so many questions are lost with so many candidates."""

    def answer(number: int, missed: int) -> Answer:
        score = Score((None,) if number < missed else (1,), 10)
        return Answer(Query(str(number), "a", "", ()), (), 2.0, 1.0, score, (), "01")

    return lambda candidates: [answer(number, lost.get(candidates, 0)) for number in range(questions)]


def test_the_fewest_that_lose_nothing_are_enough() -> None:
    chosen, points = sweep(measured({20: 40}, 400), in_use=60)
    assert chosen == 40
    assert [point.candidates for point in points] == list(CANDIDATES)
    assert (points[0].ndcg, points[1].p50_ms) == (pytest.approx(0.9), 1.0)


def test_what_is_in_use_is_measured_too() -> None:
    assert 75 in {point.candidates for point in sweep(measured({}, 5), in_use=75)[1]}


def test_few_questions_do_not_show_that_little_is_lost() -> None:
    """One of 400 is less than the margin; one of 20 may be a twentieth."""
    assert [sweep(measured({20: 1}, questions), in_use=60)[0] for questions in (400, 20)] == [20, 40]


def test_the_fewest_lists_with_enough_recall_are_chosen() -> None:
    points = [ProbePoint(nprobe, recall, 1.0) for nprobe, recall in ((4, 0.8), (8, 0.96), (16, 0.99))]
    assert enough_probes(points) == 8
    assert enough_probes(points[:1]) is None


def test_what_is_kept_is_read_again(tmp_path: Path) -> None:
    point = OperatingPoint("01", 9, 10, 40, 8, (Point(40, 0.9, 1.0, 2.0),), (ProbePoint(8, 0.96, 0.1),))
    assert read_point(tmp_path) is None
    write_point(tmp_path, point)
    assert read_point(tmp_path) == point
    assert point.chosen.ndcg == 0.9
    (tmp_path / OPERATING_POINT).write_text('{"candidates": 40}')
    with pytest.raises(IndexCorrupt, match="Tune again"):
        read_point(tmp_path)
