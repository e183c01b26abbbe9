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
"""Seconds of silence after which a manager is asked whether it responds."""
ANSWER = 3.0
"""Seconds for which it may take to answer."""
AT_ONCE = 4
"""How many streams are opened at the same time: each begins with all connections of a manager."""
A_WHILE = 5.0
"""Seconds after which a stream that ends is opened again at once: channels end with their SVIDs."""
PATIENCE = 5.0
"""Seconds within which a new stream has to deliver its first event."""
SETTLING = 3.0
"""Seconds without further parts after which the first state of a manager that does not mark its end is complete."""
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
_TICK, _LATE = 0.25, 0.5
"""Seconds between two looks at this process's own clock, and how late one may be."""
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
            await check_health(self._pool, self._url, timeout=ANSWER)
        except (Unavailable, TimedOut):
            raise
        except MeshError:
            pass
        return (await self._pool.channel(self._url).peer()).spiffe_id


class Turns:
    """What the watches of one process share: turns to open a stream, and whether this process itself is slow."""

    def __init__(self) -> None:
        self.opening = asyncio.Semaphore(AT_ONCE)
        self._slow_until = 0.0

    async def watch_ourselves(self) -> None:
        """Notice, forever, when this process gets too little time: then silence says nothing about others."""
        while True:
            due = _now() + _TICK
            await asyncio.sleep(_TICK)
            if _now() - due > _LATE:
                self._slow_until = _now() + ANSWER

    @property
    def are_we_slow(self) -> bool:
        """Whether this process had too little time recently."""
        return _now() < self._slow_until


class ManagerWatch:
    """Reports to `state` what the manager at `url` reports."""

    def __init__(self, state: State, url: str, contact: Contact, turns: Turns) -> None:
        self._state, self._url, self._contact, self._turns = state, url, contact, turns
        self._responded = 0.0
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
            self._state.manager_lost(self._url, reason, has_ended=True)
            log.info("a manager does not respond", manager=self._url, reason=reason)
            await asyncio.sleep(pauses.next())

    async def _watched(self) -> str:
        """Read one stream to its end; returns why it ended."""
        try:
            async with Tasks("view") as tasks:
                tasks.spawn(self._beat(), name=f"heartbeat of {self._url}")
                async with aclosing(cast(Any, self._contact.events())) as events:
                    async with self._turns.opening, asyncio.timeout(PATIENCE):
                        first: ConnectionEvent | None = await anext(events, None)
                    if first is None:
                        return "it ended the stream"
                    self._state.begin(self._url)
                    self._is_settled = False
                    self._take(first)
                    del first  # it may be large, and the next one may be days away
                    async for event in events:
                        self._take(event)
                        del event
            return "it ended the stream"
        except TimeoutError:
            return f"it sent nothing within {PATIENCE:g} s"
        except MeshError as error:
            return str(error)
        finally:
            self._settle_later(None)

    async def _beat(self) -> None:
        """A process that hangs ends no stream: ask it, unless it says something anyway."""
        while True:
            try:
                self._alive(await self._contact.responds())
            except TimedOut as error:
                if not self._turns.are_we_slow:
                    self._state.manager_lost(self._url, f"it does not respond: {error}")
            except Unavailable as error:
                self._state.manager_lost(self._url, str(error))
            except MeshError:
                self._alive()
            await asyncio.sleep(BEAT)
            await self._silence()

    async def _silence(self) -> None:
        """Return once it has said nothing for a while."""
        while (left := BEAT - (_now() - self._responded)) > 0:  # noqa: ASYNC110 - it is time that is awaited
            await asyncio.sleep(left)

    def _alive(self, identity: str = "") -> None:
        self._responded = _now()
        self._state.manager_alive(self._url, identity)

    def _take(self, event: ConnectionEvent) -> None:
        self._alive()
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
