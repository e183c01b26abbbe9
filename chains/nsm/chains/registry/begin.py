"""The begin element for registrations: serialises the events of a name, and owns its state.

The contract is that of `nsm.chains.core.begin`, with a record's name in place of a connection's id: the events of a
name run one at a time and in order; each registration has a store that ends with it; a failed call is undone. The
event factory's `request` repeats the last Register, its `close` unregisters. An Unregister ends the registration here
even if it fails further on, where it will expire; only if a caller's Unregister is refused, nothing changes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Generic

from nsm.apis import codec
from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.core import (
    DEFAULT_TIMEOUT,
    InvalidRequest,
    R,
    Refused,
    RegistryCall,
    RegistryElement,
    RegistryHandler,
    Reselect,
    Store,
    Tasks,
    shielded,
)


class RegistryBegin(RegistryElement[R]):
    """Serialise the events of each name, own their stores."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry[R]] = {}
        self._events = Tasks("registry begin")

    def __len__(self) -> int:
        """The number of registrations."""
        return len(self._entries)

    async def register(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> R:
        """Run a Register when it is its turn."""
        if call.store is not None:
            return await rest.register(call)
        async with self._turn(_name_of(call), rest) as entry:
            return await entry.register(call)

    async def unregister(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> None:
        """Run an Unregister when it is its turn; also for an unknown name, which components further on may know."""
        if call.store is not None:
            await rest.unregister(call)
            return
        async with self._turn(_name_of(call), rest) as entry:
            await entry.unregister(call)

    async def aclose(self) -> None:
        """End all stores without unregistering."""
        await self._events.aclose()
        for entry in list(self._entries.values()):
            await entry.store.dispose()
        self._entries.clear()

    def run_event(
        self, entry: _Entry[R], event: Callable[[_Entry[R]], Coroutine[Any, Any, None]]
    ) -> asyncio.Task[None]:
        """Start an event that the mesh itself caused."""
        return self._events.start(self._in_turn(entry, event), name=f"event of {entry.name}")

    async def _in_turn(self, entry: _Entry[R], event: Callable[[_Entry[R]], Coroutine[Any, Any, None]]) -> None:
        if self._entries.get(entry.name) is not entry:
            return
        async with self._turn(entry.name, entry.rest):
            await event(entry)

    @asynccontextmanager
    async def _turn(self, name: str, rest: RegistryHandler[R]) -> AsyncIterator[_Entry[R]]:
        entry = self._entries.get(name)
        if entry is None:
            entry = self._entries[name] = _Entry(self, name, rest)
        entry.waiting += 1
        try:
            async with entry.lock:
                yield entry
        finally:
            entry.waiting -= 1
            if entry.wanted is None and not entry.waiting:
                self._entries.pop(name, None)


class _Entry(Generic[R]):
    """One name: its queue, its store, and its last successful Register."""

    def __init__(self, begin: RegistryBegin[R], name: str, rest: RegistryHandler[R]) -> None:
        self.begin, self.name, self.rest = begin, name, rest
        self.lock = asyncio.Lock()
        self.waiting = 0
        self.store = Store(name, _Events(self))
        self.wanted: RegistryCall[R] | None = None

    async def register(self, call: RegistryCall[R]) -> R:
        call.store = self.store
        path = call.path.copy()
        try:
            async with call.undo.attempt():
                record = await self.rest.register(call)
        except BaseException:
            if self.wanted is None:
                await shielded(self._forget(), name=f"end of {self.name}")
            raise
        self.wanted = RegistryCall(_to_repeat(record, self.name), path=path, target=call.target)
        return record

    async def register_again(self) -> None:
        if self.wanted is not None:
            await self.register(self._same_call(self.wanted))

    async def unregister(self, call: RegistryCall[R] | None = None) -> None:
        is_ours = call is None
        if call is None:
            if self.wanted is None:
                return
            call = self._same_call(self.wanted)
        elif self.wanted is not None:
            call.record = codec.clone(self.wanted.record)
        call.store = self.store
        await shielded(self._unregister(call, is_ours=is_ours), name=f"unregister {self.name}")

    async def _unregister(self, call: RegistryCall[R], *, is_ours: bool) -> None:
        try:
            await self.rest.unregister(call)
        except BaseException as error:
            if is_ours or not isinstance(error, Refused):
                await self._forget()
            raise
        await self._forget()

    async def _forget(self) -> None:
        self.wanted = None
        ended, self.store = self.store, Store(self.name, _Events(self))
        await ended.dispose()

    def _same_call(self, wanted: RegistryCall[R]) -> RegistryCall[R]:
        deadline = asyncio.get_running_loop().time() + DEFAULT_TIMEOUT
        return RegistryCall(
            codec.clone(wanted.record), path=wanted.path.copy(), deadline=deadline, target=wanted.target
        )


class _Events(Generic[R]):
    """The `EventFactory` of one registration."""

    def __init__(self, entry: _Entry[R]) -> None:
        self._entry = entry

    async def request(self, *, reselect: Reselect | None = None) -> None:
        del reselect  # there is nothing to reselect
        await asyncio.shield(self._entry.begin.run_event(self._entry, lambda entry: entry.register_again()))

    async def close(self) -> None:
        await asyncio.shield(self._entry.begin.run_event(self._entry, lambda entry: entry.unregister()))

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        async def in_turn(entry: _Entry[R]) -> None:
            if entry.wanted is not None:
                await work()

        await asyncio.shield(self._entry.begin.run_event(self._entry, in_turn))


def _to_repeat(record: R, name: str) -> R:
    """The record to send when registering again: as returned, with its own name and without the old expiry."""
    copy = codec.clone(record)
    copy.name = name
    if isinstance(copy, NetworkServiceEndpoint):
        copy.expiration_time = None
    return copy


def _name_of(call: RegistryCall[R]) -> str:
    if not call.record.name:
        raise InvalidRequest(f"the {type(call.record).__name__} has no name")
    return call.record.name
