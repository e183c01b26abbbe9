"""Virtual time: an event loop whose clock jumps to the next timer when there is nothing else to do."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class _JumpingSelector(selectors.SelectSelector):
    """Advances the loop's clock instead of waiting for a timer."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        """Look for ready files; if there are none, advance the clock."""
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            return super().select(5)  # nothing is scheduled: wait for a file (another thread)
        self.now += timeout
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """`loop.time()` is virtual and begins at 0; `asyncio.sleep(3600)` returns at once.

    With pytest-asyncio, return it from the hook `pytest_asyncio_loop_factories`.
    """

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Virtual seconds since the loop began."""
        return self._jumping.now


@contextmanager
def wall_clock() -> Iterator[None]:
    """Make `time.time()` advance with the running loop's clock while the context is open.

    Tokens and certificates expire by the time of day, timers by the loop's clock: a test of both needs them in sync.
    """
    loop, real = asyncio.get_running_loop(), time.time
    offset = real() - loop.time()
    time.time = lambda: loop.time() + offset
    try:
        yield
    finally:
        time.time = real
