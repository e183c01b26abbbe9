"""Watches one manager: its monitor, and whether it responds at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Protocol, cast

from nsm.apis.connection import ConnectionEvent, ConnectionEventType, MonitorScopeSelector
from nsm.chains.core import Backoff, MeshError, Tasks, TimedOut, Unavailable
from nsm.chains.logs import log
from nsm.chains.transport import Pool, RemoteMonitor, check_health
from nsm.view.state import State

BEAT = 2.0
"""Seconds between two questions whether a manager responds, and for which it may take to answer."""
A_WHILE = 5.0
"""Seconds after which a stream that ends is opened again at once: channels end with their SVIDs."""
PATIENCE = 2.0
"""Seconds within which a new stream has to deliver its first event."""
SETTLING = 0.5
"""Seconds without further parts after which the first state of a manager that does not mark its end is complete."""
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
_INITIAL = ConnectionEventType.INITIAL_STATE_TRANSFER


class Contact(Protocol):
    """How a manager is reached."""

    def events(self) -> AsyncIterator[ConnectionEvent]:
        """Its monitor: all connections, then each change. Raises `MeshError` when the stream breaks."""
        ...

    async def responds(self) -> str:
        """Its SPIFFE ID, if that is known. Raises `Unavailable` or `TimedOut` if it does not respond."""
        ...


class Call(Contact):
    """A manager that is reached by its URL."""

    def __init__(self, pool: Pool, url: str) -> None:
        self._pool, self._url = pool, url

    def events(self) -> AsyncIterator[ConnectionEvent]:
        """Its monitor, by one stream, with attempts if it knows what those are."""
        return RemoteMonitor(self._pool, self._url, attempts=True, in_parts=True).monitor(MonitorScopeSelector())

    async def responds(self) -> str:
        """Its identity; any answer to a health check shows that it responds."""
        try:
            await check_health(self._pool, self._url, timeout=BEAT)
        except (Unavailable, TimedOut):
            raise
        except MeshError:
            pass
        return (await self._pool.channel(self._url).peer()).spiffe_id


class ManagerWatch:
    """Reports to `state` what the manager at `url` reports."""

    def __init__(self, state: State, url: str, contact: Contact) -> None:
        self._state, self._url, self._contact = state, url, contact
        self._settling: asyncio.TimerHandle | None = None
        self._is_settled = False
        self.complete = asyncio.Event()
        """Set once its first state is complete."""

    async def run(self) -> None:
        """Watch forever."""
        pauses = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            began = _now()
            reason = await self._watched()
            if _now() - began >= A_WHILE:
                pauses.reset()
                continue
            self._state.manager_lost(self._url, reason)
            log.info("a manager does not respond", manager=self._url, reason=reason)
            await asyncio.sleep(pauses.next())

    async def _watched(self) -> str:
        """Read one stream to its end; returns why it ended."""
        try:
            async with Tasks("view") as tasks:
                tasks.spawn(self._beat(), name=f"heartbeat of {self._url}")
                async with aclosing(cast(Any, self._contact.events())) as events:
                    async with asyncio.timeout(PATIENCE):
                        first: ConnectionEvent | None = await anext(events, None)
                    if first is None:
                        return "it ended the stream"
                    self._state.begin(self._url)
                    self._is_settled = False
                    self._take(first)
                    async for event in events:
                        self._take(event)
            return "it ended the stream"
        except TimeoutError:
            return f"it sent nothing within {PATIENCE:g} s"
        except MeshError as error:
            return str(error)
        finally:
            self._settle_later(None)

    async def _beat(self) -> None:
        """A process that hangs ends no stream: ask it."""
        while True:
            try:
                self._state.manager_alive(self._url, await self._contact.responds())
            except (Unavailable, TimedOut) as error:
                self._state.manager_lost(self._url, f"it does not respond: {error}")
            except MeshError:
                self._state.manager_alive(self._url)
            await asyncio.sleep(BEAT)

    def _take(self, event: ConnectionEvent) -> None:
        self._state.manager_alive(self._url)
        if event.type == _INITIAL:
            for connection in event.connections.values():
                self._state.report(self._url, connection)
            if event.connections:
                self._settle_later(SETTLING)
            else:
                self._settled()
            return
        self._settled()
        for connection_id, connection in event.connections.items():
            if event.type == ConnectionEventType.DELETE:
                self._state.delete(self._url, connection_id)
            else:
                self._state.report(self._url, connection)

    def _settled(self) -> None:
        if not self._is_settled:
            self._is_settled = True
            self._settle_later(None)
            self._state.complete(self._url)
            self.complete.set()

    def _settle_later(self, delay: float | None) -> None:
        if self._settling is not None:
            self._settling.cancel()
        self._settling = None if delay is None else asyncio.get_running_loop().call_later(delay, self._settled)


def _now() -> float:
    return asyncio.get_running_loop().time()
