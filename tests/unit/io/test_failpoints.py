"""Failpoints act only where and while a test armed them."""

from __future__ import annotations

import pytest

from codeintel_rev.io.failpoints import armed, reach


def test_an_armed_point_acts_until_the_block_ends() -> None:
    reached: list[str] = []
    with armed("here", lambda: reached.append("here")):
        reach("here")
        reach("there")
    reach("here")
    assert reached == ["here"]


def test_a_block_that_fails_disarms_its_point() -> None:
    with pytest.raises(ZeroDivisionError), armed("here", lambda: 1 / 0):
        reach("here")
    reach("here")
