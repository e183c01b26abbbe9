"""A reference to a process that stays valid even if its id is reused."""

from __future__ import annotations

import os
import select
import weakref


class Process:
    """The process that has the id `pid` now, if any; held by a descriptor (pidfd)."""

    def __init__(self, pid: int) -> None:
        self._descriptor: int | None = None
        try:
            self._descriptor = os.pidfd_open(pid)
        except (OSError, OverflowError):
            return  # no such process
        weakref.finalize(self, os.close, self._descriptor)

    def is_alive(self) -> bool:
        """Whether it has not ended; until then, its id is not reused."""
        if self._descriptor is None:
            return False
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return not poll.poll(0)
