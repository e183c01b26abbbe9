"""Memory of connections that are gone, given back to the system: the allocators keep it for others otherwise."""

from __future__ import annotations

import asyncio
import gc
import sys
from time import monotonic

from nsm.chains.libc import malloc_trim

_MANY = 128
"""Connections that end, until it is worth the while."""
_QUIET, _LONGEST, _AGAIN = 1.0, 10.0, 5.0
"""Seconds without another end of a connection, unless it has been so many; and until the next time at least."""


class Released:
    """Counts the connections of this process that have ended, and gives back the memory of many at once.

    A mebibyte of small objects is unmapped when all of it is free. Some that Python keeps would hold many: used objects
    for the next ones, until a full collection, and names of attributes that were looked up.
    """

    def __init__(self) -> None:
        self._ended, self._next, self._due = 0, 0.0, 0.0

    def ended(self) -> None:
        """One more has ended."""
        self._ended += 1
        now = monotonic()
        if self._ended >= _MANY and now > self._due:
            first = max(now + _QUIET, self._next)
            self._due = first + _LONGEST + 1.0  # later than that the loop ended that was to do it
            asyncio.get_running_loop().call_later(first - now, self._look, self._ended, first + _LONGEST)

    def _look(self, seen: int, last: float) -> None:
        if self._ended > seen and monotonic() < last:
            asyncio.get_running_loop().call_later(_QUIET, self._look, self._ended, last)
            return
        self._ended, self._due, self._next = 0, 0.0, monotonic() + _AGAIN
        give_back()


def give_back() -> None:
    """Give back what is free, of Python's own and, where that is glibc, of the C library's."""
    _forget_names()
    gc.collect()
    malloc_trim()


_forget_names = getattr(sys, "_clear_type_cache", lambda: None)
RELEASED = Released()
"""Of this process."""
