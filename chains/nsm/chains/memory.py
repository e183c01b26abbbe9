"""Memory that was needed for a moment is given back: the C library keeps what was freed between things that stay.

After many calls at once a component would be as large as it was then for as long as it lives, since what stays lies
among what went. So it looks now and then how large it has become, and has the free pages in between given back.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from time import monotonic

from . import libc

INTERVAL = 5.0
"""Seconds from one look to the next; it takes some microseconds."""
MUCH = 4 * 1024 * 1024
"""Bytes by which a component has to have grown before anything is done; to give pages back takes milliseconds."""
_LONGEST_PAUSE = 300.0
_STATM = Path("/proc/self/statm")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    """Bytes of memory that this process has. Raises OSError where that cannot be read."""
    return int(_STATM.read_bytes().split()[1]) * _PAGE


class Trimmer:
    """Gives free pages back after the process has grown, and less and less often if that does not help."""

    def __init__(self) -> None:
        self._least = self._last = resident()
        self._pause, self._not_before = INTERVAL, 0.0

    def look(self) -> None:
        """Give free pages back if it is time for that."""
        before, now = resident(), monotonic()
        has_grown = before > self._last + MUCH
        if before < self._least + MUCH or not (has_grown or now >= self._not_before):
            return
        libc.malloc_trim()
        self._last = resident()
        self._least = min(self._least, self._last)
        is_of_use = has_grown or before - self._last > MUCH // 4
        self._pause = INTERVAL if is_of_use else min(2 * self._pause, _LONGEST_PAUSE)
        self._not_before = now + self._pause


async def give_back() -> None:
    """Look again and again until cancelled; returns at once where the size cannot be read."""
    with suppress(OSError):
        trimmer = Trimmer()
        while True:
            await asyncio.sleep(INTERVAL)
            trimmer.look()
