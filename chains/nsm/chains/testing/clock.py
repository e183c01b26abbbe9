"""Virtual time: an event loop whose clock jumps to the next timer when nothing else is to do."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any


class _JumpingSelector(selectors.SelectSelector):
    """Does not wait for a timer: moves the loop's clock there instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        """Look for ready files; if there are none, let time pass."""
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            return super().select(5)  # nothing is scheduled: only a file (another thread) can go on
        self.now += timeout
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """`loop.time()` is virtual and begins at 0; `asyncio.sleep(3600)` takes no time at all.

    With pytest-asyncio, return it from the hook `pytest_asyncio_loop_factories`.
    """

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Virtual seconds since the loop began."""
        return self._jumping.now
