"""Turns: the events of one name run one after the other, and share one store while something exists under it.

A name is the id of a connection or of a registration. `Entries` holds an `Entry` for each name that is established or
requested. At most one event of a name runs at a time, waiting ones in the order in which they arrived; events of
different names do not wait for each other. Each entry has the store of whatever is established under its name, and
the `EventFactory` that elements find there: its events are tasks of `Entries`, since an event may end the store, and
the task, that requested it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Generic, TypeVar
from weakref import ref

from .events import Reselect
from .store import Store, run_cleanup
from .tasks import Tasks

E = TypeVar("E", bound="Entry")


class Entry:
    """One name: its turn and its store. Subclasses define what is established, and what each event does."""

    def __init__(self, entries: Entries[E], key: str) -> None:
        self.key, self._entries = key, entries
        self.lock = asyncio.Lock()
        self.waiting = 0
        self._events = _Events(entries, self)
        self.store = Store(key, self._events)

    @property
    def stands(self) -> bool:
        """Whether something is established under this name, to be repeated and to be ended."""
        raise NotImplementedError

    async def repeat(self, reselect: Reselect | None) -> None:
        """Request again what is established; see `EventFactory.request`. Runs in turn."""
        raise NotImplementedError

    async def end(self) -> None:
        """End what is established, on behalf of the mesh itself. Runs in turn."""
        raise NotImplementedError

    def start_event(self, event: Callable[[], Awaitable[None]]) -> None:
        """Run an event in turn without waiting for it; an exception is logged."""
        self._entries.start_event(self, event)

    async def forget(self) -> None:
        """End the store; whatever is established next has a new one."""
        ended, self.store = self.store, Store(self.key, self._events)
        await ended.dispose()


class Entries(Generic[E]):
    """The entries of all names that are established or requested."""

    def __init__(self, owner: str) -> None:
        self._entries: dict[str, E] = {}
        self._tasks = Tasks(owner)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def all(self) -> list[E]:
        """The current entries."""
        return list(self._entries.values())

    @asynccontextmanager
    async def turn(self, key: str, make: Callable[[], E]) -> AsyncIterator[E]:
        """The entry of `key`, when it is the caller's turn; `make` creates it if there is none."""
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = make()
        entry.waiting += 1
        try:
            async with entry.lock:
                yield entry
        finally:
            entry.waiting -= 1
            if not entry.stands and not entry.waiting:
                self._entries.pop(key, None)

    async def run_event(self, entry: Entry, event: Callable[[], Awaitable[None]]) -> None:
        """Run the mesh's own event in turn, if `entry` still exists. The event may cancel the task that awaits it."""
        work = self._in_turn(entry, event)
        await asyncio.shield(self._tasks.start(work, name=f"event of {entry.key}"))

    def start_event(self, entry: Entry, event: Callable[[], Awaitable[None]]) -> None:
        """The same, for an event that no task waits for."""

        async def logged() -> None:
            await run_cleanup(lambda: self._in_turn(entry, event), f"event of {entry.key}")

        self._tasks.spawn(logged(), name=f"event of {entry.key}")

    async def aclose(self) -> None:
        """End all stores, but nothing that is established."""
        await self._tasks.aclose()
        for entry in self.all():
            await entry.store.dispose()
        self._entries.clear()

    async def _in_turn(self, entry: Entry, event: Callable[[], Awaitable[None]]) -> None:
        known = self._entries.get(entry.key)
        if known is None or known is not entry:
            return
        there = known
        async with self.turn(entry.key, lambda: there):
            await event()


class _Events:
    """The `EventFactory` of one entry, without a reference to it: the entry is freed as soon as it ends."""

    def __init__(self, entries: Entries[E], entry: Entry) -> None:
        self._entries, self._entry = entries, ref(entry)

    async def request(self, *, reselect: Reselect | None = None) -> None:
        await self._run(lambda entry: entry.repeat(reselect))

    async def close(self, *, still: Callable[[], bool] | None = None) -> None:
        async def in_turn(entry: Entry) -> None:
            if still is None or still():
                await entry.end()

        await self._run(in_turn)

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        async def in_turn(entry: Entry) -> None:
            if entry.stands:
                await work()

        await self._run(in_turn)

    async def _run(self, event: Callable[[Entry], Awaitable[None]]) -> None:
        if (entry := self._entry()) is not None:
            await self._entries.run_event(entry, partial(event, entry))
