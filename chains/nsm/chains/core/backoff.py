"""Pauses between attempts."""

from __future__ import annotations

import random

_JITTER = 0.2


class Backoff:
    """Seconds that grow by `factor` from `first` to `most`, each longer by up to a fifth.

    The fifth is random, so that many clients of one lost peer do not return at once.
    """

    __slots__ = ("_factor", "_first", "_most", "_next")

    def __init__(self, first: float = 0.1, most: float = 10.0, *, factor: float = 2.0) -> None:
        self._first, self._most, self._factor = first, most, factor
        self._next = first

    def next(self) -> float:
        """The pause before the next attempt, in seconds with three digits after the point, as logs show them."""
        wait, self._next = self._next, min(self._factor * self._next, self._most)
        return round(wait * random.uniform(1.0, 1.0 + _JITTER), 3)  # noqa: S311 - no secret

    def reset(self) -> None:
        """Start again at `first`, after an attempt has succeeded."""
        self._next = self._first
