"""The stream of changes: each has a position at which a reader that was away can continue."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from .model import Change, ChangeKind, Snapshot

_KEPT = 8_192
_POSITION = re.compile(r"([0-9a-f]{8})-([0-9]{1,15})")


class Stream:
    """The latest changes, which any number of readers follow at their own pace.

    A reader that is so slow that changes were dropped receives a snapshot instead, as one does that begins, or whose
    position is from before a restart. `snapshot` makes one for a position.
    """

    def __init__(self, snapshot: Callable[[str], Snapshot], *, kept: int = _KEPT) -> None:
        self._snapshot = snapshot
        self._epoch = secrets.token_hex(4)
        self._kept: deque[Change] = deque(maxlen=kept)
        self._last = 0
        self._waiting: set[asyncio.Event] = set()

    @property
    def position(self) -> str:
        """Behind the latest change."""
        return f"{self._epoch}-{self._last}"

    @property
    def readers(self) -> int:
        """How many follow it."""
        return len(self._waiting)

    def publish(self, change: Change) -> None:
        """Add a change, at the next position."""
        self._last += 1
        self._kept.append(replace(change, position=self.position))
        for event in self._waiting:
            event.set()

    async def follow(self, position: str = "") -> AsyncIterator[Change]:
        """All changes behind `position`, endlessly; first a snapshot, unless all changes since then are known."""
        news = asyncio.Event()
        self._waiting.add(news)
        try:
            place = self._place(position)
            while True:
                news.clear()
                if place is None or place < self._last - len(self._kept):
                    place = self._last
                    whole = self._snapshot(self.position)
                    yield Change(kind=ChangeKind.SNAPSHOT, position=whole.position, snapshot=whole)
                while (change := self._behind(place)) is not None:
                    place += 1
                    yield change
                if place >= self._last - len(self._kept):
                    await news.wait()
        finally:
            self._waiting.discard(news)

    def _place(self, position: str) -> int | None:
        found = _POSITION.fullmatch(position)
        if found is None or found[1] != self._epoch or int(found[2]) > self._last:
            return None
        return int(found[2])

    def _behind(self, place: int) -> Change | None:
        index = place - (self._last - len(self._kept))
        return self._kept[index] if 0 <= index < len(self._kept) else None
