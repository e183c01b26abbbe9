"""Bounds what one container or user may hold of a socket that all of a node may connect to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from nsm.chains.core import Limits, Tasks
from nsm.chains.logs import log
from nsm.chains.transport import Credentials
from nsm.chains.transport.server import Server

_IDLE = 30.0
"""Seconds that a connection may be without a call."""
_SWEEP = 5.0
"""Seconds between looks for idle ones, and between log lines about connections that were not admitted."""


class Guests:
    """The connections of one server, each with whom it is counted for: the user and the control group of its process.

    So a container that opens more than it may has none left for itself, and takes none from another one.
    """

    def __init__(self, server: Server, limits: Limits, *, proc: Path = Path("/proc")) -> None:
        self._server, self._most, self._proc = server, limits.identity_connections, proc
        self._holders: dict[int, bytes] = {}
        """By the id of the credentials, which belong to one connection."""
        self._idle_since: dict[object, float] = {}
        self._told = float("-inf")
        self._refused = 0

    def admits(self, caller: Credentials) -> bool:
        """Whether `caller` may have one more connection; it is counted then."""
        present = {id(each.credentials) for each in self._server.connections}
        self._holders = {each: holder for each, holder in self._holders.items() if each in present}
        holder = self._holder(caller)
        if sum(each == holder for each in self._holders.values()) >= self._most:
            self._tell(caller)
            return False
        self._holders[id(caller)] = holder
        return True

    def end_idle(self) -> None:
        """End connections that had no call for too long."""
        now, before = asyncio.get_running_loop().time(), self._idle_since
        idle = [each for each in self._server.connections if not each.calls()]
        self._idle_since = {each: before.get(each, now) for each in idle}
        for connection in idle:
            if now - before.get(connection, now) >= _IDLE:
                connection.end()

    async def keep(self) -> None:
        """End idle connections, for ever."""
        while True:
            await asyncio.sleep(_SWEEP)
            self.end_idle()

    def _holder(self, caller: Credentials) -> bytes:
        """The control groups of the caller's process, as long as they can be seen, and its user."""
        try:
            groups = (self._proc / str(caller.pid) / "cgroup").read_bytes()
        except OSError:
            groups = b""
        return b"%d %s" % (caller.uid, groups)

    def _tell(self, caller: Credentials) -> None:
        self._refused += 1
        now = asyncio.get_running_loop().time()
        if now - self._told >= _SWEEP:
            log.warning(
                "connections refused by the limit identity_connections",
                pid=caller.pid,
                uid=caller.uid,
                count=self._refused,
                limit=self._most,
            )
            self._told, self._refused = now, 0


@asynccontextmanager
async def guarded(server: Server, limits: Limits) -> AsyncIterator[None]:
    """Have the connections of `server` bounded meanwhile."""
    guests = Guests(server, limits)
    server.admits = guests.admits
    async with Tasks("guests") as tasks:
        tasks.spawn(guests.keep(), name="idle connections")
        yield
