"""How long to wait before trying again."""

from __future__ import annotations

import random


class Backoff:
    """Seconds that double from `first` to `most`, each longer by up to a fifth so that many do not come at once."""

    def __init__(self, first: float = 0.1, most: float = 10.0) -> None:
        self._first, self._most = first, most
        self._next = first

    def next(self) -> float:
        """How long to wait this time."""
        wait, self._next = self._next, min(2 * self._next, self._most)
        return wait * random.uniform(1.0, 1.2)  # noqa: S311 - no secret

    def reset(self) -> None:
        """Begin anew: it worked for a while."""
        self._next = self._first
