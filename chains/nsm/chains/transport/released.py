"""Returns the memory of closed connections to the system: the allocators keep it for others otherwise."""

from __future__ import annotations

import asyncio
import gc
import sys
from time import monotonic
from typing import Protocol
from weakref import WeakSet

from nsm.chains.libc import malloc_trim

_MANY = 128
"""Ended connections, from which number on it is worth the effort."""
_QUIET, _LONGEST, _AGAIN = 1.0, 10.0, 5.0
"""Seconds without another end of a connection, unless there were that many; and at least until the next time."""


class Resting(Protocol):
    """Lives as long as the process, and keeps values about connections."""

    def rest(self) -> None:
        """Replace values of objects that are gone by constants, and empty dictionaries by new ones."""
        ...


class Released:
    """Counts the connections of this process that have ended, and returns the memory of many at once.

    A mebibyte of small objects is unmapped when all of it is free. Some objects that Python keeps would hold many:
    those for reuse, until a full collection, names of attributes that were looked up, and what `resting` objects hold:
    one time, kept as a number, is enough.
    """

    def __init__(self) -> None:
        self.resting: WeakSet[Resting] = WeakSet()
        self._ended, self._due = 0, 0.0
        self._was_just_done = False

    def ended(self) -> None:
        """One more has ended."""
        self._ended += 1
        now = monotonic()
        if self._ended >= _MANY and now > self._due:
            first = now + (_AGAIN if self._was_just_done else _QUIET)
            self._due = first + _LONGEST + 1.0  # later than that, the loop that had to do it has ended
            asyncio.get_running_loop().call_later(first - now, self._look, self._ended, first + _LONGEST)

    def _look(self, seen: int, last: float) -> None:
        if self._ended > seen and monotonic() < last:
            asyncio.get_running_loop().call_later(_QUIET, self._look, self._ended, last)
            return
        self._ended, self._due, self._was_just_done = 0, 0.0, True
        asyncio.get_running_loop().call_later(_AGAIN, self._may_again)  # the time itself would keep a mebibyte
        give_back()

    def _may_again(self) -> None:
        self._was_just_done = False


def give_back() -> None:
    """Return free memory, of Python's own allocator and, with glibc, of the C library's."""
    for each in RELEASED.resting:
        each.rest()
    _forget_names()
    gc.collect()
    malloc_trim()


_forget_names = getattr(sys, "_clear_type_cache", lambda: None)
RELEASED = Released()
"""The counter of this process."""
