"""Peers take turns: each has a share of this component, over all of its connections.

Three things are shared. *Frames*: one peer's are handled for a moment, then another's, and the loop does its other
work in between. *Calls*: some of each peer's are started at once, and some of all peers' together; the rest waits,
each peer's in the order of arrival, one peer after the other. A call that takes long, because the next component is
slow, does not hold up those behind it for longer than `HELD`. When too many calls are here, a peer with more than its
share of them has to try again later. *News*: of a peer's streams that have events to send, one does each time the
loop runs; one change may concern all of a thousand.

For a peer that does not read its answers, beyond `MOST_UNREAD` bytes, work stops until it does.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any, Final, TypeVar

from nsm.chains.core import Presence, counts

from .released import RELEASED

T = TypeVar("T")

HELD = 0.25
"""Seconds for which a running call holds its place against waiting ones."""
MOST_UNREAD = 2**20
"""Bytes of answers to one peer that may wait to be sent."""
_LONG = 0.001
"""Seconds of reading after which a peer lets others read for as long."""
_PART_FOR_READING = 1 / 8
"""The part of the time that waiting frames get beside other work, if there is so much of it."""


NOTHING: Final[deque[Any]] = deque()
"""An empty queue of all who have never had to queue: a queue takes 768 bytes."""


def appended(queue: deque[T], item: T) -> deque[T]:
    """`queue` with one more item; a new one in place of `NOTHING`."""
    if queue is NOTHING:
        return deque((item,))
    queue.append(item)
    return queue


class Turns:
    """The shares of all peers of one component; `presence` receives their identities."""

    def __init__(self, *, calls: int, work: int = 0, here: int = 0, presence: Presence | None = None) -> None:
        """`calls` of one peer and `work` of all are started at once, and `here` of all are accepted; 0: no limit."""
        self.calls, self.work, self.here = calls, work or sys.maxsize, here or sys.maxsize
        self._presence = presence or Presence()
        self.taken = self.running = 0
        """Current calls with an end of their own, and how many of all calls hold a place."""
        self._waiting = 0
        self._hungry: dict[Share, None] = {}
        """Shares with calls that only wait for a place, in the order of their turns."""
        self._places: dict[Place, None] = {}
        """Held places, the oldest first."""
        self._timer: asyncio.TimerHandle | None = None
        self._shares: dict[str, Share] = {}
        self._readers: deque[Share] = deque()
        self._is_reading, self._waits_since = False, 0.0
        RELEASED.resting.add(self)

    def rest(self) -> None:
        """Keep nothing about peers that have left."""
        if not self._is_reading:
            self._waits_since = 0.0
        for each in (self._hungry, self._places, self._shares):
            if not each:
                each.clear()  # the memory of an emptied dictionary stays otherwise

    def share(self, who: str) -> Share:
        """The share of `who`, which has one more connection now."""
        share = self._shares.get(who)
        if share is None:
            share = self._shares[who] = Share(self, who)
        share.connections += 1
        self._presence.arrived(who)
        return share

    def leave(self, share: Share) -> None:
        """One connection of a share has ended."""
        share.connections -= 1
        self._presence.left(share.who)
        if not share.connections:
            self._shares.pop(share.who, None)

    # --- calls

    def is_full_for(self, share: Share) -> bool:
        """Whether there are more calls than are accepted, and this peer has more than its share of them."""
        return self.taken >= self.here and (
            share.taken >= self.here // max(1, len(self._shares)) or self.taken >= 2 * self.here
        )

    def take(self, share: Share, by: int) -> None:
        """One call with an end of its own arrived (1), or ended (-1)."""
        share.taken += by
        self.taken += by

    def wait(self, by: int) -> None:
        """One more call waits (1), or one less (-1)."""
        counts.QUEUED.add(by=by)
        self._waiting += by
        if self._timer is None:
            self._wait_for_oldest()

    def is_hungry(self, share: Share) -> None:
        """A call of `share` only waits for a place."""
        self._hungry.setdefault(share)

    def hold(self, place: Place) -> None:
        """A call took a place."""
        self.running += 1
        self._places[place] = None

    def give_up(self, place: Place) -> None:
        """A place is free: the next call starts."""
        self.running -= 1
        del self._places[place]
        self.go_round()

    def go_round(self) -> None:
        """Start as many calls as possible, one of each peer after one of another."""
        while self._hungry and self.running < self.work:
            share = next(iter(self._hungry))
            del self._hungry[share]
            if share.start_next() and share.is_hungry:
                self._hungry[share] = None
        if self._timer is not None and not self._waiting:
            self._timer.cancel()
            self._timer = None

    def _wait_for_oldest(self) -> None:
        self._timer = None
        if self._waiting and self._places:
            delay = next(iter(self._places)).since + HELD - monotonic()
            self._timer = asyncio.get_running_loop().call_later(max(delay, 0.0), self._let_others)

    def _let_others(self) -> None:
        """Release places that were held for long enough."""
        self._timer, long_ago = None, monotonic() - HELD + 0.001
        while self._waiting and self._places and (oldest := next(iter(self._places))).since <= long_ago:
            oldest.leave()
        if self._timer is None:
            self._wait_for_oldest()

    # --- frames

    def read_later(self, share: Share) -> None:
        """Let `share` read when it is its turn."""
        self._readers.append(share)
        self._go_on()

    def _go_on(self) -> None:
        if self._readers and not self._is_reading:
            self._is_reading, self._waits_since = True, monotonic()
            asyncio.get_running_loop().call_soon(self._read)

    def _read(self) -> None:
        """Let the first peer read once, and others after it: then the loop does its other work.

        If that takes long, so does a round of the loop, and a peer would wait for as many rounds as there are others.
        """
        begun = monotonic()
        until, self._is_reading = begun + (begun - self._waits_since) * _PART_FOR_READING, False
        try:
            for _ in range(len(self._readers)):
                share = self._readers.popleft()
                if len(share.readers) > 1:
                    self._readers.append(share)
                share.readers.popleft()()
                if monotonic() >= until:
                    break
        finally:
            self._go_on()


class Share:
    """One peer's share of a component."""

    __slots__ = (
        "_busy_until",
        "_is_telling",
        "_news",
        "_running",
        "_turns",
        "_waiting",
        "calls",
        "connections",
        "held_bytes",
        "readers",
        "taken",
        "unread",
        "who",
    )

    def __init__(self, turns: Turns, who: str) -> None:
        self.who, self.connections, self.calls, self.held_bytes, self.unread = who, 0, 0, 0, 0
        self.taken = 0
        """The number of `calls` with an end of their own."""
        self.readers: deque[Callable[[], None]] = NOTHING
        self._turns, self._busy_until = turns, 0.0
        self._waiting: deque[Callable[[Place], bool]] = NOTHING
        self._running = 0
        self._news: deque[asyncio.Future[None]] = NOTHING
        self._is_telling = False

    # --- frames

    def may_read(self) -> bool:
        """Whether frames that have just arrived may be handled now."""
        return not self.readers and monotonic() >= self._busy_until

    def has_read(self, begun: float) -> None:
        """Frames were handled since `begun` (`time.monotonic`)."""
        now = monotonic()
        if now - begun > _LONG:
            self._busy_until = now + (now - begun)

    def read_later(self, read: Callable[[], None]) -> None:
        """Call `read` when it is this peer's turn."""
        self.readers = appended(self.readers, read)
        if len(self.readers) == 1:
            self._turns.read_later(self)

    # --- news

    async def turn_to_tell(self) -> None:
        """Return when a stream of this peer may write its events: at once, unless another of its streams does so."""
        if self._is_telling or self._news or self.unread >= MOST_UNREAD:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._news = appended(self._news, turn)
            await turn
        else:
            self._is_telling = True
            asyncio.get_running_loop().call_soon(self._tell_on)

    def _tell_on(self) -> None:
        while self._news and self.unread < MOST_UNREAD:
            if not (turn := self._news.popleft()).done():
                turn.set_result(None)
                asyncio.get_running_loop().call_soon(self._tell_on)
                return
        self._is_telling = False

    # --- answers

    def has_written(self, size: int) -> None:
        """That much of `unread` was sent, or need not be."""
        self.unread -= size
        if self.unread < MOST_UNREAD:
            if self.is_hungry:
                self._turns.is_hungry(self)
                self._turns.go_round()
            if self._news and not self._is_telling:
                self._is_telling = True
                asyncio.get_running_loop().call_soon(self._tell_on)

    # --- calls

    def begin(self, start: Callable[[Place], bool]) -> None:
        """Call `start` now or in turn, with the place that the call has then; it returns whether the call exists."""
        if not self._waiting and self._may_start and self._turns.running < self._turns.work:
            self._start(start)
            return
        self._waiting = appended(self._waiting, start)
        self._turns.wait(1)
        if self.is_hungry:
            self._turns.is_hungry(self)

    @property
    def is_hungry(self) -> bool:
        """Whether a waiting call may start when there is a place."""
        return bool(self._waiting) and self._may_start

    @property
    def _may_start(self) -> bool:
        return self._running < self._turns.calls and self.unread < MOST_UNREAD

    def start_next(self) -> bool:
        """Start the next waiting call that was not cancelled; returns whether there was one that may start."""
        while self.is_hungry:
            self._turns.wait(-1)
            if self._start(self._waiting.popleft()):
                return True
        return False

    def _start(self, start: Callable[[Place], bool]) -> bool:
        place = Place(self)
        if not start(place):
            return False
        self._running += 1
        self._turns.hold(place)
        return True

    def leave_place(self, place: Place) -> None:
        """A call ended, or has held its place for long enough."""
        place.is_held = False
        self._running -= 1
        if self.is_hungry:
            self._turns.is_hungry(self)
        self._turns.give_up(place)


class Place:
    """One of the places of a peer's calls."""

    __slots__ = ("_share", "is_held", "since")

    def __init__(self, share: Share) -> None:
        self._share, self.since, self.is_held = share, monotonic(), True

    def leave(self) -> None:
        """Give the place to the next call; a second call does nothing."""
        if self.is_held:
            self._share.leave_place(self)
