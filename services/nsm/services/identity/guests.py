"""Limits the connections of one container or user to a socket that all processes of a node may use."""

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
"""Seconds that a connection may be idle."""
_SWEEP = 5.0
"""Seconds between checks for idle connections, and between log lines about rejected ones."""


class Guests:
    """The connections of one server, counted by the user and the control group of the connected process.

    So a container that opens too many connections affects only itself.
    """

    def __init__(self, server: Server, limits: Limits, *, proc: Path = Path("/proc")) -> None:
        self._server, self._most, self._proc = server, limits.identity_connections, proc
        self._holders: dict[int, bytes] = {}
        """Connections by the id of their credentials object."""
        self._idle_since: dict[object, float] = {}
        self._told = float("-inf")
        self._refused = 0

    def admits(self, caller: Credentials) -> bool:
        """Whether `caller` may have another connection, which is then counted."""
        present = {id(each.credentials) for each in self._server.connections}
        self._holders = {each: holder for each, holder in self._holders.items() if each in present}
        holder = self._holder(caller)
        if sum(each == holder for each in self._holders.values()) >= self._most:
            self._tell(caller)
            return False
        self._holders[id(caller)] = holder
        return True

    def end_idle(self) -> None:
        """Close connections that have been idle for too long."""
        now, before = asyncio.get_running_loop().time(), self._idle_since
        idle = [each for each in self._server.connections if not each.calls()]
        self._idle_since = {each: before.get(each, now) for each in idle}
        for connection in idle:
            if now - before.get(connection, now) >= _IDLE:
                connection.end()

    async def keep(self) -> None:
        """Close idle connections, forever."""
        while True:
            await asyncio.sleep(_SWEEP)
            self.end_idle()

    def _holder(self, caller: Credentials) -> bytes:
        """The control groups of the caller's process, if visible, and its user."""
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
    """Limit the connections of `server` while the context is open."""
    guests = Guests(server, limits)
    server.admits = guests.admits
    async with Tasks("guests") as tasks:
        tasks.spawn(guests.keep(), name="idle connections")
        yield
