"""A process that stays the same one, whoever has its number later."""

from __future__ import annotations

import os
import select
import weakref


class Process:
    """The process that has the id `pid` now, if there is one; held by a descriptor (pidfd), as long as this lives."""

    def __init__(self, pid: int) -> None:
        self._descriptor: int | None = None
        try:
            self._descriptor = os.pidfd_open(pid)
        except (OSError, OverflowError):
            return  # there is none
        weakref.finalize(self, os.close, self._descriptor)

    def is_alive(self) -> bool:
        """Whether it has not ended: as long as it has not, its id is nobody else's."""
        if self._descriptor is None:
            return False
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return not poll.poll(0)
