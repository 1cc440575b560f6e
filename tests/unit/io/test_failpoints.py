"""Failpoints act only where and while a test armed them."""

from __future__ import annotations

import pytest

from codeintel_rev.io.failpoints import armed, reach


def test_an_armed_point_acts_until_the_block_ends() -> None:
    reached: list[str] = []
    with pytest.raises(ZeroDivisionError), armed("here", lambda: reached.append("here")):
        reach("here")
        reach("there")
        raise ZeroDivisionError
    reach("here")
    assert reached == ["here"]
