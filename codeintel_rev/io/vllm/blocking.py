"""Waiting in a plain thread for what belongs to an event loop: one loop, in a thread of its own, for the process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")


def wait_for(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return what `coroutine` returns, run with the caller's context variables. Raises what it raises.

    Safe to call from many threads at once, and from none that runs an event loop: it would stand still.
    """
    return asyncio.run_coroutine_threadsafe(coroutine, _loop()).result()


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="vllm", daemon=True).start()
    return loop
