"""The events of the last hours, as many as fit."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from datetime import datetime, timedelta

from .model import Cause, Event, EventKind


class History:
    """Events, oldest first: at most `most`, and none older than `seconds`."""

    def __init__(self, now: Callable[[], datetime], *, most: int = 20_000, seconds: float = 21_600.0) -> None:
        self._now, self._lifetime = now, timedelta(seconds=seconds)
        self._events: deque[Event] = deque(maxlen=most)
        self._last = 0
        self.counts: Counter[EventKind] = Counter()
        """How many there were of each kind."""

    def __len__(self) -> int:
        return len(self._events)

    def add(
        self, kind: EventKind, sentence: str, *, wire: str = "", component: str = "", cause: Cause | None = None
    ) -> Event:
        """Note what occurs now."""
        self._last += 1
        self.counts[kind] += 1
        event = Event(
            number=self._last,
            at=self._now(),
            kind=kind,
            sentence=sentence,
            wire=wire,
            component=component,
            cause=cause,
        )
        self._events.append(event)
        self._drop_old()
        return event

    def events(self, wire: str = "", *, after: int = 0, most: int | None = None) -> list[Event]:
        """Those behind the number `after`; of one wire if its id is given; the latest `most`."""
        self._drop_old()
        found = [each for each in self._events if each.number > after and (not wire or each.wire == wire)]
        return found if most is None else found[max(0, len(found) - most) :]

    def _drop_old(self) -> None:
        oldest = self._now() - self._lifetime
        while self._events and self._events[0].at < oldest:
            self._events.popleft()
