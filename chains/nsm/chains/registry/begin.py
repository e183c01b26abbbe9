"""The begin element for registrations: serialises the events of a name, and owns its state.

The contract is that of `nsm.chains.core.begin`, with a record's name in place of a connection's id: the events of a
name run one at a time and in order; each registration has a store that ends with it; a failed call is undone. The
event factory's `request` repeats the last Register, its `close` unregisters. An Unregister ends the registration here
even if it fails further on, where it will expire; only if a caller's Unregister is refused, nothing changes.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import Generic

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
    shielded,
)
from nsm.chains.core.turns import Entries, Entry


class RegistryBegin(RegistryElement[R]):
    """Serialise the events of each name, own their stores."""

    def __init__(self) -> None:
        self._entries: Entries[_Entry[R]] = Entries("registry begin")

    def __len__(self) -> int:
        """The number of registrations."""
        return len(self._entries)

    async def register(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> R:
        """Run a Register when it is its turn."""
        if call.store is not None:
            return await rest.register(call)
        async with self._turn(call, rest) as entry:
            return await entry.register(call)

    async def unregister(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> None:
        """Run an Unregister when it is its turn; also for an unknown name, which components further on may know."""
        if call.store is not None:
            await rest.unregister(call)
            return
        async with self._turn(call, rest) as entry:
            await entry.unregister(call)

    async def aclose(self) -> None:
        """End all stores without unregistering."""
        await self._entries.aclose()

    def _turn(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> AbstractAsyncContextManager[_Entry[R]]:
        name = _name_of(call)
        return self._entries.turn(name, lambda: _Entry(self._entries, name, rest))


class _Entry(Entry, Generic[R]):
    """One name: its turn, its store, and the Register that succeeded last."""

    def __init__(self, entries: Entries[_Entry[R]], name: str, rest: RegistryHandler[R]) -> None:
        super().__init__(entries, name)
        self.rest = rest
        self.wanted: RegistryCall[R] | None = None

    @property
    def stands(self) -> bool:
        return self.wanted is not None

    async def register(self, call: RegistryCall[R]) -> R:
        """A caller's Register."""
        call.store = self.store
        path = call.path.copy()
        try:
            async with call.undo.attempt():
                record = await self.rest.register(call)
        except BaseException:
            if self.wanted is None:
                await shielded(self.forget(), name=f"end of {self.key}")
            raise
        call.undo.forget()
        self.wanted = RegistryCall(_to_repeat(record, self.key), path=path, target=call.target)
        return record

    async def repeat(self, reselect: Reselect | None) -> None:
        """The mesh's own Register; there is nothing to choose anew."""
        del reselect
        if self.wanted is not None:
            await self.register(self._same_call(self.wanted))

    async def unregister(self, call: RegistryCall[R]) -> None:
        """A caller's Unregister."""
        if self.wanted is not None:
            call.record = codec.clone(self.wanted.record)
        await self._end(call, is_ours=False)

    async def end(self) -> None:
        """The mesh's own Unregister."""
        if self.wanted is not None:
            await self._end(self._same_call(self.wanted), is_ours=True)

    async def forget(self) -> None:
        """Nothing is registered any more."""
        self.wanted = None
        await super().forget()

    async def _end(self, call: RegistryCall[R], *, is_ours: bool) -> None:
        call.store = self.store
        await shielded(self._unregister(call, is_ours=is_ours), name=f"unregister {self.key}")

    async def _unregister(self, call: RegistryCall[R], *, is_ours: bool) -> None:
        try:
            await self.rest.unregister(call)
        except BaseException as error:
            if is_ours or not isinstance(error, Refused):
                await self.forget()
            raise
        await self.forget()

    def _same_call(self, wanted: RegistryCall[R]) -> RegistryCall[R]:
        deadline = asyncio.get_running_loop().time() + DEFAULT_TIMEOUT
        return RegistryCall(
            codec.clone(wanted.record), path=wanted.path.copy(), deadline=deadline, target=wanted.target
        )


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
