"""The pace of repairs that are undone again and again: at once at first, then ever more slowly."""

from __future__ import annotations

AT_ONCE = 10
"""Consecutive repairs without a pause."""
CALM = 10.0
"""Seconds without a repair after which all is forgotten."""
_FIRST, _LONGEST = 0.5, 60.0


class Pace:
    """Counts the repairs of one thing; times are a clock's, in seconds."""

    __slots__ = ("_last", "_times")

    def __init__(self) -> None:
        self._times, self._last = 0, float("-inf")

    def repaired(self, now: float) -> None:
        """A repair was made."""
        self._times = 1 if self._is_calm(now) else self._times + 1
        self._last = now

    def wait(self, now: float) -> float:
        """Seconds to wait before the next repair."""
        return 0.0 if self._is_calm(now) else max(0.0, self._last + self._pause() - now)

    def is_slow(self, now: float) -> bool:
        """Whether there were so many repairs that they are no longer made at once."""
        return self._times >= AT_ONCE and not self._is_calm(now)

    def _is_calm(self, now: float) -> bool:
        return now - self._last > self._pause() + CALM

    def _pause(self) -> float:
        more = self._times - AT_ONCE
        return 0.0 if more < 0 else min(_FIRST * 2.0 ** min(more, 10), _LONGEST)
