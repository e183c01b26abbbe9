"""The door of a component: peers whose identity is not verified yet.

A connection costs next to nothing until its peer has sent the whole first message of a handshake. Then it is one of a
few concurrent handshakes. Addresses (processes, on a unix socket) take turns, and none gets more than its share. If no
handshake succeeds, the oldest ones that still run give way to waiting ones: an honest peer is done before that, unless
this process is the slow one, or others succeed and all get their turn.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import sys
import termios
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import monotonic

from nsm.chains.core import Limits, Tasks, counts

from .credentials import caller_of
from .disposal import hang_up
from .folded import Folded
from .released import RELEASED
from .urls import Address

PATIENCE = 10.0
"""Seconds that a peer has for its first byte, and then again for its handshake."""
_STANDS_STILL = 0.1
"""Seconds without a successful handshake, after which those that have run for as long give way to others."""
_LATE = 0.03
"""Seconds by which this process lags behind its work: then it may be the slow one."""
_FIRST_LOOK, _LAST_LOOK = 0.02, 0.5
"""Seconds until the next check whether the rest of a first message has arrived."""
_LONGEST_BEGIN = 4096
"""Bytes of it that are waited for."""


@dataclass(eq=False, slots=True)
class _Visitor:
    sock: socket.socket
    address: Address
    who: str
    since: float = field(default_factory=monotonic)
    task: asyncio.Task[None] | None = None
    is_ending: bool = False
    looks: asyncio.TimerHandle | None = None


Handshake = Callable[[socket.socket, Address], Awaitable[bool]]
"""Shakes hands over an accepted socket, and returns whether it succeeded; if not, it closes the socket and logs why."""


class Door:
    """Admits the peers that `shake_hands` accepts. `first` is the byte that a peer has to begin with."""

    def __init__(self, shake_hands: Handshake, first: bytes, limits: Limits, folded: Folded, name: str) -> None:
        self._shake_hands, self._begins, self._folded = shake_hands, first, folded
        self._most_silent, self._most_shaking = limits.silent, limits.handshakes
        self._loop = asyncio.get_running_loop()
        self._tasks = Tasks(f"handshakes of {name}")
        self._silent: dict[_Visitor, None] = {}
        self._waiting: dict[str, deque[_Visitor]] = {}
        self._shaking: dict[_Visitor, None] = {}
        self._here: dict[str, int] = {}
        self._moved = 0.0
        """When the last handshake succeeded (`time.monotonic`)."""
        self._looked = 0.0
        """When handshakes were last checked for those that give way."""
        self._timer: asyncio.TimerHandle | None = None
        self._due_at = 0.0
        RELEASED.resting.add(self)

    def __len__(self) -> int:
        """The number of peers at the door."""
        return len(self._silent) + sum(map(len, self._waiting.values())) + len(self._shaking)

    def arrived(self, sock: socket.socket, address: Address) -> None:
        """Take over an accepted socket."""
        try:
            who = caller_of(sock) if address.is_unix else str(sock.getpeername()[0])
        except OSError:
            sock.close()  # it is gone already, which only TCP reports
            return
        visitor = _Visitor(sock, address, who)
        self._silent[visitor] = None
        self._here[who] = self._here.get(who, 0) + 1
        self._loop.add_reader(sock.fileno(), self._spoke, visitor)
        if self._here[who] > max(1, self._most_silent // 4):
            self._send_away(self._oldest(who), "silent", "too many at once")
        elif len(self._silent) > self._most_silent:
            self._send_away(self._oldest(max(self._here, key=self._here.__getitem__)), "silent", "too many at once")
        self._watch()

    async def aclose(self) -> None:
        """Disconnect all peers."""
        if self._timer is not None:
            self._timer.cancel()
        for visitor in [*self._silent, *(one for line in self._waiting.values() for one in line)]:
            self._close(visitor)
        self._waiting.clear()
        await self._tasks.aclose()

    def rest(self) -> None:
        """Keep nothing about peers that have left; times count only while there are some."""
        if not self._here:
            self._moved = self._looked = self._due_at = 0.0
            for each in (self._silent, self._waiting, self._shaking, self._here):
                each.clear()

    # --- before the first byte

    def _spoke(self, visitor: _Visitor, pause: float = _FIRST_LOOK) -> None:
        visitor.looks = None
        try:
            begin = visitor.sock.recv(_HEADER, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            begin = b""
        if not begin:
            self._close(visitor)  # it only checked whether the port is open, as probes do
        elif not begin.startswith(self._begins):
            self._send_away(visitor, "", "what it sent is not a handshake")
        else:
            self._loop.remove_reader(visitor.sock.fileno())
            if _is_whole(visitor.sock, begin):
                del self._silent[visitor]
                self._waiting.setdefault(visitor.who, deque()).append(visitor)
                self._next()
            else:  # the socket would be readable all the time
                visitor.looks = self._loop.call_later(pause, self._spoke, visitor, min(2 * pause, _LAST_LOOK))

    def _oldest(self, who: str) -> _Visitor | None:
        """The longest waiting peer of `who`: a silent one if there is any, else one that waits for its handshake."""
        silent = next((one for one in self._silent if one.who == who), None)
        return silent or next(iter(self._waiting.get(who, ())), None)

    # --- handshakes

    def _next(self) -> None:
        """Start handshakes while there is room: of each address the latest, one address after the other."""
        for who in [*self._waiting]:
            if len(self._shaking) >= self._most_shaking:
                break
            if self._has_its_part(who):
                continue
            line = self._waiting.pop(who)
            self._begin(line.pop())
            if line:
                self._waiting[who] = line  # at the end: the others are first
        self._watch()

    def _has_its_part(self, who: str) -> bool:
        return sum(one.who == who for one in self._shaking) >= max(1, self._most_shaking // 2)

    def _begin(self, visitor: _Visitor) -> None:
        visitor.since = monotonic()
        self._shaking[visitor] = None
        visitor.task = self._tasks.spawn(self._shake(visitor), name="handshake")

    async def _shake(self, visitor: _Visitor) -> None:
        try:
            if await self._shake_hands(visitor.sock, visitor.address):
                self._moved = monotonic()
        finally:
            visitor.task = None  # its traceback would keep the handshake's memory until the next garbage collection
            self._shaking.pop(visitor, None)
            self._gone(visitor)
            self._next()

    # --- time

    def _watch(self) -> None:
        """Check again when the next one is due."""
        due = self._due()
        if self._timer is not None and (due is None or due < self._due_at):
            self._timer.cancel()
            self._timer = None
        if self._timer is None and due is not None:
            self._due_at = due
            self._timer = self._loop.call_later(max(due - monotonic(), 0.0), self._look)

    def _due(self) -> float | None:
        oldest = [next(iter(self._silent), None), *(line[0] for line in self._waiting.values())]
        times = [visitor.since + PATIENCE for visitor in oldest if visitor is not None]
        if (shaking := next((one for one in self._shaking if not one.is_ending), None)) is not None:
            times.append(shaking.since + PATIENCE)
            if self._waiting:
                times.append(max(shaking.since, self._moved, self._looked) + _STANDS_STILL)
        return min(times, default=None)

    def _look(self) -> None:
        self._timer, now = None, monotonic() + 0.01
        for visitor in _until(self._silent, now - PATIENCE):
            self._send_away(visitor, "silent", "it sent nothing")
        for line in [*self._waiting.values()]:
            for visitor in _until(line, now - PATIENCE):
                self._send_away(visitor, "handshakes", "too many at once")
        for visitor in _until(self._shaking, now - PATIENCE):
            self._end(visitor)
        if self._waiting and now > self._due_at + _LATE:
            self._looked = now
        elif self._waiting and self._moved <= now - _STANDS_STILL:
            self._looked, wait = now, sum(map(len, self._waiting.values()))
            stuck = [one for one in _until(self._shaking, now - _STANDS_STILL) if not _is_for_us(one.sock)]
            for visitor in stuck[:wait]:
                self._end(visitor)
        self._watch()

    def _end(self, visitor: _Visitor) -> None:
        if visitor.task is not None and not visitor.is_ending:
            visitor.is_ending = True
            counts.LIMITS.add("handshakes")
            self._warn(visitor, "its handshake takes too long")
            visitor.task.cancel()

    # --- the end

    def _send_away(self, visitor: _Visitor | None, limit: str, why: str) -> None:
        if visitor is None:
            return
        if limit:
            counts.LIMITS.add(limit)
        self._warn(visitor, why)
        self._close(visitor)

    def _warn(self, visitor: _Visitor, why: str) -> None:
        counts.HANDSHAKES.add(why)
        self._folded.warn("a peer was sent away", peer=visitor.who, on=str(visitor.address), reason=why)

    def _close(self, visitor: _Visitor) -> None:
        if visitor in self._silent:
            del self._silent[visitor]
            self._loop.remove_reader(visitor.sock.fileno())
            if visitor.looks is not None:
                visitor.looks.cancel()
        elif visitor in (line := self._waiting.get(visitor.who, deque())):
            line.remove(visitor)
            if not line:
                del self._waiting[visitor.who]
        if visitor.address.is_unix:
            hang_up(visitor.sock)  # it may have sent descriptors
        else:
            visitor.sock.close()
        self._gone(visitor)

    def _gone(self, visitor: _Visitor) -> None:
        self._here[visitor.who] -= 1
        if not self._here[visitor.who]:
            del self._here[visitor.who]


_HEADER = 5
"""Bytes of a record of TLS before its content (RFC 8446 5.1)."""


def _is_whole(sock: socket.socket, begin: bytes) -> bool:
    """Whether the ClientHello is complete, as far as it is waited for; anything else counts as complete."""
    if begin[0] != 0x16:
        return True
    if len(begin) < _HEADER:
        return False
    size = min(_HEADER + int.from_bytes(begin[3:5], "big"), _LONGEST_BEGIN)
    return _unread(sock) >= size


def _is_for_us(sock: socket.socket) -> bool:
    """Whether it is our turn to read."""
    try:
        return _unread(sock) > 0
    except (OSError, ValueError):  # it is closed already
        return False


def _unread(sock: socket.socket) -> int:
    return int.from_bytes(fcntl.ioctl(sock, termios.FIONREAD, b"\0" * 4), sys.byteorder)


def _until(visitors: dict[_Visitor, None] | deque[_Visitor], since: float) -> list[_Visitor]:
    """Those that arrived no later than `since`, in the order in which they arrived."""
    found = []
    for visitor in visitors:
        if visitor.since > since:
            break
        found.append(visitor)
    return found
