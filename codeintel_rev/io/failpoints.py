"""Named points at which a test may kill or break a build. Unarmed, a point costs one dictionary lookup.

Points are armed by code alone, never by a setting or a variable, so that no deployment can arm one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

_armed: dict[str, Callable[[], object]] = {}


def reach(name: str) -> None:
    """Run what is armed at `name`; do nothing when nothing is."""
    action = _armed.get(name)
    if action is not None:
        action()


@contextmanager
def armed(name: str, action: Callable[[], object]) -> Iterator[None]:
    """Run `action` whenever `name` is reached inside the block."""
    _armed[name] = action
    try:
        yield
    finally:
        del _armed[name]
